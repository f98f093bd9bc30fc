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
    }

#endif
