// Loops over independent jobs: OpenMP where the compiler has it, so that the threads of the caller's
// own OpenMP library are used and no second pool competes with them; otherwise one thread.
#ifndef GEOSEG_THREADS_H
#define GEOSEG_THREADS_H

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#define GEOSEG_PRAGMA(text) _Pragma(#text)
#define GEOSEG_PARALLEL_FOR(threads) \
    GEOSEG_PRAGMA(omp parallel for schedule(dynamic, 1) num_threads(threads))
static inline int64_t thread_index() { return omp_get_thread_num(); }
#else
#define GEOSEG_PARALLEL_FOR(threads) (void)(threads);
static inline int64_t thread_index() { return 0; }
#endif

constexpr int64_t ALIGNMENT = 64;
static inline int64_t aligned(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

#endif
