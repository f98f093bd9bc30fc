// The exported functions: pick the best compiled instruction set once, then forward.
#include <cstring>

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
    decltype(&geoseg_baseline::halve) halve;
    decltype(&geoseg_baseline::ss2d_workspace) ss2d_workspace;
    decltype(&geoseg_baseline::ss2d) ss2d;
    decltype(&geoseg_baseline::ss2d_backward_workspace) ss2d_backward_workspace;
    decltype(&geoseg_baseline::ss2d_backward) ss2d_backward;
    decltype(&geoseg_baseline::selective_scan_workspace) selective_scan_workspace;
    decltype(&geoseg_baseline::selective_scan) selective_scan;
    decltype(&geoseg_baseline::selective_scan_backward) selective_scan_backward;
    decltype(&geoseg_baseline::na2d_workspace) na2d_workspace;
    decltype(&geoseg_baseline::na2d) na2d;
    decltype(&geoseg_baseline::na2d_backward_workspace) na2d_backward_workspace;
    decltype(&geoseg_baseline::na2d_backward) na2d_backward;
};

#define GEOSEG_TABLE(name, ns)                                                                  \
    Table {                                                                                     \
        name, ns::normalize_any, ns::blend, ns::classify, ns::halve, ns::ss2d_workspace,        \
            ns::ss2d, ns::ss2d_backward_workspace, ns::ss2d_backward, ns::selective_scan_workspace,       \
            ns::selective_scan, ns::selective_scan_backward, ns::na2d_workspace, ns::na2d,      \
            ns::na2d_backward_workspace, ns::na2d_backward                                      \
    }

// What this processor can run, the fastest first. Returns how many.
int supported(Table *tables) {
    int count = 0;
#if defined(GEOSEG_HAVE_X86_64_V3) || defined(GEOSEG_HAVE_X86_64_V4)
    __builtin_cpu_init();
#endif
#ifdef GEOSEG_HAVE_X86_64_V4
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        tables[count++] = GEOSEG_TABLE("x86-64-v4", geoseg_x86_64_v4);
#endif
#ifdef GEOSEG_HAVE_X86_64_V3
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        tables[count++] = GEOSEG_TABLE("x86-64-v3", geoseg_x86_64_v3);
#endif
    tables[count++] = GEOSEG_TABLE(GEOSEG_BASELINE_NAME, geoseg_baseline);
    return count;
}

struct Choice {
    Table tables[3];
    int count, chosen;
    Choice() : count(supported(tables)), chosen(0) {}
};

Choice &choice() {
    static Choice made;
    return made;
}

const Table &table() { return choice().tables[choice().chosen]; }

}  // namespace

int32_t geoseg_abi_version(void) { return GEOSEG_ABI_VERSION; }

const char *geoseg_instruction_set(void) { return table().name; }

int32_t geoseg_use_instruction_set(const char *name) {
    for (int i = 0; i < choice().count; ++i)
        if (std::strcmp(choice().tables[i].name, name) == 0) {
            choice().chosen = i;
            return 0;
        }
    return 1;
}

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

int32_t geoseg_halve(const void *values, int32_t dtype, int64_t row_stride, int64_t height,
                     int64_t width, int32_t rule, int32_t nodata, void *out,
                     int64_t out_row_stride) {
    return table().halve(values, dtype, row_stride, height, width, rule, nodata, out,
                         out_row_stride);
}

int64_t geoseg_ss2d_workspace(const geoseg_ss2d_scan *scan, int32_t threads) {
    return table().ss2d_workspace(scan, threads);
}

int32_t geoseg_ss2d(const geoseg_ss2d_scan *scan, void *y, void *workspace, int32_t threads) {
    return table().ss2d(scan, y, workspace, threads);
}

int64_t geoseg_ss2d_backward_workspace(const geoseg_ss2d_scan *scan) {
    return table().ss2d_backward_workspace(scan);
}

int32_t geoseg_ss2d_backward(const geoseg_ss2d_scan *scan, const void *dy,
                             const geoseg_ss2d_grads *grads, void *workspace, int32_t threads) {
    return table().ss2d_backward(scan, dy, grads, workspace, threads);
}

int64_t geoseg_selective_scan_workspace(const geoseg_sequences *scan, int32_t threads,
                                        int32_t backward) {
    return table().selective_scan_workspace(scan, threads, backward);
}

int32_t geoseg_selective_scan(const geoseg_sequences *scan, void *y, void *workspace,
                              int32_t threads) {
    return table().selective_scan(scan, y, workspace, threads);
}

int32_t geoseg_selective_scan_backward(const geoseg_sequences *scan, const void *dy,
                                       const geoseg_sequence_grads *grads, void *workspace,
                                       int32_t threads) {
    return table().selective_scan_backward(scan, dy, grads, workspace, threads);
}

int64_t geoseg_na2d_workspace(const geoseg_attention *attention, int32_t threads) {
    return table().na2d_workspace(attention, threads);
}

int32_t geoseg_na2d(const geoseg_attention *attention, void *y, void *workspace, int32_t threads) {
    return table().na2d(attention, y, workspace, threads);
}

int64_t geoseg_na2d_backward_workspace(const geoseg_attention *attention, int32_t threads) {
    return table().na2d_backward_workspace(attention, threads);
}

int32_t geoseg_na2d_backward(const geoseg_attention *attention, const void *dy,
                             const geoseg_attention_grads *grads, void *workspace, int32_t threads) {
    return table().na2d_backward(attention, dy, grads, workspace, threads);
}
