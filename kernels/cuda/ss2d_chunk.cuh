// What the kernels of the four-direction scan share: arguments, the small projections and weights of
// some steps in shared memory, the step sizes of several steps at once, and the launch that joins
// chunks. A lane is a channel; a chunk is a few consecutive steps of the rows or of the columns.
#ifndef GEOSEG_CUDA_SS2D_CHUNK_CUH
#define GEOSEG_CUDA_SS2D_CHUNK_CUH

#include "carry.cuh"

namespace geoseg {

constexpr int SCAN_GROUP = 4;  // steps whose projections are computed together
constexpr float NO_STEP = -1e30f;  // its softplus is exactly 0

struct Ss2dArguments {
    const Io *x;              // (N, L, C)
    const float *q;           // (N, L, 4, R + 2)
    const float *dt_weight;   // (4, C, R)
    const float *dt_bias;     // (4, C)
    const float *a_logs;      // (4, C)
    const float *ds;          // (4, C)
    float *sums;              // (N, 4, chunks, C): step sizes over ln 2, summed
    float *ends;              // the same shape: states at the end, then at the start of a chunk
    float *partial;           // (N, L, C): dx of the directions so far
    Io *y;                    // (N, L, C)
    const Io *dy;             // (N, L, C); null in the forward pass
    float *adjoints;          // as ends, of the reverse recurrence
    Io *dx;                   // (N, L, C)
    float *dq;                // (slices, N, L, 4, R + 2)
    float *parameters;        // (parts, 4, R + 3, C): of dt_weight, dt_bias, a_logs, ds
    int batch, height, width, channels, rank;
    int chunks, row_chunks, column_chunks;  // room per direction; of the rows; of the columns
    int columns;              // 0: directions 0 and 2, 1: directions 1 and 3
    int part_chunks, slices;  // chunks that a block of the backward pass takes one after the other
};

GEOSEG_INLINE int64 ss2d_first_pixel(const Ss2dArguments &a, int image) {
    return static_cast<int64>(image) * a.height * a.width;
}

// Shared memory of some steps. What has a fixed size comes first, so that its addresses are
// constants; q lies in fours of rows, so that its steps are at fixed distances; rows of w are padded
// so that both the transposing writes and the reads meet every bank.
template <int STEPS, int CHANNELS, int KEPT>
struct Ss2dTile {
    static constexpr int steps = STEPS, channels = CHANNELS;
    static_assert((2 * STEPS + KEPT) % 4 == 0, "projections are read in fours");
    float *shared;
    int rank4;

    GEOSEG_INLINE Ss2dTile(const Ss2dArguments &a, float *block_shared)
        : shared(block_shared), rank4((a.rank + 3) / 4 * 4) {}

    // B times ln 2, and C, of a step.
    GEOSEG_INLINE float &b(int step) const { return shared[step]; }
    GEOSEG_INLINE float &c(int step) const { return shared[STEPS + step]; }
    // Floats for the kernel's own use.
    GEOSEG_INLINE float *kept() const { return shared + 2 * STEPS; }
    GEOSEG_INLINE Float4 &projections(int r, int step) const {
        return reinterpret_cast<Float4 *>(kept() + KEPT)[r / 4 * STEPS + step];
    }
    GEOSEG_INLINE float &projection(int r, int step) const {
        return reinterpret_cast<float *>(&projections(r, step))[r % 4];
    }
    // Times log2(e).
    GEOSEG_INLINE float &weight(int r, int channel) const {
        return kept()[KEPT + STEPS * rank4 + r * (CHANNELS + 1) + channel];
    }
    GEOSEG_INLINE float *rest() const { return &weight(rank4, 0); }
};

// A thread's places in a dense matrix of `width` columns that a block reads together. Counted along,
// because a division per element costs more than all the rest.
template <int THREADS>
struct Cursor {
    int row, column, width, rows, columns;

    GEOSEG_INLINE Cursor(int thread, int width_)
        : row(thread / width_), column(thread - row * width_), width(width_),
          rows(THREADS / width_), columns(THREADS - rows * width_) {}

    GEOSEG_INLINE void next() {
        row += rows;
        column += columns;
        if (column >= width) {
            column -= width;
            ++row;
        }
    }
};

// Reads the first `rows` rows, LOADS of a thread's elements at a time: a load takes hundreds of
// cycles, and a store that waits for it would keep the next one from starting.
constexpr int LOADS = 4;
template <int THREADS, class Load, class Store>
GEOSEG_INLINE void read_matrix(int rows, int width, int thread, Load load, Store store) {
    Cursor<THREADS> cursor(thread, width);
#pragma unroll 1
    while (cursor.row < rows) {
        float values[LOADS];
        Cursor<THREADS> at = cursor;
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            values[i] = cursor.row < rows ? load(cursor.row, cursor.column) : 0.0f;
            cursor.next();
        }
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            if (at.row < rows) store(at.row, at.column, values[i]);
            at.next();
        }
    }
}

// Reads q, B and C of a direction by all threads of a block together. `pixel_at` tells a step's
// pixel in the image; below 0 there is none, and the step gets zeros.
template <int THREADS, class Tile, class PixelAt>
GEOSEG_INLINE void load_steps(const Tile &tile, const Ss2dArguments &a, int image, int direction,
                              int thread, PixelAt pixel_at) {
    const int row = a.rank + 2;
    const float *map = a.q + (ss2d_first_pixel(a, image) * 4 + direction) * row;
    read_matrix<THREADS>(
        Tile::steps, row, thread,
        [&](int step, int r) {
            const int pixel = pixel_at(step);
            return pixel >= 0 ? map[static_cast<int64>(pixel) * 4 * row + r] : 0.0f;
        },
        [&](int step, int r, float value) {
            if (r < a.rank) tile.projection(r, step) = value;
            else if (r == a.rank) tile.b(step) = GEOSEG_LN2 * value;
            else tile.c(step) = value;
        });
#pragma unroll 1
    for (int absent = a.rank; absent < tile.rank4; ++absent)
        for (int i = thread; i < Tile::steps; i += THREADS) tile.projection(absent, i) = 0.0f;
}

template <int THREADS, class Tile>
GEOSEG_INLINE void load_weights(const Tile &tile, const Ss2dArguments &a, int direction,
                                int channel0, int thread) {
    const int64 base = (static_cast<int64>(direction) * a.channels + channel0) * a.rank;
    const int wanted = a.channels - channel0;
    read_matrix<THREADS>(
        Tile::channels, a.rank, thread,
        [&](int channel, int r) {
            return channel < wanted ? GEOSEG_LOG2E * a.dt_weight[base + channel * a.rank + r]
                                    : 0.0f;
        },
        [&](int channel, int r, float value) { tile.weight(r, channel) = value; });
#pragma unroll 1
    for (int absent = a.rank; absent < tile.rank4; ++absent)
        for (int i = thread; i < Tile::channels; i += THREADS) tile.weight(absent, i) = 0.0f;
}

// What a channel keeps through a sweep of one direction.
struct Ss2dChannel {
    int index;         // of an existing channel: threads past the last one repeat it
    bool exists;
    float bias, rate;  // both in units of ln 2
};

GEOSEG_INLINE Ss2dChannel ss2d_channel(const Ss2dArguments &a, int direction, int channel) {
    const int index = smaller(channel, a.channels - 1);
    const int row = direction * a.channels + index;
    return {index, channel < a.channels, GEOSEG_LOG2E * a.dt_bias[row],
            -exp2_of(GEOSEG_LOG2E * a.a_logs[row])};
}

GEOSEG_INLINE float ss2d_skip(const Ss2dArguments &a, int channel) {
    float sum = 0.0f;
    for (int k = 0; k < 4; ++k) sum += a.ds[k * a.channels + channel];
    return sum;
}

GEOSEG_INLINE int64 ss2d_state(const Ss2dArguments &a, int image, int direction, int chunk,
                               int channel) {
    return ((static_cast<int64>(image) * 4 + direction) * a.chunks + chunk) * a.channels + channel;
}

// z over ln 2 of SCAN_GROUP steps of a walk. A weight is read once for all of them.
template <class Tile, class Walk>
GEOSEG_INLINE void project_steps(const Tile &tile, Walk walk, int i0, int lane, float bias,
                                 float *z) {
#pragma unroll
    for (int i = 0; i < SCAN_GROUP; ++i) z[i] = bias;
#pragma unroll 1
    for (int r = 0; r < tile.rank4; r += 4) {
        const float w0 = tile.weight(r, lane), w1 = tile.weight(r + 1, lane);
        const float w2 = tile.weight(r + 2, lane), w3 = tile.weight(r + 3, lane);
#pragma unroll
        for (int i = 0; i < SCAN_GROUP; ++i) {
            const Float4 v = tile.projections(r, walk.at(i0 + i));
            // One by one: a sum of products would be a product, and additions, more than these.
            z[i] += w0 * v.x;
            z[i] += w1 * v.y;
            z[i] += w2 * v.z;
            z[i] += w3 * v.w;
        }
    }
}

// Sizes over ln 2 of SCAN_GROUP steps of a walk. From `end` on, past the border, they are 0, which
// changes nothing: there z is replaced, and not what comes of it, so that no branch keeps the steps
// from being computed together.
template <class Walk>
GEOSEG_INLINE void step_sizes(Walk walk, int i0, int end, const float *z, float *dt) {
#pragma unroll
    for (int i = 0; i < SCAN_GROUP; ++i)
        dt[i] = softplus2(walk.at(i0 + i) < end ? z[i] : NO_STEP);
}

GEOSEG_INLINE Run ss2d_run(const Ss2dArguments &a, float *ends, int image, int direction,
                           int channel, bool backwards, int thread) {
    Run run = run_of(thread, direction % 2 ? a.column_chunks : a.row_chunks, backwards);
    const int64 state = ss2d_state(a, image, direction, 0, channel);
    run.sums = a.sums + state;
    run.ends = ends + state;
    run.stride = a.channels;
    run.rate = -exp2_of(GEOSEG_LOG2E * a.a_logs[direction * a.channels + channel]);
    return run;
}

// Grid: (images x channel blocks of CARRY_CHANNELS, 4 directions); shared: two per thread.
template <class Block>
GEOSEG_INLINE void ss2d_join_chunks(Block &block, const Ss2dArguments &a, float *shared) {
    const int blocks = blocks_of(a.channels, CARRY_CHANNELS);
    const int image = block.x() / blocks, direction = block.y();
    const int channel0 = (block.x() - image * blocks) * CARRY_CHANNELS;
    const int passes = a.adjoints ? 2 : 1;
    for (int pass = 0; pass < passes; ++pass) {
        // The reverse recurrence runs against the order of its direction.
        const bool backwards = (direction >= 2) != (pass == 1);
        float *ends = pass ? a.adjoints : a.ends;
        block.stage([&](int thread, Nothing &) {
            const int channel = channel0 + thread % CARRY_CHANNELS;
            if (channel < a.channels)
                join_run(ss2d_run(a, ends, image, direction, channel, backwards, thread),
                         shared[2 * thread], shared[2 * thread + 1]);
        });
        block.stage([&](int thread, Nothing &) {
            const int channel = channel0 + thread % CARRY_CHANNELS;
            if (channel < a.channels)
                start_run(ss2d_run(a, ends, image, direction, channel, backwards, thread), shared,
                          thread);
        });
    }
}

}  // namespace geoseg

#endif
