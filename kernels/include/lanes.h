// Fixed-length inner loops. Every pixel is computed in a block of LANES, the last one of a row in a
// padded copy, so that a pixel's arithmetic never depends on where a row was cut.
#ifndef GEOSEG_LANES_H
#define GEOSEG_LANES_H

#include <cstdint>

namespace geoseg {

constexpr int64_t LANES = 16;

inline int64_t lanes_left(int64_t x, int64_t width) {
    return width - x < LANES ? width - x : LANES;
}

}  // namespace geoseg

#endif
