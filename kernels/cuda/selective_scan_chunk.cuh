// What the kernels of the general selective scan share: arguments, and one chunk's inputs in shared
// memory. Sequences are dense in memory, so a tile is read with a thread per step and used with a
// thread per channel. A block's channels belong to one group: they share B and C.
#ifndef GEOSEG_CUDA_SELECTIVE_SCAN_CHUNK_CUH
#define GEOSEG_CUDA_SELECTIVE_SCAN_CHUNK_CUH

#include "cuda_maps.h"
#include "cuda_numbers.h"

namespace geoseg {

// As many channels as steps, because a thread stands for either.
constexpr int SEQUENCE_STEPS = 32;
constexpr int TILE_FLOATS = SEQUENCE_STEPS * (SEQUENCE_STEPS + 1);

struct SelectiveScanArguments {
    const Io *u, *delta;      // (N, C, L)
    const float *A;           // (C, S)
    const Io *B, *C;          // (N, G, S, L)
    const float *D;           // (C,) or null
    const float *delta_bias;  // (C,) or null
    float *sums;              // (N, chunks, C): step sizes over ln 2, summed
    float *ends;              // (N, S, chunks, C): states at the end, then at the start of a chunk
    Io *y;                    // (N, C, L)
    const Io *dy;             // (N, C, L); null in the forward pass
    float *adjoints;          // as ends, of the reverse recurrence
    Io *du, *ddelta;          // (N, C, L)
    float *dB, *dC;           // (blocks, N, G, S, L)
    float *parameters;        // (N x chunks, S + 2, C): of A, D and delta_bias
    int batch, channels, states, groups, length, chunks;
    int softplus;
};

struct SequencePlace {
    int image, chunk, first, count, group, block, channel0, channels;

    GEOSEG_INLINE SequencePlace(const SelectiveScanArguments &a, int grid_x, int grid_y) {
        image = grid_x / a.chunks;
        chunk = grid_x - image * a.chunks;
        first = chunk * SEQUENCE_STEPS;
        count = smaller(SEQUENCE_STEPS, a.length - first);
        const int size = a.channels / a.groups, blocks = blocks_of(size, SEQUENCE_STEPS);
        group = grid_y / blocks;
        block = grid_y - group * blocks;
        channel0 = group * size + block * SEQUENCE_STEPS;
        channels = smaller(SEQUENCE_STEPS, size - block * SEQUENCE_STEPS);
    }
    GEOSEG_INLINE int64 row(const SelectiveScanArguments &a, int channel) const {
        return (static_cast<int64>(image) * a.channels + channel0 + channel) * a.length + first;
    }
    // Of B and C.
    GEOSEG_INLINE int64 shared_row(const SelectiveScanArguments &a, int state) const {
        const int64 rows = static_cast<int64>(image) * a.groups + group;
        return (rows * a.states + state) * a.length + first;
    }
    GEOSEG_INLINE int64 sum(const SelectiveScanArguments &a, int channel) const {
        return (static_cast<int64>(image) * a.chunks + chunk) * a.channels + channel0 + channel;
    }
    GEOSEG_INLINE int64 end(const SelectiveScanArguments &a, int state, int channel) const {
        const int64 plane = static_cast<int64>(image) * a.states + state;
        return (plane * a.chunks + chunk) * a.channels + channel0 + channel;
    }
};

// A tile [steps][channels + 1] in shared memory.
struct SequenceTile {
    float *values;
    GEOSEG_INLINE float &at(int step, int channel) const {
        return values[step * (SEQUENCE_STEPS + 1) + channel];
    }
};
GEOSEG_INLINE SequenceTile tile_at(float *shared, int index) {
    return {shared + index * TILE_FLOATS};
}

// The thread's step of every channel; 0 for what is past the end.
GEOSEG_INLINE void read_tile(const SelectiveScanArguments &a, const SequencePlace &place,
                             const Io *map, int thread, const SequenceTile &tile) {
#pragma unroll 4
    for (int channel = 0; channel < SEQUENCE_STEPS; ++channel) {
        const bool exists = channel < place.channels && thread < place.count;
        tile.at(thread, channel) = exists ? load_io(map, place.row(a, channel) + thread) : 0.0f;
    }
}
GEOSEG_INLINE void write_tile(const SelectiveScanArguments &a, const SequencePlace &place, Io *map,
                              int thread, const SequenceTile &tile) {
#pragma unroll 4
    for (int channel = 0; thread < place.count && channel < place.channels; ++channel)
        store_io(map, place.row(a, channel) + thread, tile.at(thread, channel));
}

// Step sizes over ln 2 from delta, and their derivative by delta if wanted. What is past the end
// gets steps of 0, which change nothing.
GEOSEG_INLINE void find_steps(const SelectiveScanArguments &a, const SequencePlace &place,
                              int thread, const SequenceTile &delta, const SequenceTile *slopes) {
#pragma unroll 4
    for (int channel = 0; channel < SEQUENCE_STEPS; ++channel) {
        const bool exists = channel < place.channels && thread < place.count;
        const float bias =
            a.delta_bias && exists ? a.delta_bias[place.channel0 + channel] : 0.0f;
        const float z = GEOSEG_LOG2E * (delta.at(thread, channel) + bias);
        float slope = 1.0f, dt = z;
        if (a.softplus) dt = softplus2(z, slope);
        delta.at(thread, channel) = exists ? dt : 0.0f;
        if (slopes) slopes->at(thread, channel) = exists ? slope : 0.0f;
    }
}

GEOSEG_INLINE float shared_value(const SelectiveScanArguments &a, const SequencePlace &place,
                                 const Io *map, int state, int step) {
    return load_io(map, place.shared_row(a, state) + smaller(step, place.count - 1));
}

}  // namespace geoseg

#endif
