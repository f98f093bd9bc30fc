// Numbers of the kernels: float32 inside, float32, bfloat16 or float16 in memory, and the functions
// of softplus in units of ln 2. On a GPU 2^x and log2 are single instructions.
#ifndef GEOSEG_CUDA_NUMBERS_H
#define GEOSEG_CUDA_NUMBERS_H

#include "cuda_block.h"

#ifndef __CUDACC__
#include <cmath>
#include <cstring>
#endif

// What is in memory: 0 float32, 1 bfloat16, 2 float16. A module is compiled for one of them.
#ifndef GEOSEG_IO
#define GEOSEG_IO 0
#endif

namespace geoseg {

#define GEOSEG_LOG2E 1.4426950408889634f
#define GEOSEG_LN2 0.6931471805599453f

#ifdef __CUDACC__

GEOSEG_INLINE float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
GEOSEG_INLINE float log2_of(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
GEOSEG_INLINE float inverse_of(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
GEOSEG_INLINE unsigned bits_of(float x) { return __float_as_uint(x); }
GEOSEG_INLINE float float_of(unsigned bits) { return __uint_as_float(bits); }
GEOSEG_INLINE float half_to_float(unsigned short half) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(half));
    return y;
}
GEOSEG_INLINE unsigned short float_to_half(float x) {
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
    return half;
}

#else

// A test adds the error that a device's instruction may have.
#ifndef GEOSEG_EXP2_ERROR
#define GEOSEG_EXP2_ERROR 0.0f
#endif
inline float exp2_of(float x) { return std::exp2(x) * (1.0f + GEOSEG_EXP2_ERROR); }
inline float log2_of(float x) { return std::log2(x); }
inline float inverse_of(float x) { return 1.0f / x; }
inline unsigned bits_of(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float float_of(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline float half_to_float(unsigned short half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    float size = std::ldexp(1024.0f + fraction, exponent - 25);
    if (exponent == 0) size = std::ldexp(static_cast<float>(fraction), -24);
    if (exponent == 31) size = fraction ? NAN : INFINITY;
    return half & 0x8000 ? -size : size;
}
inline unsigned short float_to_half(float x) {
    const unsigned short sign = bits_of(x) >> 16 & 0x8000;
    if (std::isnan(x)) return sign | 0x7e00;
    const float size = std::fabs(x);
    if (size >= 65520.0f) return sign | 0x7c00;
    int exponent;
    std::frexp(size, &exponent);  // size = m * 2^exponent with m in [1/2, 1)
    // The last place of a half is 2^(exponent - 11), of a subnormal one 2^-24.
    const int place = size < 6.103515625e-5f ? -24 : exponent - 11;
    const int count = static_cast<int>(std::nearbyint(std::ldexp(size, -place)));
    if (place == -24) return sign | count;
    return sign | (((place + 25) << 10) + (count - 1024));
}

#endif

#if GEOSEG_IO == 0
typedef float Io;
GEOSEG_INLINE float load_io(const Io *from, int64 i) { return from[i]; }
GEOSEG_INLINE void store_io(Io *to, int64 i, float x) { to[i] = x; }
#else
typedef unsigned short Io;
GEOSEG_INLINE float load_io(const Io *from, int64 i) {
    const Io raw = from[i];
    return GEOSEG_IO == 1 ? float_of(static_cast<unsigned>(raw) << 16) : half_to_float(raw);
}
GEOSEG_INLINE void store_io(Io *to, int64 i, float x) {
    Io raw;
    if (GEOSEG_IO == 1) {
        const unsigned bits = bits_of(x);  // to nearest, ties to even; a NaN stays one
        raw = x != x ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    } else {
        raw = float_to_half(x);
    }
    to[i] = raw;
}
#endif

GEOSEG_INLINE float size_of(float x) { return x < 0.0f ? -x : x; }

// log2(1 + e) for e in [0, 1] as e * P(e): accurate also where e vanishes, which log2 of the
// rounded sum is not. Minimax of degree 9, relative error 1.5e-7 in float32.
GEOSEG_INLINE float log2_1p_of(float e) {
    float p = -4.680119899e-03f;
    p = p * e + 2.863951705e-02f;
    p = p * e - 8.217506303e-02f;
    p = p * e + 1.529782175e-01f;
    p = p * e - 2.208129087e-01f;
    p = p * e + 2.838637566e-01f;
    p = p * e - 3.600120395e-01f;
    p = p * e + 4.808497139e-01f;
    p = p * e - 7.213461127e-01f;
    p = p * e + 1.442695034e+00f;
    return p * e;
}

// softplus(z) / ln 2 from z / ln 2.
GEOSEG_INLINE float softplus2(float z) {
    return (z > 0.0f ? z : 0.0f) + log2_1p_of(exp2_of(-size_of(z)));
}

// The same with its derivative, the logistic function.
GEOSEG_INLINE float softplus2(float z, float &slope) {
    const float e = exp2_of(-size_of(z)), inverse = inverse_of(1.0f + e);
    slope = z > 0.0f ? inverse : e * inverse;
    return (z > 0.0f ? z : 0.0f) + log2_1p_of(e);
}

}  // namespace geoseg

#endif
