// Gradients of the general selective scan: the equations of ss2d_backward.cuh, with S states and
// with delta given.
#ifndef GEOSEG_CUDA_SELECTIVE_SCAN_BACKWARD_CUH
#define GEOSEG_CUDA_SELECTIVE_SCAN_BACKWARD_CUH

#include "selective_scan_forward.cuh"

namespace geoseg {

struct SequenceGradients {
    SequenceTile dt, slope, u, dy, h, g, du, ddelta;

    GEOSEG_INLINE explicit SequenceGradients(float *shared)
        : dt(tile_at(shared, 0)), slope(tile_at(shared, 1)), u(tile_at(shared, 2)),
          dy(tile_at(shared, 3)), h(tile_at(shared, 4)), g(tile_at(shared, 5)),
          du(tile_at(shared, 6)), ddelta(tile_at(shared, 7)) {}
};

// One state of one channel: leaves dy h and lam dt u over ln 2 per step, adds to du and ddelta, and
// returns dA.
GEOSEG_INLINE float state_gradient(const SelectiveScanArguments &a, const SequencePlace &place,
                                   const SequenceGradients &s, int state, int thread) {
    const float rate = a.A[(place.channel0 + thread) * a.states + state];
    const float start = a.ends[place.end(a, state, thread)];
    float h = start, adjoint = a.adjoints[place.end(a, state, thread)], dA = 0.0f;
#pragma unroll 4
    for (int step = 0; step < SEQUENCE_STEPS; ++step) {
        const float size = s.dt.at(step, thread);
        const float b = GEOSEG_LN2 * shared_value(a, place, a.B, state, step);
        h = exp2_of(size * rate) * h + size * b * s.u.at(step, thread);
        s.h.at(step, thread) = h;
    }
#pragma unroll 4
    for (int step = SEQUENCE_STEPS - 1; step >= 0; --step) {
        const float size = s.dt.at(step, thread), factor = exp2_of(size * rate);
        const float b = shared_value(a, place, a.B, state, step);
        const float c = shared_value(a, place, a.C, state, step);
        const float dy = s.dy.at(step, thread), u = s.u.at(step, thread);
        const float decayed = factor * (step ? s.h.at(step - 1, thread) : start);
        const float lam = dy * c + adjoint, steep = lam * size;
        adjoint = factor * lam;
        s.du.at(step, thread) += GEOSEG_LN2 * steep * b;
        s.ddelta.at(step, thread) += lam * (b * u + rate * decayed);
        dA += steep * decayed;
        s.g.at(step, thread) = steep * u;
        s.h.at(step, thread) *= dy;
    }
    return GEOSEG_LN2 * dA;
}

// Sums over the block's channels, a thread per step.
GEOSEG_INLINE void sum_state(const SelectiveScanArguments &a, const SequencePlace &place,
                             const SequenceGradients &s, int state, int thread) {
    if (thread >= place.count) return;
    float db = 0.0f, dc = 0.0f;
#pragma unroll 4
    for (int channel = 0; channel < place.channels; ++channel) {
        db += s.g.at(thread, channel);
        dc += s.h.at(thread, channel);
    }
    const int64 part = static_cast<int64>(place.block) * a.batch * a.groups * a.states * a.length;
    const int64 at = part + place.shared_row(a, state) + thread;
    a.dB[at] = GEOSEG_LN2 * db;
    a.dC[at] = dc;
}

// Grid as selective_scan_sum_chunks.
template <class Block>
GEOSEG_INLINE void selective_scan_backward(Block &block, const SelectiveScanArguments &a,
                                           float *shared) {
    const SequencePlace place(a, block.x(), block.y());
    const SequenceGradients s(shared);
    // (S + 2, C) of this chunk: dA, then dD, then that of delta_bias.
    float *parameters = a.parameters +
                        static_cast<int64>(block.x()) * (a.states + 2) * a.channels +
                        place.channel0;
    block.stage([&](int thread, Nothing &) {
        read_tile(a, place, a.delta, thread, s.dt);
        read_tile(a, place, a.u, thread, s.u);
        read_tile(a, place, a.dy, thread, s.dy);
        find_steps(a, place, thread, s.dt, &s.slope);
    });
    block.stage([&](int thread, Nothing &) {
        const bool exists = thread < place.channels;
        const float skip = exists && a.D ? a.D[place.channel0 + thread] : 0.0f;
        float sum = 0.0f;
#pragma unroll 4
        for (int step = 0; step < SEQUENCE_STEPS; ++step) {
            s.du.at(step, thread) = skip * s.dy.at(step, thread);
            s.ddelta.at(step, thread) = 0.0f;
            sum += s.u.at(step, thread) * s.dy.at(step, thread);
        }
        if (exists) parameters[static_cast<int64>(a.states) * a.channels + thread] = sum;
    });
    for (int state = 0; state < a.states; ++state) {
        block.stage([&](int thread, Nothing &) {
            if (thread < place.channels)
                parameters[static_cast<int64>(state) * a.channels + thread] =
                    state_gradient(a, place, s, state, thread);
        });
        block.stage([&](int thread, Nothing &) { sum_state(a, place, s, state, thread); });
    }
    block.stage([&](int thread, Nothing &) {
        float sum = 0.0f;
#pragma unroll 4
        for (int step = 0; step < SEQUENCE_STEPS; ++step) {
            s.ddelta.at(step, thread) *= s.slope.at(step, thread);
            sum += s.ddelta.at(step, thread);
        }
        if (thread < place.channels)
            parameters[static_cast<int64>(a.states + 1) * a.channels + thread] = sum;
    });
    block.stage([&](int thread, Nothing &) {
        write_tile(a, place, a.du, thread, s.du);
        write_tile(a, place, a.ddelta, thread, s.ddelta);
    });
}

}  // namespace geoseg

#endif
