// What the kernels of neighbourhood attention share: arguments, the tile of pixels that a block
// owns, strips of a map in shared memory, and sums of products between them.
//
// A block owns TILE_COLUMNS x tile_rows pixels of one head. A thread owns four neighbours of a row
// (a group) and WIDTH channels of the head (a slice): what it reads serves four pixels, and any
// head width fits. Scores are sums over the slices, exchanged through shared memory.
#ifndef GEOSEG_CUDA_NA2D_TILE_CUH
#define GEOSEG_CUDA_NA2D_TILE_CUH

#include "cuda_maps.h"
#include "cuda_numbers.h"

namespace geoseg {

constexpr int GROUP = 4;
constexpr int TILE_COLUMNS = 8;

struct Na2dArguments {
    const Io *q, *k, *v;         // (N, H, W, heads, d) with these strides, the last axis dense
    int64 q_strides[4], k_strides[4], v_strides[4];
    const float *bias;           // (heads, 2k - 1, 2k - 1) or null
    const float *rope_rows;      // (H, d / 4, 2): sine, cosine; or null
    const float *rope_columns;   // (W, d / 4, 2)
    Io *y;                       // (N, H, W, heads, d); null: not wanted
    const Io *dy;                // the same, dense; null in the forward pass
    float *statistics;           // (N, heads, H, W, 2): log2 of the softmax's sum, dy . y
    Io *dq, *dk, *dv;            // (N, H, W, heads, d), dense
    float *dbias;                // (N x tiles, heads, 2k - 1, 2k - 1)
    float scale;
    int batch, height, width, heads, dim, kernel;
    int tile_rows, columns_at_once;
};

struct Pair {
    float even, odd;
};

// Channels c and c + 1 of a pixel; what lies past the head's width is 0.
GEOSEG_INLINE Pair read_pair(const Io *pixel, int c, int dim) {
    return {c < dim ? load_io(pixel, c) : 0.0f, c + 1 < dim ? load_io(pixel, c + 1) : 0.0f};
}

// The sine and cosine of a pixel's pair: the first half of the channels turns with the row.
GEOSEG_INLINE Pair turn_of(const Na2dArguments &a, int y, int x, int c) {
    const int quarter = a.dim / 4, pair = c / 2;
    const float *at = pair < quarter ? a.rope_rows + 2 * (y * quarter + pair)
                                     : a.rope_columns + 2 * (x * quarter + pair - quarter);
    return {at[0], at[1]};
}
GEOSEG_INLINE Pair turned(Pair value, Pair turn) {
    return {value.even * turn.odd - value.odd * turn.even,
            value.odd * turn.odd + value.even * turn.even};
}
GEOSEG_INLINE Pair turned_back(Pair value, Pair turn) {
    return turned(value, Pair{-turn.even, turn.odd});
}

GEOSEG_INLINE int64 dense_pixel(const Na2dArguments &a, int image, int head, int y, int x) {
    return (((static_cast<int64>(image) * a.height + y) * a.width + x) * a.heads + head) * a.dim;
}

template <int WIDTH>
struct Na2dTile {
    const Na2dArguments &a;
    int image, head, y0, x0, slices, groups, threads;

    GEOSEG_INLINE Na2dTile(const Na2dArguments &arguments, int tile, int block_head,
                           int block_image)
        : a(arguments), image(block_image), head(block_head) {
        const int across = blocks_of(a.width, TILE_COLUMNS);
        y0 = tile / across * a.tile_rows;
        x0 = tile % across * TILE_COLUMNS;
        slices = blocks_of(a.dim, WIDTH);
        groups = a.tile_rows * (TILE_COLUMNS / GROUP);
        threads = groups * slices;
    }
    GEOSEG_INLINE int group(int thread) const { return thread / slices; }
    GEOSEG_INLINE int slice(int thread) const { return thread % slices; }
    GEOSEG_INLINE int channel0(int thread) const { return slice(thread) * WIDTH; }
    // Pixels past the border repeat the last one, and are never written.
    GEOSEG_INLINE int row(int group) const {
        return smaller(y0 + group / (TILE_COLUMNS / GROUP), a.height - 1);
    }
    GEOSEG_INLINE int column(int group, int i) const {
        return smaller(x0 + group % (TILE_COLUMNS / GROUP) * GROUP + i, a.width - 1);
    }
    GEOSEG_INLINE bool exists(int group, int i) const {
        return y0 + group / (TILE_COLUMNS / GROUP) < a.height &&
               x0 + group % (TILE_COLUMNS / GROUP) * GROUP + i < a.width;
    }
    GEOSEG_INLINE int last_row() const { return smaller(y0 + a.tile_rows, a.height) - 1; }
    GEOSEG_INLINE int last_column() const { return smaller(x0 + TILE_COLUMNS, a.width) - 1; }
    // Floats from pixel to pixel of a strip: odd in fours, so that neighbours meet other banks.
    GEOSEG_INLINE int pitch() const { return slices * WIDTH + 4; }
    GEOSEG_INLINE const Io *pixel(const Io *map, const int64 *strides, int y, int x) const {
        return map + image * strides[0] + y * strides[1] + x * strides[2] + head * strides[3];
    }
    GEOSEG_INLINE const Io *dense(const Io *map, int y, int x) const {
        return map + dense_pixel(a, image, head, y, x);
    }
    GEOSEG_INLINE float *statistics(int y, int x) const {
        const int64 plane = static_cast<int64>(image) * a.heads + head;
        return a.statistics + 2 * ((plane * a.height + y) * a.width + x);
    }
    GEOSEG_INLINE bool turns() const { return a.rope_rows != nullptr; }
    GEOSEG_INLINE int bias_width() const { return 2 * a.kernel - 1; }
    // Of a key's offset from its query.
    GEOSEG_INLINE int bias_index(int rows, int columns) const {
        return (rows + a.kernel - 1) * bias_width() + columns + a.kernel - 1;
    }
};

// A thread's channels of its four pixels.
template <int WIDTH>
struct Quad {
    float at[GROUP][WIDTH];

    GEOSEG_INLINE void clear() {
#pragma unroll
        for (int i = 0; i < GROUP; ++i)
#pragma unroll
            for (int c = 0; c < WIDTH; ++c) at[i][c] = 0.0f;
    }
    GEOSEG_INLINE void set(int i, int c, Pair value) {
        at[i][c] = value.even;
        at[i][c + 1] = value.odd;
    }
    // The products of the four pixels with one of a strip.
    GEOSEG_INLINE Float4 dot(const float *other) const {
        float sum[GROUP] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int c = 0; c < WIDTH; c += 4) {
            const Float4 v = *reinterpret_cast<const Float4 *>(other + c);
#pragma unroll
            for (int i = 0; i < GROUP; ++i) {
                // One by one: a sum of products would be a product, and additions, more.
                sum[i] += at[i][c] * v.x;
                sum[i] += at[i][c + 1] * v.y;
                sum[i] += at[i][c + 2] * v.z;
                sum[i] += at[i][c + 3] * v.w;
            }
        }
        return {sum[0], sum[1], sum[2], sum[3]};
    }
    // Adds a pixel of a strip, times one weight for each of the four.
    GEOSEG_INLINE void add(Float4 weights, const float *other) {
        const float weight[GROUP] = {weights.x, weights.y, weights.z, weights.w};
#pragma unroll
        for (int c = 0; c < WIDTH; c += 4) {
            const Float4 v = *reinterpret_cast<const Float4 *>(other + c);
#pragma unroll
            for (int i = 0; i < GROUP; ++i) {
                at[i][c] += weight[i] * v.x;
                at[i][c + 1] += weight[i] * v.y;
                at[i][c + 2] += weight[i] * v.z;
                at[i][c + 3] += weight[i] * v.w;
            }
        }
    }
    GEOSEG_INLINE void scale(Float4 factors) {
        const float factor[GROUP] = {factors.x, factors.y, factors.z, factors.w};
#pragma unroll
        for (int i = 0; i < GROUP; ++i)
#pragma unroll
            for (int c = 0; c < WIDTH; ++c) at[i][c] *= factor[i];
    }
};

// Reads the thread's channels of its pixels, turned if asked for, times a factor.
template <int WIDTH>
GEOSEG_INLINE void read_quad(const Na2dTile<WIDTH> &t, const Io *map, const int64 *strides,
                             bool turn, float factor, int thread, Quad<WIDTH> &quad) {
    const int group = t.group(thread), c0 = t.channel0(thread), y = t.row(group);
#pragma unroll
    for (int i = 0; i < GROUP; ++i) {
        const int x = t.column(group, i);
        const Io *pixel = strides ? t.pixel(map, strides, y, x) : t.dense(map, y, x);
#pragma unroll
        for (int c = 0; c < WIDTH; c += 2) {
            Pair value = read_pair(pixel, c0 + c, t.a.dim);
            if (turn && c0 + c < t.a.dim) value = turned(value, turn_of(t.a, y, x, c0 + c));
            quad.set(i, c, {factor * value.even, factor * value.odd});
        }
    }
}

// Writes them to a dense map, turned back if asked for, times a factor each.
template <int WIDTH>
GEOSEG_INLINE void write_quad(const Na2dTile<WIDTH> &t, Io *map, bool turn, int thread,
                              const Quad<WIDTH> &quad) {
    const int group = t.group(thread), c0 = t.channel0(thread), y = t.row(group);
#pragma unroll
    for (int i = 0; i < GROUP; ++i) {
        if (!t.exists(group, i)) continue;
        const int x = t.column(group, i);
        Io *pixel = map + dense_pixel(t.a, t.image, t.head, y, x);
#pragma unroll
        for (int c = 0; c < WIDTH; c += 2) {
            Pair value = {quad.at[i][c], quad.at[i][c + 1]};
            if (turn && c0 + c < t.a.dim) value = turned_back(value, turn_of(t.a, y, x, c0 + c));
            if (c0 + c < t.a.dim) store_io(pixel, c0 + c, value.even);
            if (c0 + c + 1 < t.a.dim) store_io(pixel, c0 + c + 1, value.odd);
        }
    }
}

// Reads `count` pixels of a row from column x0 on into shared memory.
template <int WIDTH>
GEOSEG_INLINE void read_strip(const Na2dTile<WIDTH> &t, const Io *map, const int64 *strides,
                              bool turn, int y, int x0, int count, int thread, float *strip) {
    const int pairs = t.slices * WIDTH / 2;
    // Counted along: a division per element costs more than reading it.
    const int columns = t.threads / pairs, rest = t.threads - columns * pairs;
    int column = thread / pairs, pair = thread - column * pairs;
    while (column < count) {
        const int x = x0 + column, c = 2 * pair;
        Pair value = read_pair(strides ? t.pixel(map, strides, y, x) : t.dense(map, y, x), c,
                               t.a.dim);
        if (turn && c < t.a.dim) value = turned(value, turn_of(t.a, y, x, c));
        float *to = strip + column * t.pitch() + c;
        to[0] = value.even;
        to[1] = value.odd;
        column += columns;
        pair += rest;
        if (pair >= pairs) {
            pair -= pairs;
            ++column;
        }
    }
}

// Sums of products between a group and columns of a strip: one Float4 per slice, column and group.
struct Products {
    Float4 *values;
    int slices, columns, groups;

    GEOSEG_INLINE Float4 &at(int slice, int column, int group) const {
        return values[(slice * columns + column) * groups + group];
    }
    GEOSEG_INLINE float &of(int slice, int column, int group, int i) const {
        return reinterpret_cast<float *>(&at(slice, column, group))[i];
    }
    GEOSEG_INLINE float sum(int column, int group, int i) const {
        float sum = 0.0f;
        for (int slice = 0; slice < slices; ++slice) sum += of(slice, column, group, i);
        return sum;
    }
    GEOSEG_INLINE float *end() const {
        return reinterpret_cast<float *>(values + slices * columns * groups);
    }
};
template <int WIDTH>
GEOSEG_INLINE Products products_at(const Na2dTile<WIDTH> &t, float *shared) {
    return {reinterpret_cast<Float4 *>(shared), t.slices, t.a.columns_at_once, t.groups};
}

template <int WIDTH>
GEOSEG_INLINE void read_bias(const Na2dTile<WIDTH> &t, int thread, float *table) {
    const int size = t.bias_width() * t.bias_width();
    for (int i = thread; i < size; i += t.threads)
        table[i] = t.a.bias ? GEOSEG_LOG2E * t.a.bias[t.head * size + i] : 0.0f;
}

// Floats of the table, in whole fours.
template <int WIDTH>
GEOSEG_INLINE int bias_size(const Na2dTile<WIDTH> &t) {
    return (t.bias_width() * t.bias_width() + 3) / 4 * 4;
}

// The keys that the tile's queries see, and the group's first one.
template <int WIDTH>
struct Halo {
    int first_row, last_row, first_column, columns, span;

    GEOSEG_INLINE explicit Halo(const Na2dTile<WIDTH> &t) {
        const int kernel = t.a.kernel;
        first_row = window_start(t.y0, t.a.height, kernel);
        last_row = window_start(t.last_row(), t.a.height, kernel) + kernel - 1;
        first_column = window_start(t.x0, t.a.width, kernel);
        columns = window_start(t.last_column(), t.a.width, kernel) + kernel - first_column;
        span = kernel + GROUP - 1;  // of a group's windows together
    }
};

// The windows of a group: does it see a row of keys, where do its keys begin in the strip.
template <int WIDTH>
struct GroupWindow {
    int row, start, in_strip;
    bool active;

    GEOSEG_INLINE GroupWindow(const Na2dTile<WIDTH> &t, const Halo<WIDTH> &halo, int group,
                              int key_row) {
        row = t.row(group);
        const int above = key_row - window_start(row, t.a.height, t.a.kernel);
        active = above >= 0 && above < t.a.kernel;
        start = window_start(t.column(group, 0), t.a.width, t.a.kernel);
        in_strip = start - halo.first_column;
    }
};

}  // namespace geoseg

#endif
