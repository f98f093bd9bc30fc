// The four-direction scan in three steps: what each chunk adds, from state 0; chunks joined in
// place into the states that they start from; output. A chunk decays by 2^(rate * summed steps), so
// one number per chunk stands for the product of its decays.
//
// A block owns a square of SIDE x SIDE pixels and 32 channels. A line of the square, a row of it or
// a column, is a chunk and the work of a warp at a time; with the state that each line starts from,
// all four directions of the square are known to one block, which adds them up in shared memory and
// writes each pixel once. Columns are read where they lie: a pixel is a dense row of channels in
// either order.
#ifndef GEOSEG_CUDA_SS2D_FORWARD_CUH
#define GEOSEG_CUDA_SS2D_FORWARD_CUH

#include "ss2d_chunk.cuh"

namespace geoseg {

constexpr int FORWARD_LANES = 32;  // channels of a block
constexpr int FORWARD_LINES = 8;   // of a square at once, a warp each
constexpr int FORWARD_THREADS = FORWARD_LINES * FORWARD_LANES;

// A line of the walk's steps among those in shared memory.
template <int SIDE, bool BACKWARDS>
struct LineWalk {
    int first;
    GEOSEG_INLINE int at(int i) const { return first + Walk<SIDE, BACKWARDS>::at(i); }
};

struct Square {
    int image, y0, x0, rows, columns;  // of pixels inside of the map
    int channel0;
};

// Steps of FORWARD_LINES lines, and the block's square: in shared memory, because registers are
// what bounds the warps of a multiprocessor.
template <int SIDE, int SUMS>
struct SquareTile : Ss2dTile<FORWARD_LINES * SIDE, FORWARD_LANES, 8 + SUMS> {
    using Ss2dTile<FORWARD_LINES * SIDE, FORWARD_LANES, 8 + SUMS>::Ss2dTile;

    static_assert(sizeof(Square) <= 8 * sizeof(float), "it has the first eight floats");
    GEOSEG_INLINE Square &square() const { return *reinterpret_cast<Square *>(this->kept()); }
    GEOSEG_INLINE float *sums() const { return this->kept() + 8; }
};

// The channel blocks of a square follow each other: they read the same q, and meet in the cache.
template <int SIDE>
GEOSEG_INLINE Square square_of(const Ss2dArguments &a, int index) {
    const int blocks = blocks_of(a.channels, FORWARD_LANES);
    const int across = blocks_of(a.width, SIDE), down = blocks_of(a.height, SIDE);
    const int square = index / blocks, image = square / (across * down);
    const int inside = square - image * across * down;
    const int y0 = inside / across * SIDE, x0 = inside % across * SIDE;
    return {image,
            y0,
            x0,
            smaller(SIDE, a.height - y0),
            smaller(SIDE, a.width - x0),
            (index - square * blocks) * FORWARD_LANES};
}

// A row or a column of a square: its index among the chunks, where its first pixel and the distance
// from one to the next are in a map, and how many there are.
struct Line {
    int chunk, pixel, pixel_stride, count;
};

template <int SIDE, bool COLUMNS>
GEOSEG_INLINE Line line_of(const Ss2dArguments &a, const Square &s, int line) {
    if (COLUMNS)
        return {(s.x0 + line) * blocks_of(a.height, SIDE) + s.y0 / SIDE,
                s.y0 * a.width + s.x0 + line, a.width, s.rows};
    return {(s.y0 + line) * blocks_of(a.width, SIDE) + s.x0 / SIDE,
            (s.y0 + line) * a.width + s.x0, 1, s.columns};
}

template <int SIDE, bool COLUMNS, class Tile>
GEOSEG_INLINE void load_lines(const Tile &tile, const Ss2dArguments &a, int direction,
                              int first_line, int thread) {
    const Square &s = tile.square();
    const int lines = (COLUMNS ? s.columns : s.rows) - first_line;
    const int count = COLUMNS ? s.rows : s.columns;
    const int pixel = line_of<SIDE, COLUMNS>(a, s, first_line).pixel;
    load_steps<FORWARD_THREADS>(tile, a, s.image, direction, thread, [=](int i) {
        const int line = i / SIDE, step = i % SIDE;
        const int at = COLUMNS ? step * a.width + line : line * a.width + step;
        return line < lines && step < count ? pixel + at : -1;
    });
}

// Walks a line from a state; hands `visit` the step, where it is in shared memory and where in the
// map, its size, the state and the input.
template <int SIDE, bool BACKWARDS, class Tile, class Visit>
GEOSEG_INLINE void walk_line(const Tile &tile, const Ss2dChannel &channel, const Io *inputs,
                             int stride, int count, int thread, float h, Visit visit) {
    const int lane = thread % FORWARD_LANES, first = thread / FORWARD_LANES * SIDE;
    const LineWalk<SIDE, BACKWARDS> walk = {first};
    const int next = BACKWARDS ? -stride : stride;
    int offset = BACKWARDS ? (SIDE - 1) * stride : 0;
#pragma unroll 1
    for (int i0 = 0; i0 < SIDE; i0 += SCAN_GROUP) {
        float z[SCAN_GROUP], dt[SCAN_GROUP], x[SCAN_GROUP];
#pragma unroll
        for (int i = 0; i < SCAN_GROUP; ++i) {
            const int step = walk.at(i0 + i) - first;
            x[i] = step < count ? load_io(inputs, offset + i * next) : 0.0f;
        }
        project_steps(tile, walk, i0, lane, channel.bias, z);
        step_sizes(walk, i0, first + count, z, dt);
#pragma unroll
        for (int i = 0; i < SCAN_GROUP; ++i) {
            const int at = walk.at(i0 + i), step = at - first;
            h = exp2_of(dt[i] * channel.rate) * h + dt[i] * tile.b(at) * x[i];
            visit(step, at, offset, dt[i], h, x[i]);
            offset += next;
        }
    }
}

// A channel of a line.
template <class T>
GEOSEG_INLINE T *line_channel(T *map, const Ss2dArguments &a, const Square &s, const Line &line,
                              int channel) {
    return map + (ss2d_first_pixel(a, s.image) + line.pixel) * a.channels + channel;
}

template <int SIDE, int DIRECTION, class Tile>
GEOSEG_INLINE void sum_line(const Tile &tile, const Ss2dArguments &a, int line_index, int thread) {
    const Square &s = tile.square();
    const Line line = line_of<SIDE, DIRECTION % 2 == 1>(a, s, line_index);
    const Ss2dChannel channel =
        ss2d_channel(a, DIRECTION, s.channel0 + thread % FORWARD_LANES);
    float sum = 0.0f, end = 0.0f;
    walk_line<SIDE, DIRECTION / 2 == 1>(
        tile, channel, line_channel(a.x, a, s, line, channel.index),
        line.pixel_stride * a.channels, line.count, thread, 0.0f,
        [&](int, int, int, float dt, float h, float) {
            sum += dt;
            end = h;
        });
    if (!channel.exists) return;
    const int64 state = ss2d_state(a, s.image, DIRECTION, line.chunk, channel.index);
    a.sums[state] = sum;
    a.ends[state] = end;
}

// Adds a line's outputs to the square's, [SIDE][SIDE][FORWARD_LANES]; the last direction writes.
template <int SIDE, int DIRECTION, class Tile>
GEOSEG_INLINE void output_line(const Tile &tile, const Ss2dArguments &a, int line_index,
                               int thread) {
    const Square &s = tile.square();
    constexpr bool columns = DIRECTION % 2 == 1;
    const Line line = line_of<SIDE, columns>(a, s, line_index);
    const int lane = thread % FORWARD_LANES, stride = line.pixel_stride * a.channels;
    const Ss2dChannel channel = ss2d_channel(a, DIRECTION, s.channel0 + lane);
    const float skip = DIRECTION == 3 ? ss2d_skip(a, channel.index) : 0.0f;
    Io *y = line_channel(a.y, a, s, line, channel.index);
    float *sums = tile.sums() + line_index * (columns ? 1 : SIDE) * FORWARD_LANES + lane;
    const float start = a.ends[ss2d_state(a, s.image, DIRECTION, line.chunk, channel.index)];
    walk_line<SIDE, DIRECTION / 2 == 1>(
        tile, channel, line_channel(a.x, a, s, line, channel.index), stride, line.count, thread,
        start, [&](int step, int at, int offset, float, float h, float x) {
            float &place = sums[step * (columns ? SIDE : 1) * FORWARD_LANES];
            const float value = tile.c(at) * h;
            if (DIRECTION == 0) place = value;
            else if (DIRECTION < 3) place += value;
            else if (step < line.count && channel.exists)
                store_io(y, offset, place + value + skip * x);
        });
}

// Calls `visit` for every line of a square in the directions `first` to `last` of 0, 2, 1, 3: rows,
// then columns.
template <int SIDE, class Block, class Tile, class Visit>
GEOSEG_INLINE void visit_lines(Block &block, const Tile &tile, const Ss2dArguments &a,
                               int first, int last, Visit visit) {
    const Square &s = tile.square();
    for (int i = first; i < last; ++i) {
        const bool columns = i >= 2;
        const int direction = columns ? 2 * i - 3 : 2 * i, lines = columns ? s.columns : s.rows;
        for (int line0 = 0; line0 < lines; line0 += FORWARD_LINES) {
            block.stage([&](int thread, Nothing &) {
                if (columns) load_lines<SIDE, true>(tile, a, direction, line0, thread);
                else load_lines<SIDE, false>(tile, a, direction, line0, thread);
                if (line0 == 0)
                    load_weights<FORWARD_THREADS>(tile, a, direction, s.channel0, thread);
            });
            block.stage([&](int thread, Nothing &) {
                const int line = line0 + thread / FORWARD_LANES;
                if (line < lines) visit(direction, line, thread);
            });
        }
    }
}

// Grid: images x squares x channel blocks x 2: rows, columns.
template <int SIDE, class Block>
GEOSEG_INLINE void sum_square(Block &block, const Ss2dArguments &a, float *shared) {
    const SquareTile<SIDE, 0> tile(a, shared);
    block.stage([&](int thread, Nothing &) {
        if (thread == 0) tile.square() = square_of<SIDE>(a, block.x() / 2);
    });
    const int first = block.x() % 2 * 2;
    const auto visit = [&](int direction, int line, int thread) {
        if (direction == 0) sum_line<SIDE, 0>(tile, a, line, thread);
        if (direction == 1) sum_line<SIDE, 1>(tile, a, line, thread);
        if (direction == 2) sum_line<SIDE, 2>(tile, a, line, thread);
        if (direction == 3) sum_line<SIDE, 3>(tile, a, line, thread);
    };
    visit_lines<SIDE>(block, tile, a, first, first + 2, visit);
}

// Grid: images x squares x channel blocks.
template <int SIDE, class Block>
GEOSEG_INLINE void output_square(Block &block, const Ss2dArguments &a, float *shared) {
    const SquareTile<SIDE, SIDE * SIDE * FORWARD_LANES> tile(a, shared);
    block.stage([&](int thread, Nothing &) {
        if (thread == 0) tile.square() = square_of<SIDE>(a, block.x());
    });
    const auto visit = [&](int direction, int line, int thread) {
        if (direction == 0) output_line<SIDE, 0>(tile, a, line, thread);
        if (direction == 1) output_line<SIDE, 1>(tile, a, line, thread);
        if (direction == 2) output_line<SIDE, 2>(tile, a, line, thread);
        if (direction == 3) output_line<SIDE, 3>(tile, a, line, thread);
    };
    visit_lines<SIDE>(block, tile, a, 0, 4, visit);
}

// Small maps have more blocks, and less work in a row, with small squares; large ones fewer chunks.
template <class Block>
GEOSEG_INLINE void ss2d_sum_8(Block &block, const Ss2dArguments &a, float *shared) {
    sum_square<8>(block, a, shared);
}
template <class Block>
GEOSEG_INLINE void ss2d_sum_16(Block &block, const Ss2dArguments &a, float *shared) {
    sum_square<16>(block, a, shared);
}
template <class Block>
GEOSEG_INLINE void ss2d_output_8(Block &block, const Ss2dArguments &a, float *shared) {
    output_square<8>(block, a, shared);
}
template <class Block>
GEOSEG_INLINE void ss2d_output_16(Block &block, const Ss2dArguments &a, float *shared) {
    output_square<16>(block, a, shared);
}

}  // namespace geoseg

#endif
