// Vectors as wide as the instruction set has them, written once for all of them. GCC and Clang
// compile their vector extension; other compilers get plain loops of the same meaning.
#ifndef GEOSEG_SIMD_H
#define GEOSEG_SIMD_H

#include <cstdint>
#include <cstring>

#include "isa.h"

#if defined(__AVX512F__)
#define GEOSEG_VECTOR_BYTES 64
#define GEOSEG_VECTOR_REGISTERS 32
#elif defined(__AVX__)
#define GEOSEG_VECTOR_BYTES 32
#define GEOSEG_VECTOR_REGISTERS 16
#elif defined(__aarch64__)
#define GEOSEG_VECTOR_BYTES 16
#define GEOSEG_VECTOR_REGISTERS 32
#else
#define GEOSEG_VECTOR_BYTES 16
#define GEOSEG_VECTOR_REGISTERS 16
#endif

#if defined(__has_builtin) && !defined(GEOSEG_PLAIN_LOOPS)
#if __has_builtin(__builtin_shufflevector)
#define GEOSEG_HAS_VECTORS 1
#endif
#endif
#ifndef GEOSEG_HAS_VECTORS
#define GEOSEG_HAS_VECTORS 0
#endif
#if GEOSEG_HAS_VECTORS
#define GEOSEG_INLINE inline __attribute__((always_inline))
#else
#define GEOSEG_INLINE inline
#endif

namespace GEOSEG_NAMESPACE {

template <class T>
constexpr int LANES_OF = GEOSEG_VECTOR_BYTES / static_cast<int>(sizeof(T));

#if GEOSEG_HAS_VECTORS

template <class T>
struct VectorOf {
    typedef T type __attribute__((vector_size(GEOSEG_VECTOR_BYTES)));
};
template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
GEOSEG_INLINE Vec<T> splat(T value) {
    return value - Vec<T>{};
}
template <class T>
GEOSEG_INLINE Vec<T> greater_of(Vec<T> a, Vec<T> b) {
    return a > b ? a : b;
}
template <class T>
GEOSEG_INLINE Vec<T> smaller_of(Vec<T> a, Vec<T> b) {
    return a < b ? a : b;
}
// b where x is negative, else a.
template <class T>
GEOSEG_INLINE Vec<T> by_sign(Vec<T> x, Vec<T> a, Vec<T> b) {
    return x < Vec<T>{} ? b : a;
}

#else

template <class T>
struct Vec {
    T lane[LANES_OF<T>];
    T operator[](int i) const { return lane[i]; }
    T &operator[](int i) { return lane[i]; }
};

#define GEOSEG_LANEWISE(op)                                                \
    template <class T>                                                     \
    inline Vec<T> operator op(Vec<T> a, Vec<T> b) {                        \
        for (int i = 0; i < LANES_OF<T>; ++i) a.lane[i] = a.lane[i] op b.lane[i]; \
        return a;                                                          \
    }                                                                      \
    template <class T>                                                     \
    inline Vec<T> operator op(T a, Vec<T> b) {                             \
        for (int i = 0; i < LANES_OF<T>; ++i) b.lane[i] = a op b.lane[i];  \
        return b;                                                          \
    }                                                                      \
    template <class T>                                                     \
    inline Vec<T> operator op(Vec<T> a, T b) {                             \
        for (int i = 0; i < LANES_OF<T>; ++i) a.lane[i] = a.lane[i] op b;  \
        return a;                                                          \
    }                                                                      \
    template <class T, class U>                                            \
    inline Vec<T> &operator op##=(Vec<T> &a, U b) {                        \
        a = a op b;                                                        \
        return a;                                                          \
    }
GEOSEG_LANEWISE(+)
GEOSEG_LANEWISE(-)
GEOSEG_LANEWISE(*)
GEOSEG_LANEWISE(/)
#undef GEOSEG_LANEWISE

template <class T>
inline Vec<T> operator-(Vec<T> a) {
    for (int i = 0; i < LANES_OF<T>; ++i) a.lane[i] = -a.lane[i];
    return a;
}
template <class T>
inline Vec<T> splat(T value) {
    Vec<T> a;
    for (int i = 0; i < LANES_OF<T>; ++i) a.lane[i] = value;
    return a;
}
template <class T>
inline Vec<T> greater_of(Vec<T> a, Vec<T> b) {
    for (int i = 0; i < LANES_OF<T>; ++i) a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}
template <class T>
inline Vec<T> smaller_of(Vec<T> a, Vec<T> b) {
    for (int i = 0; i < LANES_OF<T>; ++i) a.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}
template <class T>
inline Vec<T> by_sign(Vec<T> x, Vec<T> a, Vec<T> b) {
    for (int i = 0; i < LANES_OF<T>; ++i) a.lane[i] = x.lane[i] < 0 ? b.lane[i] : a.lane[i];
    return a;
}

#endif

template <class T>
GEOSEG_INLINE Vec<T> load(const T *from) {
    Vec<T> v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
template <class T>
GEOSEG_INLINE void store(T *to, Vec<T> v) {
    std::memcpy(to, &v, sizeof v);
}
// Which lane each lane takes its value from.
#if GEOSEG_HAS_VECTORS
template <class T>
struct LanesOf;
template <>
struct LanesOf<float> {
    typedef int32_t type __attribute__((vector_size(GEOSEG_VECTOR_BYTES)));
};
template <>
struct LanesOf<double> {
    typedef int64_t type __attribute__((vector_size(GEOSEG_VECTOR_BYTES)));
};
template <class T>
using Lanes = typename LanesOf<T>::type;
template <class T>
GEOSEG_INLINE Vec<T> pick(Vec<T> v, Lanes<T> lanes) {
#if defined(__clang__)
    return __builtin_shufflevector(v, lanes);
#else
    return __builtin_shuffle(v, lanes);
#endif
}
#else
template <class T>
struct Lanes {
    int lane[LANES_OF<T>];
    int operator[](int i) const { return lane[i]; }
    int &operator[](int i) { return lane[i]; }
};
template <class T>
inline Vec<T> pick(Vec<T> v, Lanes<T> lanes) {
    Vec<T> picked;
    for (int i = 0; i < LANES_OF<T>; ++i) picked[i] = v[lanes[i]];
    return picked;
}
#endif

// Keeps a loaded vector in a register: compilers like to load it again for each of its uses, and an
// unaligned load costs as much as the multiply-add that it feeds.
template <class V>
GEOSEG_INLINE void keep(V &v) {
#if GEOSEG_HAS_VECTORS && defined(__x86_64__)
    __asm__("" : "+v"(v));
#elif GEOSEG_HAS_VECTORS && defined(__aarch64__)
    __asm__("" : "+w"(v));
#else
    (void)v;
#endif
}
GEOSEG_INLINE void prefetch(const void *address) {
#if GEOSEG_HAS_VECTORS
    __builtin_prefetch(address);
#else
    (void)address;
#endif
}
// For writing.
GEOSEG_INLINE void prefetch_own(void *address) {
#if GEOSEG_HAS_VECTORS
    __builtin_prefetch(address, 1);
#else
    (void)address;
#endif
}
template <class T>
GEOSEG_INLINE T sum_of(Vec<T> v) {
    T lane[LANES_OF<T>];
    store(lane, v);
    for (int step = LANES_OF<T> / 2; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) lane[i] += lane[i + step];
    return lane[0];
}

// bfloat16 is the upper half of a float.
struct Bfloat16 {
    uint16_t bits;
};
GEOSEG_INLINE float widen(Bfloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}
GEOSEG_INLINE float widen(float value) { return value; }
GEOSEG_INLINE double widen(double value) { return value; }
GEOSEG_INLINE void narrow(float value, Bfloat16 *to) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    bits += 0x7fffu + ((bits >> 16) & 1u);  // to the nearest, ties to even
    to->bits = is_nan ? 0x7fc0 : static_cast<uint16_t>(bits >> 16);
}
GEOSEG_INLINE void narrow(float value, float *to) { *to = value; }
GEOSEG_INLINE void narrow(double value, double *to) { *to = value; }

// The type that sums are kept in.
template <class E>
struct Sums {
    typedef E type;
};
template <>
struct Sums<Bfloat16> {
    typedef float type;
};

// A vector of neighbours in memory, whatever type they are stored in.
GEOSEG_INLINE Vec<float> load_wide(const float *from) { return load(from); }
GEOSEG_INLINE Vec<double> load_wide(const double *from) { return load(from); }
GEOSEG_INLINE Vec<float> load_wide(const Bfloat16 *from) {
#if GEOSEG_HAS_VECTORS
    typedef uint16_t Half __attribute__((vector_size(GEOSEG_VECTOR_BYTES / 2)));
    typedef uint32_t Bits __attribute__((vector_size(GEOSEG_VECTOR_BYTES)));
    Half half;
    std::memcpy(&half, from, sizeof half);
    return (Vec<float>)(__builtin_convertvector(half, Bits) << 16);
#else
    Vec<float> v;
    for (int i = 0; i < LANES_OF<float>; ++i) v[i] = widen(from[i]);
    return v;
#endif
}
GEOSEG_INLINE void store_narrow(float *to, Vec<float> v) { store(to, v); }
GEOSEG_INLINE void store_narrow(double *to, Vec<double> v) { store(to, v); }
GEOSEG_INLINE void store_narrow(Bfloat16 *to, Vec<float> v) {
#if GEOSEG_HAS_VECTORS
    typedef uint16_t Half __attribute__((vector_size(GEOSEG_VECTOR_BYTES / 2)));
    typedef uint32_t Bits __attribute__((vector_size(GEOSEG_VECTOR_BYTES)));
    const Bits bits = (Bits)v;
    const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Bits kept = v == v ? rounded : Bits{} + 0x7fc0u;
    const Half half = __builtin_convertvector(kept, Half);
    std::memcpy(to, &half, sizeof half);
#else
    for (int i = 0; i < LANES_OF<float>; ++i) narrow(v[i], to + i);
#endif
}
// The first `count` lanes only; the others are 0, or are left as they are in memory.
template <class E>
GEOSEG_INLINE auto load_some(const E *from, int count) {
    typedef typename Sums<E>::type T;
    T lane[LANES_OF<T>] = {};
    for (int i = 0; i < count; ++i) lane[i] = widen(from[i]);
    return load(lane);
}
template <class E, class V>
GEOSEG_INLINE void store_some(E *to, V v, int count) {
    for (int i = 0; i < count; ++i) narrow(v[i], to + i);
}

}  // namespace GEOSEG_NAMESPACE

#endif
