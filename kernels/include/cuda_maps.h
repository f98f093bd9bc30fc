// Index maps and chunk algebra: which pixel a scan reads at a step, which keys a query sees, which
// queries see a key, and how chunks of a scan are joined. No memory is touched here.
#ifndef GEOSEG_CUDA_MAPS_H
#define GEOSEG_CUDA_MAPS_H

#include "cuda_block.h"

namespace geoseg {

// Directions 0 and 2 read rows, 1 and 3 columns, 2 and 3 backwards.
GEOSEG_INLINE int pixel_of(int step, bool columns, int height, int width) {
    return columns ? step % height * width + step / height : step;
}

// Steps are always counted in the forward order; a backward direction takes them from the end.
// Which it is, is known to the compiler, so that neighbours lie at fixed distances.
template <int STEPS, bool BACKWARDS>
struct Walk {
    GEOSEG_INLINE static int at(int i) { return BACKWARDS ? STEPS - 1 - i : i; }
};

// A chunk turns the state it starts from into `decay * start + end`.
struct Link {
    float decay, end;
    GEOSEG_INLINE float after(float start) const { return decay * start + end; }
};

// Windows are moved inwards at the borders: each query has `kernel` keys on an axis.
GEOSEG_INLINE int window_start(int query, int length, int kernel) {
    return smaller(greater(query - kernel / 2, 0), length - kernel);
}

// First and last query whose window contains a key.
GEOSEG_INLINE int first_query(int key, int kernel) {
    return key < kernel ? 0 : key - kernel / 2;
}
GEOSEG_INLINE int last_query(int key, int length, int kernel) {
    return key >= length - kernel ? length - 1 : key + kernel / 2;
}

}  // namespace geoseg

#endif
