// Runs kernel bodies without a GPU: every stage is a loop over the threads of a block, every grid a
// loop over its blocks, in either order. Shared memory starts as NaN and ends in a guard.
#ifndef GEOSEG_BLOCK_EMULATOR_H
#define GEOSEG_BLOCK_EMULATOR_H

#include <cmath>
#include <cstdint>
#include <vector>

namespace geoseg {

template <class State>
struct Block {
    int index[3], count;
    bool reversed;
    std::vector<State> states;

    int x() const { return index[0]; }
    int y() const { return index[1]; }
    int z() const { return index[2]; }
    int threads() const { return count; }

    template <class Stage>
    void stage(Stage body) {
        for (int i = 0; i < count; ++i) {
            const int thread = reversed ? count - 1 - i : i;
            body(thread, states[thread]);
        }
    }
};

constexpr int GUARD = 64;

// Returns 0; 1: too many threads; 2: the body wrote past its shared memory.
template <class State, class Body>
int emulate(const int *grid, int threads, int limit, int64_t shared_bytes, bool reversed,
            Body body) {
    if (threads > limit) return 1;
    const int64_t blocks = static_cast<int64_t>(grid[0]) * grid[1] * grid[2];
    const int64_t floats = shared_bytes / 4;
    std::vector<Float4> memory((floats + GUARD + 3) / 4 + 1);
    float *shared = reinterpret_cast<float *>(memory.data());
    for (int64_t i = 0; i < blocks; ++i) {
        const int64_t at = reversed ? blocks - 1 - i : i;
        for (int64_t j = 0; j < floats; ++j) shared[j] = NAN;
        for (int64_t j = 0; j < GUARD; ++j) shared[floats + j] = 1.25f;
        const int64_t row = at / grid[0];
        Block<State> block{{static_cast<int>(at % grid[0]), static_cast<int>(row % grid[1]),
                            static_cast<int>(row / grid[1])},
                           threads,
                           reversed,
                           std::vector<State>(threads)};
        body(block, shared);
        for (int64_t j = 0; j < GUARD; ++j)
            if (shared[floats + j] != 1.25f) return 2;
    }
    return 0;
}

}  // namespace geoseg

#define GEOSEG_KERNEL(name, Arguments, State, max_threads, min_blocks)                            \
    extern "C" int geoseg_##name(const geoseg::Arguments *arguments, const int *grid,             \
                                 int threads, int64_t shared_bytes, int reversed) {               \
        return geoseg::emulate<geoseg::State>(                                                    \
            grid, threads, max_threads, shared_bytes, reversed != 0,                              \
            [&](geoseg::Block<geoseg::State> &block, float *shared) {                             \
                geoseg::name(block, *arguments, shared);                                          \
            });                                                                                   \
    }

#endif
