// What the kernels of the four-direction scan share: arguments, one chunk's small projections and
// weights in shared memory, and the step sizes of several steps at once.
//
// A thread is a channel, a block a chunk of consecutive steps of the rows or of the columns.
#ifndef GEOSEG_CUDA_SS2D_CHUNK_CUH
#define GEOSEG_CUDA_SS2D_CHUNK_CUH

#include "cuda_maps.h"
#include "cuda_numbers.h"

namespace geoseg {

constexpr int SCAN_GROUP = 4;  // steps whose projections are computed together

struct Ss2dArguments {
    const Io *x;              // (N, L, C)
    const float *q;           // (N, L, 4, R + 2)
    const float *dt_weight;   // (4, C, R)
    const float *dt_bias;     // (4, C)
    const float *a_logs;      // (4, C)
    const float *ds;          // (4, C)
    float *sums;              // (N, 4, chunks, C): step sizes over ln 2, summed
    float *ends;              // the same shape: states at the end, then at the start of a chunk
    float *partial;           // (N, L, C): y, or dx, of the directions so far
    Io *y;                    // (N, L, C)
    const Io *dy;             // (N, L, C); null in the forward pass
    float *adjoints;          // as ends, of the reverse recurrence
    Io *dx;                   // (N, L, C)
    float *dq;                // (slices, N, L, 4, R + 2)
    float *parameters;        // (parts, 4, R + 3, C): of dt_weight, dt_bias, a_logs, ds
    int batch, height, width, channels, rank, chunks;
    int columns;              // 0: directions 0 and 2, 1: directions 1 and 3
    int part_chunks, slices;  // chunks that a block of the backward pass takes one after the other
};

struct Ss2dPlace {
    int image, chunk, first, count;  // steps [first, first + count)
};

template <int STEPS>
GEOSEG_INLINE Ss2dPlace ss2d_place(const Ss2dArguments &a, int image, int chunk) {
    const int first = chunk * STEPS;
    return {image, chunk, first, smaller(STEPS, a.height * a.width - first)};
}

GEOSEG_INLINE int64 ss2d_first_pixel(const Ss2dArguments &a, const Ss2dPlace &place) {
    return static_cast<int64>(place.image) * a.height * a.width;
}

// Shared memory of a chunk. What has a fixed size comes first, so that its addresses are constants;
// q lies in fours of rows, so that its steps are at fixed distances; rows of w are padded so that
// both the transposing writes and the reads meet every bank.
template <int STEPS, int THREADS, int KEPT>
struct Ss2dTile {
    float *shared;
    int rank4;

    GEOSEG_INLINE Ss2dTile(const Ss2dArguments &a, float *block_shared)
        : shared(block_shared), rank4((a.rank + 3) / 4 * 4) {}

    // B times ln 2, and C, of a step; its pixel in the image, and that pixel's first channel.
    GEOSEG_INLINE float &b(int step) const { return shared[step]; }
    GEOSEG_INLINE float &c(int step) const { return shared[STEPS + step]; }
    GEOSEG_INLINE int &pixel(int step) const { return integers()[2 * STEPS + step]; }
    GEOSEG_INLINE int &offset(int step) const { return integers()[3 * STEPS + step]; }
    // Floats for the kernel's own use.
    GEOSEG_INLINE float *kept() const { return shared + 4 * STEPS; }
    GEOSEG_INLINE Float4 &projections(int r, int step) const {
        return reinterpret_cast<Float4 *>(kept() + KEPT)[r / 4 * STEPS + step];
    }
    GEOSEG_INLINE float &projection(int r, int step) const {
        return reinterpret_cast<float *>(&projections(r, step))[r % 4];
    }
    // Times log2(e).
    GEOSEG_INLINE float &weight(int r, int channel) const {
        return kept()[KEPT + STEPS * rank4 + r * (THREADS + 1) + channel];
    }
    GEOSEG_INLINE float *rest() const { return &weight(rank4, 0); }

  private:
    GEOSEG_INLINE int *integers() const { return reinterpret_cast<int *>(shared); }
};

// Finds the pixels of a chunk; those of absent steps are the last one.
template <int STEPS, int THREADS, int KEPT>
GEOSEG_INLINE void find_pixels(const Ss2dTile<STEPS, THREADS, KEPT> &tile, const Ss2dArguments &a,
                               const Ss2dPlace &place, bool columns, int thread) {
    for (int step = thread; step < STEPS; step += THREADS) {
        const int inside = place.first + smaller(step, place.count - 1);
        tile.pixel(step) = pixel_of(inside, columns, a.height, a.width);
        tile.offset(step) = tile.pixel(step) * a.channels;
    }
}

// Reads q, B and C of a direction; absent steps get zeros.
template <int STEPS, int THREADS, int KEPT>
GEOSEG_INLINE void load_steps(const Ss2dTile<STEPS, THREADS, KEPT> &tile, const Ss2dArguments &a,
                              const Ss2dPlace &place, int direction, int thread) {
    const int row = a.rank + 2;
    const float *image = a.q + ss2d_first_pixel(a, place) * 4 * row + direction * row;
    // Counted along, because a division per element costs more than all the rest.
    int step = thread / row, r = thread - step * row;
    const int steps = THREADS / row, rows = THREADS - steps * row;
    while (step < STEPS) {
        const float value =
            step < place.count ? image[static_cast<int64>(tile.pixel(step)) * 4 * row + r] : 0.0f;
        if (r < a.rank) tile.projection(r, step) = value;
        else if (r == a.rank) tile.b(step) = GEOSEG_LN2 * value;
        else tile.c(step) = value;
        step += steps;
        r += rows;
        if (r >= row) {
            r -= row;
            ++step;
        }
    }
    for (int absent = a.rank; absent < tile.rank4; ++absent)
        for (int i = thread; i < STEPS; i += THREADS) tile.projection(absent, i) = 0.0f;
}

template <int STEPS, int THREADS, int KEPT>
GEOSEG_INLINE void load_weights(const Ss2dTile<STEPS, THREADS, KEPT> &tile, const Ss2dArguments &a,
                                int direction, int channel0, int thread) {
    const int64 base = (static_cast<int64>(direction) * a.channels + channel0) * a.rank;
    const int wanted = smaller(THREADS, a.channels - channel0) * a.rank;
    int channel = thread / a.rank, r = thread - channel * a.rank;
    const int channels = THREADS / a.rank, rows = THREADS - channels * a.rank;
    for (int i = thread; i < THREADS * a.rank; i += THREADS) {
        tile.weight(r, channel) = i < wanted ? GEOSEG_LOG2E * a.dt_weight[base + i] : 0.0f;
        channel += channels;
        r += rows;
        if (r >= a.rank) {
            r -= a.rank;
            ++channel;
        }
    }
    for (int absent = a.rank; absent < tile.rank4; ++absent) tile.weight(absent, thread) = 0.0f;
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
GEOSEG_INLINE void project_steps(const Tile &tile, Walk walk, int i0, int thread,
                                 float bias, float *z) {
#pragma unroll
    for (int i = 0; i < SCAN_GROUP; ++i) z[i] = bias;
#pragma unroll 1
    for (int r = 0; r < tile.rank4; r += 4) {
        const float w0 = tile.weight(r, thread), w1 = tile.weight(r + 1, thread);
        const float w2 = tile.weight(r + 2, thread), w3 = tile.weight(r + 3, thread);
#pragma unroll
        for (int i = 0; i < SCAN_GROUP; ++i) {
            const Float4 v = tile.projections(r, walk.at(i0 + i));
            z[i] += w0 * v.x + w1 * v.y + w2 * v.z + w3 * v.w;
        }
    }
}

// A channel of an image, indexed with the offsets of a tile.
template <class T>
GEOSEG_INLINE T *ss2d_image(T *map, const Ss2dArguments &a, const Ss2dPlace &place, int channel) {
    return map + (ss2d_first_pixel(a, place) * a.channels + channel);
}

// The same channel of SCAN_GROUP steps.
template <class Tile, class Walk>
GEOSEG_INLINE void read_steps(const Tile &tile, const Io *image, Walk walk, int i0,
                              float *values) {
#pragma unroll
    for (int i = 0; i < SCAN_GROUP; ++i)
        values[i] = load_io(image, tile.offset(walk.at(i0 + i)));
}

}  // namespace geoseg

#endif
