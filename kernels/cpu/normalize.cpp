// Raw band values to the network's input: one multiply-add per value, bands interleaved.
#include "geoseg_kernels.h"
#include "isa.h"

namespace GEOSEG_NAMESPACE {

template <typename T>
static void normalize(const T *values, int64_t band_stride, int64_t row_stride,
                      const uint8_t *valid, int64_t valid_row_stride, const float *gain,
                      const float *bias, int64_t bands, int64_t height, int64_t width,
                      float *out) {
    for (int64_t y = 0; y < height; ++y) {
        float *row = out + y * width * bands;
        for (int64_t c = 0; c < bands; ++c) {
            const T *source = values + c * band_stride + y * row_stride;
            const float g = gain[c];
            const float b = bias[c];
            if (valid == nullptr) {
                for (int64_t x = 0; x < width; ++x)
                    row[x * bands + c] = static_cast<float>(source[x]) * g + b;
            } else {
                const uint8_t *ok = valid + y * valid_row_stride;
                // A select, not a product: what lies under nodata may be NaN.
                for (int64_t x = 0; x < width; ++x)
                    row[x * bands + c] = ok[x] ? static_cast<float>(source[x]) * g + b : 0.0f;
            }
        }
    }
}

int32_t normalize_any(const void *values, int32_t dtype, int64_t band_stride, int64_t row_stride,
                      const uint8_t *valid, int64_t valid_row_stride, const float *gain,
                      const float *bias, int64_t bands, int64_t height, int64_t width,
                      float *out) {
#define GEOSEG_CASE(code, type)                                                                  \
    case code:                                                                                   \
        normalize(static_cast<const type *>(values), band_stride, row_stride, valid,             \
                  valid_row_stride, gain, bias, bands, height, width, out);                      \
        return 0
    switch (dtype) {
        GEOSEG_CASE(GEOSEG_UINT8, uint8_t);
        GEOSEG_CASE(GEOSEG_INT8, int8_t);
        GEOSEG_CASE(GEOSEG_UINT16, uint16_t);
        GEOSEG_CASE(GEOSEG_INT16, int16_t);
        GEOSEG_CASE(GEOSEG_UINT32, uint32_t);
        GEOSEG_CASE(GEOSEG_INT32, int32_t);
        GEOSEG_CASE(GEOSEG_FLOAT32, float);
        GEOSEG_CASE(GEOSEG_FLOAT64, double);
        default:
            return 1;
    }
#undef GEOSEG_CASE
}

}  // namespace GEOSEG_NAMESPACE
