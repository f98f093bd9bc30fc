// The four-direction scan in three steps: what each chunk adds, from state 0; chunks joined in
// place into the states that they start from; output. A chunk decays by 2^(rate * summed steps), so
// one number per chunk stands for the product of its decays. Columns are read where they lie: a
// pixel is a dense row of channels in either order.
#ifndef GEOSEG_CUDA_SS2D_FORWARD_CUH
#define GEOSEG_CUDA_SS2D_FORWARD_CUH

#include "carry.cuh"
#include "ss2d_chunk.cuh"

namespace geoseg {

constexpr int FORWARD_STEPS = 64;
constexpr int FORWARD_THREADS = 32;
constexpr int BACKWARD_STEPS = 32;
// One per channel in the sweeps, two per step in the sums over channels.
constexpr int BACKWARD_THREADS = 2 * BACKWARD_STEPS;

// One sweep over a chunk from state 0. With dy it also sums what the reverse recurrence hands to
// the chunk before: in the order of the walk, decay so far times dy C.
template <int STEPS, bool ADJOINT, bool BACKWARDS, class Tile>
GEOSEG_INLINE void sum_chunk(const Tile &tile, const Ss2dArguments &a,
                             const Ss2dPlace &place, int direction, int channel0, int thread) {
    const Ss2dChannel channel = ss2d_channel(a, direction, channel0 + thread);
    const Walk<STEPS, BACKWARDS> walk;
    const Io *inputs = ss2d_image(a.x, a, place, channel.index);
    const Io *gradients = ADJOINT ? ss2d_image(a.dy, a, place, channel.index) : nullptr;
    float sum = 0.0f, h = 0.0f, decay = 1.0f, adjoint = 0.0f;
#pragma unroll 1
    for (int i0 = 0; i0 < STEPS; i0 += SCAN_GROUP) {
        float z[SCAN_GROUP], x[SCAN_GROUP], dy[SCAN_GROUP];
        project_steps(tile, walk, i0, thread, channel.bias, z);
        read_steps(tile, inputs, walk, i0, x);
        if (ADJOINT) read_steps(tile, gradients, walk, i0, dy);
#pragma unroll
        for (int i = 0; i < SCAN_GROUP; ++i) {
            const int step = walk.at(i0 + i);
            // A step of 0 changes nothing: what the steps past the end of the map must do.
            const float dt = step < place.count ? softplus2(z[i]) : 0.0f;
            const float factor = exp2_of(dt * channel.rate);
            h = factor * h + dt * tile.b(step) * x[i];
            sum += dt;
            if (ADJOINT) {
                decay *= factor;
                adjoint += decay * tile.c(step) * dy[i];
            }
        }
    }
    if (!channel.exists) return;
    const int64 state = ss2d_state(a, place.image, direction, place.chunk, channel.index);
    a.sums[state] = sum;
    a.ends[state] = h;
    if (ADJOINT) a.adjoints[state] = adjoint;
}

// Grid: (images x chunks, channel blocks, 2: rows, columns).
template <int STEPS, int THREADS, bool ADJOINT, class Block>
GEOSEG_INLINE void sum_chunks(Block &block, const Ss2dArguments &a, float *shared) {
    const Ss2dTile<STEPS, THREADS, 0> tile(a, shared);
    const int image = block.x() / a.chunks;
    const Ss2dPlace place = ss2d_place<STEPS>(a, image, block.x() - image * a.chunks);
    const int channel0 = block.y() * THREADS;
    block.stage([&](int thread, Nothing &) {
        find_pixels(tile, a, place, block.z() == 1, thread);
    });
    for (int direction = block.z(); direction < 4; direction += 2) {
        block.stage([&](int thread, Nothing &) {
            load_steps(tile, a, place, direction, thread);
            load_weights(tile, a, direction, channel0, thread);
        });
        block.stage([&](int thread, Nothing &) {
            if (direction < 2)
                sum_chunk<STEPS, ADJOINT, false>(tile, a, place, direction, channel0, thread);
            else
                sum_chunk<STEPS, ADJOINT, true>(tile, a, place, direction, channel0, thread);
        });
    }
}

template <class Block>
GEOSEG_INLINE void ss2d_sum_chunks(Block &block, const Ss2dArguments &a, float *shared) {
    sum_chunks<FORWARD_STEPS, FORWARD_THREADS, false>(block, a, shared);
}

template <class Block>
GEOSEG_INLINE void ss2d_sum_chunks_backward(Block &block, const Ss2dArguments &a, float *shared) {
    sum_chunks<BACKWARD_STEPS, BACKWARD_THREADS, true>(block, a, shared);
}

GEOSEG_INLINE Run ss2d_run(const Ss2dArguments &a, float *ends, int image, int direction,
                           int channel, bool backwards, int thread) {
    Run run = run_of(thread, a.chunks, backwards);
    const int64 state = ss2d_state(a, image, direction, 0, channel);
    run.sums = a.sums + state;
    run.ends = ends + state;
    run.sum_stride = run.end_stride = a.channels;
    run.rate = -exp2_of(GEOSEG_LOG2E * a.a_logs[direction * a.channels + channel]);
    return run;
}

// Grid: (channel blocks of CARRY_CHANNELS, 4 directions, images); shared: two per thread.
template <class Block>
GEOSEG_INLINE void ss2d_join_chunks(Block &block, const Ss2dArguments &a, float *shared) {
    const int direction = block.y(), image = block.z();
    const int passes = a.adjoints ? 2 : 1;
    for (int pass = 0; pass < passes; ++pass) {
        // The reverse recurrence runs against the order of its direction.
        const bool backwards = (direction >= 2) != (pass == 1);
        float *ends = pass ? a.adjoints : a.ends;
        block.stage([&](int thread, Nothing &) {
            const int channel = block.x() * CARRY_CHANNELS + thread % CARRY_CHANNELS;
            if (channel < a.channels)
                join_run(ss2d_run(a, ends, image, direction, channel, backwards, thread),
                         shared[2 * thread], shared[2 * thread + 1]);
        });
        block.stage([&](int thread, Nothing &) {
            const int channel = block.x() * CARRY_CHANNELS + thread % CARRY_CHANNELS;
            if (channel < a.channels)
                start_run(ss2d_run(a, ends, image, direction, channel, backwards, thread), shared,
                          thread);
        });
    }
}

// Where the outputs of a channel go: the rows write a partial sum, the columns add to it, and the
// skip term.
struct Ss2dOutput {
    float *partial;
    Io *y;
    float skip;
    bool columns;

    GEOSEG_INLINE void write(int at, float value, float x) const {
        if (columns) store_io(y, at, value + partial[at] + skip * x);
        else partial[at] = value;
    }
};

// The forward sweep keeps C h in shared memory, [FORWARD_STEPS][FORWARD_THREADS]; the backward one
// adds its own and writes.
template <bool BACKWARDS, class Tile>
GEOSEG_INLINE void output_chunk(const Tile &tile, const Ss2dArguments &a,
                                const Ss2dPlace &place, int direction, int channel0, int thread) {
    const Ss2dChannel channel = ss2d_channel(a, direction, channel0 + thread);
    const Walk<FORWARD_STEPS, BACKWARDS> walk;
    const Io *inputs = ss2d_image(a.x, a, place, channel.index);
    const Ss2dOutput output = {ss2d_image(a.partial, a, place, channel.index),
                               ss2d_image(a.y, a, place, channel.index),
                               a.columns ? ss2d_skip(a, channel.index) : 0.0f, a.columns != 0};
    float *kept = tile.kept() + thread;
    float h = a.ends[ss2d_state(a, place.image, direction, place.chunk, channel.index)];
#pragma unroll 1
    for (int i0 = 0; i0 < FORWARD_STEPS; i0 += SCAN_GROUP) {
        float z[SCAN_GROUP], x[SCAN_GROUP];
        project_steps(tile, walk, i0, thread, channel.bias, z);
        read_steps(tile, inputs, walk, i0, x);
#pragma unroll
        for (int i = 0; i < SCAN_GROUP; ++i) {
            const int step = walk.at(i0 + i);
            const float dt = step < place.count ? softplus2(z[i]) : 0.0f;
            h = exp2_of(dt * channel.rate) * h + dt * tile.b(step) * x[i];
            const float value = tile.c(step) * h;
            if (!BACKWARDS) kept[step * FORWARD_THREADS] = value;
            else if (channel.exists && step < place.count)
                output.write(tile.offset(step), value + kept[step * FORWARD_THREADS], x[i]);
        }
    }
}

// Grid: (images x chunks, channel blocks); one launch for the rows, then one for the columns.
template <class Block>
GEOSEG_INLINE void ss2d_output(Block &block, const Ss2dArguments &a, float *shared) {
    const Ss2dTile<FORWARD_STEPS, FORWARD_THREADS, FORWARD_STEPS * FORWARD_THREADS> tile(a, shared);
    const int image = block.x() / a.chunks;
    const Ss2dPlace place = ss2d_place<FORWARD_STEPS>(a, image, block.x() - image * a.chunks);
    const int channel0 = block.y() * FORWARD_THREADS;
    block.stage([&](int thread, Nothing &) {
        find_pixels(tile, a, place, a.columns == 1, thread);
    });
    for (int direction = a.columns; direction < 4; direction += 2) {
        block.stage([&](int thread, Nothing &) {
            load_steps(tile, a, place, direction, thread);
            load_weights(tile, a, direction, channel0, thread);
        });
        block.stage([&](int thread, Nothing &) {
            if (direction < 2) output_chunk<false>(tile, a, place, direction, channel0, thread);
            else output_chunk<true>(tile, a, place, direction, channel0, thread);
        });
    }
}

}  // namespace geoseg

#endif
