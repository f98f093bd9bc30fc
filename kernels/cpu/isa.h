// Each kernel file is compiled once per instruction set, into a namespace of that name.
#ifndef GEOSEG_ISA_H
#define GEOSEG_ISA_H

#include <cstdint>

#include "geoseg_kernels.h"

#ifndef GEOSEG_NAMESPACE
#define GEOSEG_NAMESPACE geoseg_baseline
#endif

#define GEOSEG_DECLARE(name)                                                                     \
    namespace name {                                                                             \
    int32_t normalize_any(const void *, int32_t, int64_t, int64_t, const uint8_t *, int64_t,     \
                          const float *, const float *, int64_t, int64_t, int64_t, float *);     \
    void blend(float *, int64_t, int64_t, const geoseg_blend_base *, const float *, int64_t,     \
               int64_t, int64_t, const float *, const float *, int64_t, int64_t, int64_t);       \
    int64_t classify(const float *, int64_t, int64_t, int64_t, int64_t, float, const uint16_t *, \
                     const uint8_t *, int64_t, int64_t, int64_t, const geoseg_class_output *);   \
    int32_t halve(const void *, int32_t, int64_t, int64_t, int64_t, int32_t, int32_t, void *,    \
                  int64_t);                                                                      \
    int64_t ss2d_workspace(const geoseg_ss2d_scan *, int32_t);                                   \
    int32_t ss2d(const geoseg_ss2d_scan *, void *, void *, int32_t);                             \
    int64_t ss2d_backward_workspace(const geoseg_ss2d_scan *);                                   \
    int32_t ss2d_backward(const geoseg_ss2d_scan *, const void *, const geoseg_ss2d_grads *,     \
                          void *, int32_t);                                                      \
    int64_t selective_scan_workspace(const geoseg_sequences *, int32_t, int32_t);           \
    int32_t selective_scan(const geoseg_sequences *, void *, void *, int32_t);              \
    int32_t selective_scan_backward(const geoseg_sequences *, const void *,                 \
                                    const geoseg_sequence_grads *, void *, int32_t);       \
    int64_t na2d_workspace(const geoseg_attention *, int32_t);                                        \
    int32_t na2d(const geoseg_attention *, void *, void *, int32_t);                                  \
    int64_t na2d_backward_workspace(const geoseg_attention *, int32_t);                               \
    int32_t na2d_backward(const geoseg_attention *, const void *, const geoseg_attention_grads *, void *,  \
                          int32_t);                                                              \
    }

#endif
