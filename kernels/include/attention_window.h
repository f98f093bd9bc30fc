// The window of a query on one axis: moved inwards at the borders, never cut.
#ifndef GEOSEG_ATTENTION_WINDOW_H
#define GEOSEG_ATTENTION_WINDOW_H

#include <cstdint>

// First key of the window of the query at `position`.
inline int64_t window_start(int64_t position, int64_t length, int64_t kernel) {
    const int64_t start = position - kernel / 2;
    return start < 0 ? 0 : start > length - kernel ? length - kernel : start;
}

#endif
