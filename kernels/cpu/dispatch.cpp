// The exported functions: pick the best compiled instruction set once, then forward.
#include "geoseg_kernels.h"
#include "isa.h"

GEOSEG_DECLARE(geoseg_baseline)
#ifdef GEOSEG_HAVE_X86_64_V3
GEOSEG_DECLARE(geoseg_x86_64_v3)
#endif
#ifdef GEOSEG_HAVE_X86_64_V4
GEOSEG_DECLARE(geoseg_x86_64_v4)
#endif

namespace {

struct Table {
    const char *name;
    decltype(&geoseg_baseline::normalize_any) normalize;
    decltype(&geoseg_baseline::blend) blend;
    decltype(&geoseg_baseline::classify) classify;
};

#define GEOSEG_TABLE(name, ns) Table{name, ns::normalize_any, ns::blend, ns::classify}

Table choose() {
#if defined(GEOSEG_HAVE_X86_64_V3) || defined(GEOSEG_HAVE_X86_64_V4)
    __builtin_cpu_init();
#endif
#ifdef GEOSEG_HAVE_X86_64_V4
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return GEOSEG_TABLE("x86-64-v4", geoseg_x86_64_v4);
#endif
#ifdef GEOSEG_HAVE_X86_64_V3
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        return GEOSEG_TABLE("x86-64-v3", geoseg_x86_64_v3);
#endif
    return GEOSEG_TABLE(GEOSEG_BASELINE_NAME, geoseg_baseline);
}

const Table &table() {
    static const Table chosen = choose();
    return chosen;
}

}  // namespace

int32_t geoseg_abi_version(void) { return GEOSEG_ABI_VERSION; }

const char *geoseg_instruction_set(void) { return table().name; }

int32_t geoseg_normalize(const void *values, int32_t dtype, int64_t band_stride,
                         int64_t row_stride, const uint8_t *valid, int64_t valid_row_stride,
                         const float *gain, const float *bias, int64_t bands, int64_t height,
                         int64_t width, float *out) {
    return table().normalize(values, dtype, band_stride, row_stride, valid, valid_row_stride, gain,
                             bias, bands, height, width, out);
}

void geoseg_blend(float *sums, int64_t sums_plane_stride, int64_t sums_row_stride,
                  const struct geoseg_blend_base *base, const float *logits,
                  int64_t logits_plane_stride, int64_t logits_row_stride,
                  int64_t logits_col_stride, const float *weight_y, const float *weight_x,
                  int64_t planes, int64_t height, int64_t width) {
    table().blend(sums, sums_plane_stride, sums_row_stride, base, logits, logits_plane_stride,
                  logits_row_stride, logits_col_stride, weight_y, weight_x, planes, height, width);
}

int64_t geoseg_classify(const float *logits, int64_t plane_stride, int64_t row_stride,
                        int64_t views, int64_t classes, float inverse_temperature,
                        const uint16_t *ids, const uint8_t *valid, int64_t valid_row_stride,
                        int64_t height, int64_t width, const geoseg_class_output *output) {
    return table().classify(logits, plane_stride, row_stride, views, classes, inverse_temperature,
                            ids, valid, valid_row_stride, height, width, output);
}
