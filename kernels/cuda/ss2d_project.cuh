// What the scan reads of each pixel, q = W x, of a map in half precision: a library's product with a
// float32 result would need a float32 copy of the map, a launch more and three times the bytes.
//
// A block owns 32 pixels and 16 rows of q. Each of its warps takes its share of the channels that
// are in shared memory, four pixels by four rows a thread; their sums are added in the end, always
// in the same order.
#ifndef GEOSEG_CUDA_SS2D_PROJECT_CUH
#define GEOSEG_CUDA_SS2D_PROJECT_CUH

#include "cuda_numbers.h"

namespace geoseg {

constexpr int PROJECT_PIXELS = 32, PROJECT_ROWS = 16;
constexpr int PROJECT_WARPS = 4, PROJECT_THREADS = 32 * PROJECT_WARPS;
constexpr int PROJECT_CHANNELS = 32;  // in shared memory at a time
constexpr int PROJECT_QUAD = 4;       // pixels and rows of a thread

struct Ss2dProjectArguments {
    const Io *x;          // (pixels, C)
    const float *weight;  // (rows, C)
    float *q;             // (pixels, rows)
    int64 pixels;
    int channels, rows;
};

struct ProjectSums {
    float at[PROJECT_QUAD][PROJECT_QUAD];  // [pixel][row]
};

// Shared memory: channels of the pixels, then of the rows; in the end a sum per warp, pixel and row.
// Lines are padded: writes walk along channels, reads along pixels in fours.
struct ProjectTile {
    static constexpr int x_pitch = PROJECT_PIXELS + 4, w_pitch = PROJECT_ROWS + 4;
    static constexpr int floats = PROJECT_WARPS * PROJECT_PIXELS * PROJECT_ROWS;
    static_assert(PROJECT_CHANNELS * (x_pitch + w_pitch) <= floats, "sums are the larger part");
    float *shared;

    GEOSEG_INLINE float &x(int channel, int pixel) const {
        return shared[channel * x_pitch + pixel];
    }
    GEOSEG_INLINE float &w(int channel, int row) const {
        return shared[PROJECT_CHANNELS * x_pitch + channel * w_pitch + row];
    }
    GEOSEG_INLINE float &sum(int warp, int pixel, int row) const {
        return shared[(warp * PROJECT_PIXELS + pixel) * PROJECT_ROWS + row];
    }
};

GEOSEG_INLINE void load_projection(const ProjectTile &tile, const Ss2dProjectArguments &a,
                                   int64 pixel0, int row0, int channel0, int thread) {
    const int c = thread % PROJECT_CHANNELS, channel = channel0 + c;
#pragma unroll 4
    for (int i = thread / PROJECT_CHANNELS; i < PROJECT_PIXELS; i += PROJECT_WARPS) {
        const bool there = channel < a.channels && pixel0 + i < a.pixels;
        tile.x(c, i) = there ? load_io(a.x, (pixel0 + i) * a.channels + channel) : 0.0f;
    }
#pragma unroll
    for (int i = thread / PROJECT_CHANNELS; i < PROJECT_ROWS; i += PROJECT_WARPS) {
        const bool there = channel < a.channels && row0 + i < a.rows;
        tile.w(c, i) = there ? a.weight[(row0 + i) * a.channels + channel] : 0.0f;
    }
}

// Where a thread's four pixels and four rows begin.
struct ProjectPlace {
    int warp, pixel, row;

    GEOSEG_INLINE explicit ProjectPlace(int thread)
        : warp(thread / 32),
          pixel(thread % 32 / (PROJECT_ROWS / PROJECT_QUAD) * PROJECT_QUAD),
          row(thread % (PROJECT_ROWS / PROJECT_QUAD) * PROJECT_QUAD) {}
};

GEOSEG_INLINE void add_products(const ProjectTile &tile, int thread, ProjectSums &sums) {
    constexpr int SHARE = PROJECT_CHANNELS / PROJECT_WARPS;
    const ProjectPlace place(thread);
#pragma unroll
    for (int i = 0; i < SHARE; ++i) {
        const int c = place.warp * SHARE + i;
        const Float4 x = *reinterpret_cast<const Float4 *>(&tile.x(c, place.pixel));
        const Float4 w = *reinterpret_cast<const Float4 *>(&tile.w(c, place.row));
        const float xs[PROJECT_QUAD] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int j = 0; j < PROJECT_QUAD; ++j) {
            sums.at[j][0] += xs[j] * w.x;
            sums.at[j][1] += xs[j] * w.y;
            sums.at[j][2] += xs[j] * w.z;
            sums.at[j][3] += xs[j] * w.w;
        }
    }
}

// Grid: pixel tiles x row tiles, those of a pixel tile after each other: they read the same pixels.
template <class Block>
GEOSEG_INLINE void ss2d_project(Block &block, const Ss2dProjectArguments &a, float *shared) {
    const ProjectTile tile = {shared};
    const int row_tiles = blocks_of(a.rows, PROJECT_ROWS), pixel_tile = block.x() / row_tiles;
    const int64 pixel0 = static_cast<int64>(pixel_tile) * PROJECT_PIXELS;
    const int row0 = (block.x() - pixel_tile * row_tiles) * PROJECT_ROWS;
    for (int channel0 = 0; channel0 < a.channels; channel0 += PROJECT_CHANNELS) {
        block.stage([&](int thread, ProjectSums &sums) {
            if (channel0 == 0) sums = {};
            load_projection(tile, a, pixel0, row0, channel0, thread);
        });
        block.stage([&](int thread, ProjectSums &sums) { add_products(tile, thread, sums); });
    }
    block.stage([&](int thread, ProjectSums &sums) {
        const ProjectPlace place(thread);
#pragma unroll
        for (int i = 0; i < PROJECT_QUAD; ++i)
            *reinterpret_cast<Float4 *>(&tile.sum(place.warp, place.pixel + i, place.row)) = {
                sums.at[i][0], sums.at[i][1], sums.at[i][2], sums.at[i][3]};
    });
    block.stage([&](int thread, ProjectSums &) {
        const int row = thread % PROJECT_ROWS;
        if (row0 + row >= a.rows) return;
        for (int i = thread / PROJECT_ROWS; i < PROJECT_PIXELS && pixel0 + i < a.pixels;
             i += PROJECT_THREADS / PROJECT_ROWS) {
            float sum = 0.0f;
#pragma unroll
            for (int warp = 0; warp < PROJECT_WARPS; ++warp) sum += tile.sum(warp, i, row);
            a.q[(pixel0 + i) * a.rows + row0 + row] = sum;
        }
    });
}

}  // namespace geoseg

#endif
