// The chunks of the backward pass of the four-direction scan, and what each adds, from state 0: to
// the state and, against its order, to the gradient of the state.
#ifndef GEOSEG_CUDA_SS2D_BACKWARD_CHUNK_CUH
#define GEOSEG_CUDA_SS2D_BACKWARD_CHUNK_CUH

#include "ss2d_chunk.cuh"

namespace geoseg {

constexpr int BACKWARD_STEPS = 32;
// One per channel in the sweeps, two per step in the sums over channels.
constexpr int BACKWARD_THREADS = 2 * BACKWARD_STEPS;

struct Ss2dPlace {
    int image, chunk, first, count;  // steps [first, first + count)
};

GEOSEG_INLINE Ss2dPlace ss2d_place(const Ss2dArguments &a, int image, int chunk) {
    const int first = chunk * BACKWARD_STEPS;
    return {image, chunk, first, smaller(BACKWARD_STEPS, a.height * a.width - first)};
}

// A tile that knows the pixel of each step, and that pixel's first channel.
template <int KEPT>
struct Ss2dChunk : Ss2dTile<BACKWARD_STEPS, BACKWARD_THREADS, 2 * BACKWARD_STEPS + KEPT> {
    using Ss2dTile<BACKWARD_STEPS, BACKWARD_THREADS, 2 * BACKWARD_STEPS + KEPT>::Ss2dTile;

    GEOSEG_INLINE int &pixel(int step) const { return integers()[step]; }
    GEOSEG_INLINE int &offset(int step) const { return integers()[BACKWARD_STEPS + step]; }
    GEOSEG_INLINE float *own() const { return this->kept() + 2 * BACKWARD_STEPS; }

  private:
    GEOSEG_INLINE int *integers() const { return reinterpret_cast<int *>(this->kept()); }
};

// Finds the pixels of a chunk; those of absent steps are the last one.
template <class Chunk>
GEOSEG_INLINE void find_pixels(const Chunk &tile, const Ss2dArguments &a, const Ss2dPlace &place,
                               bool columns, int thread) {
    for (int step = thread; step < BACKWARD_STEPS; step += BACKWARD_THREADS) {
        const int inside = place.first + smaller(step, place.count - 1);
        tile.pixel(step) = pixel_of(inside, columns, a.height, a.width);
        tile.offset(step) = tile.pixel(step) * a.channels;
    }
}

template <class Chunk>
GEOSEG_INLINE void load_chunk(const Chunk &tile, const Ss2dArguments &a, const Ss2dPlace &place,
                              int direction, int thread) {
    load_steps<BACKWARD_THREADS>(tile, a, place.image, direction, thread, [&](int step) {
        return step < place.count ? tile.pixel(step) : -1;
    });
}

// A channel of an image, indexed with the offsets of a tile.
template <class T>
GEOSEG_INLINE T *ss2d_image(T *map, const Ss2dArguments &a, const Ss2dPlace &place, int channel) {
    return map + (ss2d_first_pixel(a, place.image) * a.channels + channel);
}

// The same channel of SCAN_GROUP steps.
template <class Chunk, class Walk>
GEOSEG_INLINE void read_steps(const Chunk &tile, const Io *image, Walk walk, int i0,
                              float *values) {
#pragma unroll
    for (int i = 0; i < SCAN_GROUP; ++i)
        values[i] = load_io(image, tile.offset(walk.at(i0 + i)));
}

// In the order of the walk, decay so far times dy C is what a chunk hands to the one before.
template <bool BACKWARDS>
GEOSEG_INLINE void sum_chunk(const Ss2dChunk<0> &tile, const Ss2dArguments &a,
                             const Ss2dPlace &place, int direction, int channel0, int thread) {
    const Ss2dChannel channel = ss2d_channel(a, direction, channel0 + thread);
    const Walk<BACKWARD_STEPS, BACKWARDS> walk;
    const Io *inputs = ss2d_image(a.x, a, place, channel.index);
    const Io *gradients = ss2d_image(a.dy, a, place, channel.index);
    float sum = 0.0f, h = 0.0f, decay = 1.0f, adjoint = 0.0f;
#pragma unroll 1
    for (int i0 = 0; i0 < BACKWARD_STEPS; i0 += SCAN_GROUP) {
        float z[SCAN_GROUP], dt[SCAN_GROUP], x[SCAN_GROUP], dy[SCAN_GROUP];
        project_steps(tile, walk, i0, thread, channel.bias, z);
        step_sizes(walk, i0, place.count, z, dt);
        read_steps(tile, inputs, walk, i0, x);
        read_steps(tile, gradients, walk, i0, dy);
#pragma unroll
        for (int i = 0; i < SCAN_GROUP; ++i) {
            const int step = walk.at(i0 + i);
            const float factor = exp2_of(dt[i] * channel.rate);
            h = factor * h + dt[i] * tile.b(step) * x[i];
            sum += dt[i];
            decay *= factor;
            adjoint += decay * tile.c(step) * dy[i];
        }
    }
    if (!channel.exists) return;
    const int64 state = ss2d_state(a, place.image, direction, place.chunk, channel.index);
    a.sums[state] = sum;
    a.ends[state] = h;
    a.adjoints[state] = adjoint;
}

// Grid: (images x chunks, channel blocks, 2: rows, columns).
template <class Block>
GEOSEG_INLINE void ss2d_sum_chunks_backward(Block &block, const Ss2dArguments &a, float *shared) {
    const Ss2dChunk<0> tile(a, shared);
    const int image = block.x() / a.chunks;
    const Ss2dPlace place = ss2d_place(a, image, block.x() - image * a.chunks);
    const int channel0 = block.y() * BACKWARD_THREADS;
    block.stage([&](int thread, Nothing &) {
        find_pixels(tile, a, place, block.z() == 1, thread);
    });
    for (int direction = block.z(); direction < 4; direction += 2) {
        block.stage([&](int thread, Nothing &) {
            load_chunk(tile, a, place, direction, thread);
            load_weights<BACKWARD_THREADS>(tile, a, direction, channel0, thread);
        });
        block.stage([&](int thread, Nothing &) {
            if (direction < 2) sum_chunk<false>(tile, a, place, direction, channel0, thread);
            else sum_chunk<true>(tile, a, place, direction, channel0, thread);
        });
    }
}

}  // namespace geoseg

#endif
