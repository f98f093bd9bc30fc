// Rasters at half their resolution, for overviews: each value from the two by two above it.
#include "geoseg_kernels.h"
#include "isa.h"

namespace GEOSEG_NAMESPACE {

namespace {

// The most frequent of four, the first of equals; nodata does not count.
struct Mode {
    template <typename T>
    static T of(T a, T b, T c, T d, T none) {
        T r = d;
        // From the weakest claim to the strongest: a later line overrules those before it.
        r = c != none ? c : r;
        r = b != none ? b : r;
        r = a != none ? a : r;
        r = ((c == d) & (c != none)) ? c : r;
        r = ((b == d) & (b != none)) ? b : r;
        r = ((b == c) & (b != none)) ? b : r;
        r = ((a == d) & (a != none)) ? a : r;
        r = ((a == c) & (a != none)) ? a : r;
        r = ((a == b) & (a != none)) ? a : r;
        return r;
    }
};

// The mean, rounded, halves up; nodata does not count.
struct Average {
    template <typename T>
    static T of(T a, T b, T c, T d, T none) {
        const uint32_t n = (a != none) + (b != none) + (c != none) + (d != none);
        const uint32_t sum = (a != none ? a : 0u) + (b != none ? b : 0u) + (c != none ? c : 0u) +
                             (d != none ? d : 0u);
        const uint32_t by2 = (sum + 1) / 2, by3 = (2 * sum + 3) / 6, by4 = (sum + 2) / 4;
        uint32_t r = n == 4 ? by4 : n == 3 ? by3 : n == 2 ? by2 : sum;
        return n == 0 ? none : static_cast<T>(r);
    }
};

template <typename Rule, typename T>
void halve_rows(const T *values, int64_t row_stride, int64_t height, int64_t width, T none, T *out,
                int64_t out_row_stride) {
    const int64_t whole = width / 2;
    for (int64_t y = 0; y < (height + 1) / 2; ++y) {
        const T *top = values + 2 * y * row_stride;
        // The last row of an odd number stands for two.
        const T *bottom = 2 * y + 1 < height ? top + row_stride : top;
        T *to = out + y * out_row_stride;
        for (int64_t x = 0; x < whole; ++x)
            to[x] = Rule::of(top[2 * x], top[2 * x + 1], bottom[2 * x], bottom[2 * x + 1], none);
        if (width % 2)
            to[whole] = Rule::of(top[width - 1], top[width - 1], bottom[width - 1],
                                 bottom[width - 1], none);
    }
}

template <typename T>
void halve_by(const void *values, int64_t row_stride, int64_t height, int64_t width, int32_t rule,
              int32_t none, void *out, int64_t out_row_stride) {
    const T *from = static_cast<const T *>(values);
    T *to = static_cast<T *>(out);
    if (rule == GEOSEG_MODE)
        halve_rows<Mode, T>(from, row_stride, height, width, static_cast<T>(none), to,
                            out_row_stride);
    else
        halve_rows<Average, T>(from, row_stride, height, width, static_cast<T>(none), to,
                               out_row_stride);
}

}  // namespace

int32_t halve(const void *values, int32_t dtype, int64_t row_stride, int64_t height, int64_t width,
              int32_t rule, int32_t none, void *out, int64_t out_row_stride) {
    if (rule != GEOSEG_MODE && rule != GEOSEG_AVERAGE) return 1;
    if (dtype == GEOSEG_UINT8)
        halve_by<uint8_t>(values, row_stride, height, width, rule, none, out, out_row_stride);
    else if (dtype == GEOSEG_UINT16)
        halve_by<uint16_t>(values, row_stride, height, width, rule, none, out, out_row_stride);
    else
        return 1;
    return 0;
}

}  // namespace GEOSEG_NAMESPACE
