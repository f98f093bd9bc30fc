// 2^t and log2(1 + e) of several vectors at once. One vector's polynomial is a chain in which each
// step waits for the one before; COUNT chains go through it side by side and hide the waiting.
#ifndef GEOSEG_POWERS_H
#define GEOSEG_POWERS_H

#include <cmath>

#include "simd.h"

namespace GEOSEG_NAMESPACE {

#if GEOSEG_HAS_VECTORS
typedef int32_t Bits __attribute__((vector_size(GEOSEG_VECTOR_BYTES)));
typedef uint32_t PlainBits __attribute__((vector_size(GEOSEG_VECTOR_BYTES)));
#endif

// p = p t + c for all chains. Compilers may otherwise finish one chain before they start the next.
template <int COUNT>
GEOSEG_INLINE void next_term(Vec<float> *p, const Vec<float> *t, float c) {
    for (int j = 0; j < COUNT; ++j) {
        p[j] = p[j] * t[j] + c;
        if (COUNT > 1) keep(p[j]);
    }
}

// 2^t for t <= 0 and a little above. float: relative error below 2e-8 before rounding; below 2^-126
// the result stays there, which is nothing for every use here. double: exact to the last bits, one
// lane after the other.
template <int COUNT>
GEOSEG_INLINE void exp2_all(Vec<float> *t) {
#if GEOSEG_HAS_VECTORS
    Vec<float> shifted[COUNT], p[COUNT];
    Vec<float> least = splat(-126.0f);
    keep(least);  // compared with a constant, it would not become a maximum
    for (int j = 0; j < COUNT; ++j) {
        // In this order a NaN stays one, of either sign: what has diverged must show.
        t[j] = least > t[j] ? least : t[j];
        shifted[j] = t[j] + 12582912.0f;  // 1.5 * 2^23: its low bits hold the nearest integer
        t[j] = t[j] - (shifted[j] - 12582912.0f);  // [-1/2, 1/2]
        // Exactly 1 at 0: a recurrence multiplies decays near 1 thousands of times, and a bias
        // adds up.
        p[j] = t[j] * 1.53533605e-4f + 1.3398875e-3f;
        if (COUNT > 1) keep(p[j]);
    }
    next_term<COUNT>(p, t, 9.61843692e-3f);
    next_term<COUNT>(p, t, 5.55033237e-2f);
    next_term<COUNT>(p, t, 2.40226477e-1f);
    next_term<COUNT>(p, t, 6.93147182e-1f);
    next_term<COUNT>(p, t, 1.0f);
    for (int j = 0; j < COUNT; ++j)  // adds to the exponent
        t[j] = (Vec<float>)((Bits)p[j] + ((Bits)shifted[j] << 23));
#else
    for (int j = 0; j < COUNT; ++j)
        for (int i = 0; i < LANES_OF<float>; ++i)  // a NaN stays one
            t[j][i] = std::exp2(-126.0f > t[j][i] ? -126.0f : t[j][i]);
#endif
}
template <int COUNT>
GEOSEG_INLINE void exp2_all(Vec<double> *t) {
    for (int j = 0; j < COUNT; ++j) {
        Vec<double> power = t[j];
        for (int i = 0; i < LANES_OF<double>; ++i) power[i] = std::exp2(power[i]);
        t[j] = power;
    }
}
template <class V>
GEOSEG_INLINE V exp2_of(V t) {
    exp2_all<1>(&t);
    return t;
}

// log2(1 + e) for e in [0, 1]; exact to 1e-7 relative also where e is tiny.
template <int COUNT>
GEOSEG_INLINE void log2_1p_all(Vec<float> *e) {
    Vec<float> p[COUNT];
    for (int j = 0; j < COUNT; ++j) p[j] = e[j] * 7.54908081e-3f - 4.25666559e-2f;
    next_term<COUNT>(p, e, 1.12855532e-1f);
    next_term<COUNT>(p, e, -1.97118409e-1f);
    next_term<COUNT>(p, e, 2.75641149e-1f);
    next_term<COUNT>(p, e, -3.58408405e-1f);
    next_term<COUNT>(p, e, 4.80692949e-1f);
    next_term<COUNT>(p, e, -7.21340208e-1f);
    next_term<COUNT>(p, e, 1.442695f);
    for (int j = 0; j < COUNT; ++j) e[j] = p[j] * e[j];
}
template <int COUNT>
GEOSEG_INLINE void log2_1p_all(Vec<double> *e) {
    for (int j = 0; j < COUNT; ++j)
        for (int i = 0; i < LANES_OF<double>; ++i)
            e[j][i] = std::log1p(e[j][i]) * 1.4426950408889634;
}

// -|z| and max(z, 0).
template <class T>
GEOSEG_INLINE Vec<T> minus_size(Vec<T> z) {
    return by_sign<T>(z, -z, z);
}
template <class T>
GEOSEG_INLINE Vec<T> not_below_zero(Vec<T> z) {
    return greater_of<T>(z, Vec<T>{});
}
#if GEOSEG_HAS_VECTORS
template <>
GEOSEG_INLINE Vec<float> minus_size<float>(Vec<float> z) {
    return (Vec<float>)((PlainBits)z | 0x80000000u);
}
template <>
GEOSEG_INLINE Vec<float> not_below_zero<float>(Vec<float> z) {
    const Bits bits = (Bits)z;
    return (Vec<float>)(bits > Bits{} ? bits : Bits{});
}
#endif

}  // namespace GEOSEG_NAMESPACE

#endif
