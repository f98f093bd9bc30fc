// The order in which the four directions read a map: rows, columns, and both backwards.
#ifndef GEOSEG_SCAN_ORDER_H
#define GEOSEG_SCAN_ORDER_H

#include <cstdint>

constexpr int DIRECTIONS = 4;

inline bool reads_columns(int direction) { return direction % 2 == 1; }
inline bool reads_backwards(int direction) { return direction >= 2; }

// Pixel at a step of a forward direction; a backward one takes the steps from the last to the first.
inline int64_t pixel_at(int64_t step, bool columns, int64_t height, int64_t width) {
    return columns ? step % height * width + step / height : step;
}

#endif
