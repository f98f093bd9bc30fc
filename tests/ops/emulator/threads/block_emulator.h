// As the emulator above, but every thread of a block is one of the machine, and a stage ends in a
// barrier: for ThreadSanitizer, which then sees what a block's threads would do to each other.
#ifndef GEOSEG_BLOCK_EMULATOR_H
#define GEOSEG_BLOCK_EMULATOR_H

#include <pthread.h>

#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

namespace geoseg {

template <class State>
struct Block {
    int index[3], count, thread;
    pthread_barrier_t *barrier;
    State own;

    int x() const { return index[0]; }
    int y() const { return index[1]; }
    int z() const { return index[2]; }
    int threads() const { return count; }

    template <class Stage>
    void stage(Stage body) {
        body(thread, own);
        pthread_barrier_wait(barrier);
    }
};

template <class State, class Body>
int emulate(const int *grid, int threads, int limit, int64_t shared_bytes, Body body) {
    if (threads > limit) return 1;
    const int64_t blocks = static_cast<int64_t>(grid[0]) * grid[1] * grid[2];
    std::vector<Float4> memory(shared_bytes / 16 + 1);
    float *shared = reinterpret_cast<float *>(memory.data());
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, nullptr, threads);
    for (int64_t at = 0; at < blocks; ++at) {
        for (int64_t j = 0; j < shared_bytes / 4; ++j) shared[j] = NAN;
        std::vector<std::thread> all;
        for (int thread = 0; thread < threads; ++thread)
            all.emplace_back([&, thread] {
                const int64_t row = at / grid[0];
                Block<State> block{{static_cast<int>(at % grid[0]),
                                    static_cast<int>(row % grid[1]),
                                    static_cast<int>(row / grid[1])},
                                   threads,
                                   thread,
                                   &barrier,
                                   State()};
                body(block, shared);
            });
        for (std::thread &one : all) one.join();
    }
    pthread_barrier_destroy(&barrier);
    return 0;
}

}  // namespace geoseg

#define GEOSEG_KERNEL(name, Arguments, State, max_threads, min_blocks)                            \
    extern "C" int geoseg_##name(const geoseg::Arguments *arguments, const int *grid,             \
                                 int threads, int64_t shared_bytes, int) {                        \
        return geoseg::emulate<geoseg::State>(                                                    \
            grid, threads, max_threads, shared_bytes,                                             \
            [&](geoseg::Block<geoseg::State> &block, float *shared) {                             \
                geoseg::name(block, *arguments, shared);                                          \
            });                                                                                   \
    }

#endif
