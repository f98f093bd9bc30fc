// Gradients of the four-direction scan. Per direction, in the order of its walk:
//   lam_t = dy_t C_t + a_(t+1) lam_(t+1)
//   dx_t = lam_t dt_t B_t, dB_t = sum_c lam_t dt_t x_t, dC_t = sum_c dy_t h_t
//   dz_t = lam_t (B_t x_t + A a_t h_(t-1)) logistic(z_t), dA = sum_t lam_t dt_t a_t h_(t-1)
// and from dz the gradients of the projection. Sums over channels and over steps are made in a
// fixed order; what several blocks add up is written as parts.
#ifndef GEOSEG_CUDA_SS2D_BACKWARD_CUH
#define GEOSEG_CUDA_SS2D_BACKWARD_CUH

#include "ss2d_backward_chunk.cuh"

namespace geoseg {

constexpr int COLUMN_ROWS = BACKWARD_STEPS * (BACKWARD_THREADS + 1);

// Values per step and channel (z, then dz; h, then dy h; lam dt x over ln 2) and the block's dq,
// [steps][rank4 + 2]: the rows of q, then B and C.
struct Ss2dGradients {
    Ss2dChunk<3 * COLUMN_ROWS> tile;
    float *dq;

    GEOSEG_INLINE Ss2dGradients(const Ss2dArguments &a, float *shared)
        : tile(a, shared), dq(tile.rest()) {}
    GEOSEG_INLINE float &z(int step, int channel) const { return tile.own()[at(step, channel)]; }
    GEOSEG_INLINE float &h(int step, int channel) const {
        return tile.own()[COLUMN_ROWS + at(step, channel)];
    }
    GEOSEG_INLINE float &g(int step, int channel) const {
        return tile.own()[2 * COLUMN_ROWS + at(step, channel)];
    }
    GEOSEG_INLINE int width() const { return tile.rank4 + 2; }

  private:
    GEOSEG_INLINE static int at(int step, int channel) {
        return step * (BACKWARD_THREADS + 1) + channel;
    }
};

struct Ss2dSums {
    float bias, rate, skip;  // of dz, lam dt a h, dy x
};

// States and projections of the chunk, from the state that it starts from.
template <bool BACKWARDS>
GEOSEG_INLINE void recompute_chunk(const Ss2dGradients &s, const Ss2dArguments &a,
                                   const Ss2dPlace &place,
                                   const Ss2dChannel &channel, float h, int thread) {
    const Walk<BACKWARD_STEPS, BACKWARDS> walk;
    const Io *inputs = ss2d_image(a.x, a, place, channel.index);
#pragma unroll 1
    for (int i0 = 0; i0 < BACKWARD_STEPS; i0 += SCAN_GROUP) {
        float z[SCAN_GROUP], dt[SCAN_GROUP], x[SCAN_GROUP];
        project_steps(s.tile, walk, i0, thread, channel.bias, z);
        step_sizes(walk, i0, place.count, z, dt);
        read_steps(s.tile, inputs, walk, i0, x);
#pragma unroll
        for (int i = 0; i < SCAN_GROUP; ++i) {
            const int step = walk.at(i0 + i);
            h = exp2_of(dt[i] * channel.rate) * h + dt[i] * s.tile.b(step) * x[i];
            s.z(step, thread) = z[i];
            s.h(step, thread) = h;
        }
    }
}

// Where dx of a channel goes: each direction adds to the partial sum, the last one writes the
// result.
struct Ss2dInputGradient {
    float *partial;
    Io *dx;
    float skip;
    int direction;

    GEOSEG_INLINE void write(int at, float value, float dy) const {
        const float sum = direction > 0 ? value + partial[at] : value;
        if (direction == 3) store_io(dx, at, sum + skip * dy);
        else partial[at] = sum;
    }
};

// Walks the chunk against its order. Each thread reads and writes its own column only.
template <bool BACKWARDS>
GEOSEG_INLINE Ss2dSums return_through_chunk(const Ss2dGradients &s, const Ss2dArguments &a,
                                            const Ss2dPlace &place,
                                            const Ss2dChannel &channel, int direction,
                                            int thread) {
    const int64 state = ss2d_state(a, place.image, direction, place.chunk, channel.index);
    const Walk<BACKWARD_STEPS, BACKWARDS> walk;
    const Io *inputs = ss2d_image(a.x, a, place, channel.index);
    const Io *gradients = ss2d_image(a.dy, a, place, channel.index);
    const Ss2dInputGradient result = {ss2d_image(a.partial, a, place, channel.index),
                                      ss2d_image(a.dx, a, place, channel.index),
                                      ss2d_skip(a, channel.index), direction};
    const float start = a.ends[state];
    float adjoint = a.adjoints[state];
    Ss2dSums sums = {0.0f, 0.0f, 0.0f};
#pragma unroll 1
    for (int i0 = BACKWARD_STEPS - SCAN_GROUP; i0 >= 0; i0 -= SCAN_GROUP) {
        float x[SCAN_GROUP], dy[SCAN_GROUP];
        read_steps(s.tile, inputs, walk, i0, x);
        read_steps(s.tile, gradients, walk, i0, dy);
#pragma unroll
        for (int i = SCAN_GROUP - 1; i >= 0; --i) {
            const int step = walk.at(i0 + i);
            const bool inside = step < place.count;
            float slope, dt = softplus2(s.z(step, thread), slope);
            dt = inside ? dt : 0.0f;
            const float out = inside ? dy[i] : 0.0f, b = s.tile.b(step);
            const float factor = exp2_of(dt * channel.rate);
            const float previous = i0 + i ? s.h(walk.at(i0 + i - 1), thread) : start;
            const float decayed = factor * previous, lam = out * s.tile.c(step) + adjoint;
            const float steep = lam * dt;
            const float dz =
                inside ? lam * slope * (GEOSEG_LOG2E * b * x[i] + channel.rate * decayed) : 0.0f;
            adjoint = factor * lam;
            if (inside && channel.exists)
                result.write(s.tile.offset(step), steep * b, dy[i]);
            sums.bias += dz;
            sums.rate += steep * decayed;
            sums.skip += out * x[i];
            s.z(step, thread) = dz;
            s.g(step, thread) = inside ? steep * x[i] : 0.0f;
            s.h(step, thread) = inside ? out * s.h(step, thread) : 0.0f;
        }
    }
    return sums;
}

template <bool BACKWARDS>
GEOSEG_INLINE Ss2dSums sweep_chunk(const Ss2dGradients &s, const Ss2dArguments &a,
                                   const Ss2dPlace &place, const Ss2dChannel &channel,
                                   int direction, int thread) {
    const int64 state = ss2d_state(a, place.image, direction, place.chunk, channel.index);
    recompute_chunk<BACKWARDS>(s, a, place, channel, a.ends[state], thread);
    return return_through_chunk<BACKWARDS>(s, a, place, channel, direction, thread);
}

// Adds a chunk's share of the parameter gradients to the block's part.
GEOSEG_INLINE void add_parameters(const Ss2dGradients &s, const Ss2dArguments &a,
                                  const Ss2dChannel &channel, int direction, int part, bool add,
                                  const Ss2dSums &sums, int thread) {
    if (!channel.exists) return;
    const int64 base = (static_cast<int64>(part) * 4 + direction) * (a.rank + 3);
    float *rows = a.parameters + base * a.channels + channel.index;
    const float others[3] = {sums.bias, GEOSEG_LN2 * channel.rate * sums.rate, sums.skip};
#pragma unroll 1
    for (int r = 0; r < s.tile.rank4; r += 4) {
        float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 4
        for (int step = 0; step < BACKWARD_STEPS; ++step) {
            const float dz = s.z(step, thread);
            const Float4 v = s.tile.projections(r, step);
            sum[0] += dz * v.x;
            sum[1] += dz * v.y;
            sum[2] += dz * v.z;
            sum[3] += dz * v.w;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float *place = rows + static_cast<int64>(r + i) * a.channels;
            if (r + i < a.rank) *place = add ? *place + sum[i] : sum[i];
        }
    }
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        float *place = rows + static_cast<int64>(a.rank + i) * a.channels;
        *place = add ? *place + others[i] : others[i];
    }
}

// Sums over the block's channels: a thread takes one step, and every second job of
// (B and C; four rows of q; four more; ...).
GEOSEG_INLINE void sum_channels(const Ss2dGradients &s, int thread) {
    const int step = thread % BACKWARD_STEPS;
    float *row = s.dq + step * s.width();
    for (int job = thread / BACKWARD_STEPS; job <= s.tile.rank4 / 4; job += 2) {
        float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        const int r = 4 * (job - 1);
        if (job == 0) {
#pragma unroll 4
            for (int channel = 0; channel < BACKWARD_THREADS; ++channel) {
                sum[0] += s.g(step, channel);
                sum[1] += s.h(step, channel);
            }
            row[s.tile.rank4] += GEOSEG_LN2 * sum[0];
            row[s.tile.rank4 + 1] += sum[1];
            continue;
        }
#pragma unroll 4
        for (int channel = 0; channel < BACKWARD_THREADS; ++channel) {
            const float dz = s.z(step, channel);
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[i] += dz * s.tile.weight(r + i, channel);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) row[r + i] += GEOSEG_LN2 * sum[i];
    }
}

GEOSEG_INLINE void write_dq(const Ss2dGradients &s, const Ss2dArguments &a, const Ss2dPlace &place,
                            int direction, int slice, int thread) {
    const int row = a.rank + 2;
    const int64 slice_pixels = static_cast<int64>(a.batch) * a.height * a.width;
    const int64 first = slice * slice_pixels + ss2d_first_pixel(a, place.image);
    for (int i = thread; i < place.count * row; i += BACKWARD_THREADS) {
        const int step = i / row, r = i - step * row;
        const int from = r < a.rank ? r : s.tile.rank4 + r - a.rank;
        const int64 pixel = first + s.tile.pixel(step);
        a.dq[(pixel * 4 + direction) * row + r] = s.dq[step * s.width() + from];
    }
}

// All channel blocks of a slice, for one chunk and direction.
template <class Block>
GEOSEG_INLINE void ss2d_backward_chunk(Block &block, const Ss2dGradients &s,
                                       const Ss2dArguments &a, const Ss2dPlace &place,
                                       int direction, bool add_part) {
    const int slice = block.y(), blocks = blocks_of(a.channels, BACKWARD_THREADS);
    const int share = blocks_of(blocks, a.slices);
    const int last = smaller(blocks, (slice + 1) * share);
    block.stage([&](int thread, Nothing &) {
        load_chunk(s.tile, a, place, direction, thread);
        for (int i = thread; i < BACKWARD_STEPS * s.width(); i += BACKWARD_THREADS) s.dq[i] = 0.0f;
    });
    for (int b = slice * share; b < last; ++b) {
        const int channel0 = b * BACKWARD_THREADS;
        block.stage([&](int thread, Nothing &) {
            load_weights<BACKWARD_THREADS>(s.tile, a, direction, channel0, thread);
        });
        block.stage([&](int thread, Nothing &) {
            const Ss2dChannel channel = ss2d_channel(a, direction, channel0 + thread);
            const Ss2dSums sums =
                direction < 2 ? sweep_chunk<false>(s, a, place, channel, direction, thread)
                              : sweep_chunk<true>(s, a, place, channel, direction, thread);
            add_parameters(s, a, channel, direction, block.x(), add_part, sums, thread);
            // Repeated channels must not count in the sums over channels.
            for (int step = 0; !channel.exists && step < BACKWARD_STEPS; ++step)
                s.z(step, thread) = s.h(step, thread) = s.g(step, thread) = 0.0f;
        });
        block.stage([&](int thread, Nothing &) { sum_channels(s, thread); });
    }
    block.stage([&](int thread, Nothing &) {
        write_dq(s, a, place, direction, slice, thread);
    });
}

// Grid: (images x parts, slices of the channel blocks); a launch for the rows, one for the columns.
template <class Block>
GEOSEG_INLINE void ss2d_backward(Block &block, const Ss2dArguments &a, float *shared) {
    const Ss2dGradients s(a, shared);
    const int parts = blocks_of(a.chunks, a.part_chunks), image = block.x() / parts;
    const int first = (block.x() - image * parts) * a.part_chunks;
    const int last = smaller(a.chunks, first + a.part_chunks);
    for (int chunk = first; chunk < last; ++chunk) {
        const Ss2dPlace place = ss2d_place(a, image, chunk);
        block.stage([&](int thread, Nothing &) {
            find_pixels(s.tile, a, place, a.columns == 1, thread);
        });
        for (int direction = a.columns; direction < 4; direction += 2)
            ss2d_backward_chunk(block, s, a, place, direction, chunk > first);
    }
}

}  // namespace geoseg

#endif
