// The general selective scan: what each chunk adds, chunks joined, output.
#ifndef GEOSEG_CUDA_SELECTIVE_SCAN_FORWARD_CUH
#define GEOSEG_CUDA_SELECTIVE_SCAN_FORWARD_CUH

#include "carry.cuh"
#include "selective_scan_chunk.cuh"

namespace geoseg {

// Grid: (images x chunks, groups x channel blocks); with dy also for the reverse recurrence.
template <class Block>
GEOSEG_INLINE void selective_scan_sum_chunks(Block &block, const SelectiveScanArguments &a,
                                             float *shared) {
    const SequencePlace place(a, block.x(), block.y());
    const SequenceTile dt = tile_at(shared, 0), u = tile_at(shared, 1), dy = tile_at(shared, 2);
    block.stage([&](int thread, Nothing &) {
        read_tile(a, place, a.delta, thread, dt);
        read_tile(a, place, a.u, thread, u);
        if (a.dy) read_tile(a, place, a.dy, thread, dy);
        find_steps(a, place, thread, dt, nullptr);
    });
    block.stage([&](int thread, Nothing &) {
        if (thread >= place.channels) return;
        float sum = 0.0f;
#pragma unroll 4
        for (int step = 0; step < SEQUENCE_STEPS; ++step) sum += dt.at(step, thread);
        a.sums[place.sum(a, thread)] = sum;
#pragma unroll 1
        for (int state = 0; state < a.states; ++state) {
            const float rate = a.A[(place.channel0 + thread) * a.states + state];
            float h = 0.0f, decay = 1.0f, adjoint = 0.0f;
#pragma unroll 2
            for (int step = 0; step < SEQUENCE_STEPS; ++step) {
                const float size = dt.at(step, thread), factor = exp2_of(size * rate);
                const float b = GEOSEG_LN2 * shared_value(a, place, a.B, state, step);
                h = factor * h + size * b * u.at(step, thread);
                if (!a.dy) continue;
                decay *= factor;
                adjoint += decay * shared_value(a, place, a.C, state, step) * dy.at(step, thread);
            }
            a.ends[place.end(a, state, thread)] = h;
            if (a.dy) a.adjoints[place.end(a, state, thread)] = adjoint;
        }
    });
}

GEOSEG_INLINE Run sequence_run(const SelectiveScanArguments &a, float *ends, int image, int state,
                               int channel, bool backwards, int thread) {
    Run run = run_of(thread, a.chunks, backwards);
    run.sums = a.sums + static_cast<int64>(image) * a.chunks * a.channels + channel;
    run.ends = ends + (static_cast<int64>(image) * a.states + state) * a.chunks * a.channels +
               channel;
    run.stride = a.channels;
    run.rate = a.A[channel * a.states + state];
    return run;
}

// Grid: (images x channel blocks of CARRY_CHANNELS, states); shared: two per thread.
template <class Block>
GEOSEG_INLINE void selective_scan_join_chunks(Block &block, const SelectiveScanArguments &a,
                                              float *shared) {
    const int blocks = blocks_of(a.channels, CARRY_CHANNELS);
    const int image = block.x() / blocks, state = block.y();
    const int channel0 = (block.x() - image * blocks) * CARRY_CHANNELS;
    for (int pass = 0; pass < (a.adjoints ? 2 : 1); ++pass) {
        float *ends = pass ? a.adjoints : a.ends;
        block.stage([&](int thread, Nothing &) {
            const int channel = channel0 + thread % CARRY_CHANNELS;
            if (channel < a.channels)
                join_run(sequence_run(a, ends, image, state, channel, pass == 1, thread),
                         shared[2 * thread], shared[2 * thread + 1]);
        });
        block.stage([&](int thread, Nothing &) {
            const int channel = channel0 + thread % CARRY_CHANNELS;
            if (channel < a.channels)
                start_run(sequence_run(a, ends, image, state, channel, pass == 1, thread), shared,
                          thread);
        });
    }
}

// Grid as selective_scan_sum_chunks.
template <class Block>
GEOSEG_INLINE void selective_scan_output(Block &block, const SelectiveScanArguments &a,
                                         float *shared) {
    const SequencePlace place(a, block.x(), block.y());
    const SequenceTile dt = tile_at(shared, 0), u = tile_at(shared, 1), y = tile_at(shared, 2);
    block.stage([&](int thread, Nothing &) {
        read_tile(a, place, a.delta, thread, dt);
        read_tile(a, place, a.u, thread, u);
        find_steps(a, place, thread, dt, nullptr);
    });
    block.stage([&](int thread, Nothing &) {
        const int channel = place.channel0 + thread;
        const bool exists = thread < place.channels;
        const float skip = exists && a.D ? a.D[channel] : 0.0f;
#pragma unroll 4
        for (int step = 0; step < SEQUENCE_STEPS; ++step)
            y.at(step, thread) = a.D ? skip * u.at(step, thread) : 0.0f;
#pragma unroll 1
        for (int state = 0; exists && state < a.states; ++state) {
            const float rate = a.A[channel * a.states + state];
            float h = a.ends[place.end(a, state, thread)];
#pragma unroll 4
            for (int step = 0; step < SEQUENCE_STEPS; ++step) {
                const float size = dt.at(step, thread);
                const float b = GEOSEG_LN2 * shared_value(a, place, a.B, state, step);
                h = exp2_of(size * rate) * h + size * b * u.at(step, thread);
                y.at(step, thread) += shared_value(a, place, a.C, state, step) * h;
            }
        }
    });
    block.stage([&](int thread, Nothing &) { write_tile(a, place, a.y, thread, y); });
}

}  // namespace geoseg

#endif
