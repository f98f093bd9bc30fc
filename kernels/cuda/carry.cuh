// Joins the chunks of a scan: what each chunk adds is replaced in place by the state it starts
// from.
#ifndef GEOSEG_CUDA_CARRY_CUH
#define GEOSEG_CUDA_CARRY_CUH

#include "cuda_maps.h"
#include "cuda_numbers.h"

namespace geoseg {

// Of a block. Eight channels are 32 bytes, the least that a load moves; the more segments, the fewer
// chunks one after the other.
constexpr int CARRY_CHANNELS = 8;
constexpr int CARRY_SEGMENTS = 64;
constexpr int CARRY_THREADS = CARRY_CHANNELS * CARRY_SEGMENTS;

// One thread's share: a run of consecutive chunks of one channel, in the order of the scan.
struct Run {
    const float *sums;  // of the step sizes, per chunk
    float *ends;        // states
    int64 sum_stride, end_stride;
    float rate;  // a chunk decays by 2^(rate * sum)
    int chunks, first, last;
    bool backwards;

    GEOSEG_INLINE int chunk(int i) const { return backwards ? chunks - 1 - i : i; }
};

GEOSEG_INLINE Run run_of(int thread, int chunks, bool backwards) {
    Run run = {};
    const int share = blocks_of(chunks, CARRY_SEGMENTS), segment = thread / CARRY_CHANNELS;
    run.chunks = chunks;
    run.first = smaller(segment * share, chunks);
    run.last = smaller(run.first + share, chunks);
    run.backwards = backwards;
    return run;
}

// The run as one link: its summed step sizes and the state it ends with from 0.
GEOSEG_INLINE void join_run(const Run &run, float &sum, float &end) {
    sum = end = 0.0f;
#pragma unroll 4
    for (int i = run.first; i < run.last; ++i) {
        const int chunk = run.chunk(i);
        const float size = run.sums[chunk * run.sum_stride];
        end = Link{exp2_of(run.rate * size), run.ends[chunk * run.end_stride]}.after(end);
        sum += size;
    }
}

// `joined` holds (sum, end) of every thread's run.
GEOSEG_INLINE void start_run(const Run &run, const float *joined, int thread) {
    float state = 0.0f;
    for (int before = thread % CARRY_CHANNELS; before < thread; before += CARRY_CHANNELS)
        state = Link{exp2_of(run.rate * joined[2 * before]), joined[2 * before + 1]}.after(state);
#pragma unroll 4
    for (int i = run.first; i < run.last; ++i) {
        const int chunk = run.chunk(i);
        float &place = run.ends[chunk * run.end_stride];
        const Link link = {exp2_of(run.rate * run.sums[chunk * run.sum_stride]), place};
        place = state;
        state = link.after(state);
    }
}

}  // namespace geoseg

#endif
