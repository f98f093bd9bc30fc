// One block of threads, written as stages with a barrier after each: a kernel body calls
// `block.stage(f)` and f runs for every thread. On a GPU f sees its own thread; without one a grid
// emulator (in the tests) loops over the threads of a stage and over the blocks of a grid.
#ifndef GEOSEG_CUDA_BLOCK_H
#define GEOSEG_CUDA_BLOCK_H

#ifdef __CUDACC__
#define GEOSEG_INLINE __device__ __forceinline__
#else
#define GEOSEG_INLINE inline
#endif

namespace geoseg {

typedef long long int64;

struct alignas(16) Float4 {
    float x, y, z, w;
};

#ifdef __CUDACC__

// State is what a thread keeps from one stage to the next: registers.
template <class State>
struct Block {
    State own;

    GEOSEG_INLINE int x() const { return blockIdx.x; }
    GEOSEG_INLINE int y() const { return blockIdx.y; }
    GEOSEG_INLINE int z() const { return blockIdx.z; }
    GEOSEG_INLINE int threads() const { return blockDim.x; }

    template <class Stage>
    GEOSEG_INLINE void stage(Stage body) {
        body(static_cast<int>(threadIdx.x), own);
        __syncthreads();
    }
};

// The entry that a module exports: body(block, arguments, shared memory). `min_blocks` of them are
// to fit a multiprocessor at once, which bounds the registers.
#define GEOSEG_KERNEL(name, Arguments, State, max_threads, min_blocks)                       \
    extern "C" __global__ void __launch_bounds__(max_threads, min_blocks)                    \
        geoseg_##name(const geoseg::Arguments arguments) {                                   \
        extern __shared__ geoseg::Float4 geoseg_shared[];                                    \
        geoseg::Block<geoseg::State> block;                                                  \
        geoseg::name(block, arguments, reinterpret_cast<float *>(geoseg_shared));            \
    }

#endif

struct Nothing {};

GEOSEG_INLINE int smaller(int a, int b) { return a < b ? a : b; }
GEOSEG_INLINE int greater(int a, int b) { return a > b ? a : b; }
GEOSEG_INLINE int blocks_of(int count, int size) { return (count + size - 1) / size; }

}  // namespace geoseg

#ifndef __CUDACC__
#include "block_emulator.h"
#endif

#endif
