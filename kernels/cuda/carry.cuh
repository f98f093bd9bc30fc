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
    float rate;          // a chunk decays by 2^(rate * sum)
    int stride;          // from chunk to chunk
    int chunks, first, last;
    bool backwards;

    GEOSEG_INLINE int64 chunk(int i) const {
        return static_cast<int64>(backwards ? chunks - 1 - i : i) * stride;
    }
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

// Chunks that are read together: a chunk is joined in a few cycles, and read in hundreds. A compiler
// cannot tell that what is written for one is not what is read of the next.
constexpr int CARRY_READS = 6;

GEOSEG_INLINE void read_chunks(const Run &run, int first, float *sizes, float *ends) {
#pragma unroll
    for (int j = 0; j < CARRY_READS; ++j) {
        const int64 chunk = run.chunk(first + j < run.last ? first + j : first);
        sizes[j] = run.sums[chunk];
        ends[j] = run.ends[chunk];
    }
}

// The run as one link: its summed step sizes and the state it ends with from 0.
GEOSEG_INLINE void join_run(const Run &run, float &sum, float &end) {
    sum = end = 0.0f;
#pragma unroll 1
    for (int i = run.first; i < run.last; i += CARRY_READS) {
        float sizes[CARRY_READS], ends[CARRY_READS];
        read_chunks(run, i, sizes, ends);
#pragma unroll
        for (int j = 0; j < CARRY_READS; ++j) {
            if (i + j >= run.last) break;
            end = Link{exp2_of(run.rate * sizes[j]), ends[j]}.after(end);
            sum += sizes[j];
        }
    }
}

// `joined` holds (sum, end) of every thread's run.
GEOSEG_INLINE void start_run(const Run &run, const float *joined, int thread) {
    float state = 0.0f;
    for (int before = thread % CARRY_CHANNELS; before < thread; before += CARRY_CHANNELS)
        state = Link{exp2_of(run.rate * joined[2 * before]), joined[2 * before + 1]}.after(state);
#pragma unroll 1
    for (int i = run.first; i < run.last; i += CARRY_READS) {
        float sizes[CARRY_READS], ends[CARRY_READS];
        read_chunks(run, i, sizes, ends);
#pragma unroll
        for (int j = 0; j < CARRY_READS; ++j) {
            if (i + j >= run.last) break;
            run.ends[run.chunk(i + j)] = state;
            state = Link{exp2_of(run.rate * sizes[j]), ends[j]}.after(state);
        }
    }
}

}  // namespace geoseg

#endif
