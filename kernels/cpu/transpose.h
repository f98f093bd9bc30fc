// Squares of values that are turned in registers: lanes become vectors.
#ifndef GEOSEG_TRANSPOSE_H
#define GEOSEG_TRANSPOSE_H

#include <utility>

#include "simd.h"

namespace GEOSEG_NAMESPACE {

#if GEOSEG_HAS_VECTORS

// Where lane i of a mix of two vectors comes from: of N lanes each, the second's count on. Values,
// and pairs of them, alternate within quarters of 16 bytes, which is cheap; whole quarters follow.
template <int N, int HIGH>
struct Singles {
    static constexpr int of(int i) { return i / 4 * 4 + i % 4 / 2 + 2 * HIGH + i % 2 * N; }
};
template <int N, int HIGH>
struct Pairs {
    static constexpr int of(int i) { return i / 4 * 4 + i % 2 + 2 * HIGH + i % 4 / 2 * N; }
};
template <int N, int HIGH>
struct Quarters {
    static constexpr int HALF = N < 8 ? 1 : N / 8;
    static constexpr int of(int i) {
        return (2 * (i / 4 % HALF) + HIGH) * 4 + i % 4 + i / 4 / HALF * N;
    }
};
template <class Order, class V, int... I>
GEOSEG_INLINE V mix(V a, V b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, Order::of(I)...);
}
template <template <int, int> class Order, int HIGH>
GEOSEG_INLINE Vec<float> mix(Vec<float> a, Vec<float> b) {
    constexpr int N = LANES_OF<float>;
    return mix<Order<N, HIGH>>(a, b, std::make_integer_sequence<int, N>{});
}

// Turns the squares of 4 in all quarters of 4 vectors: lane i of vector j becomes lane j of i.
GEOSEG_INLINE void transpose_quarters(Vec<float> *rows) {
    const Vec<float> a = mix<Singles, 0>(rows[0], rows[1]), b = mix<Singles, 1>(rows[0], rows[1]);
    const Vec<float> c = mix<Singles, 0>(rows[2], rows[3]), d = mix<Singles, 1>(rows[2], rows[3]);
    rows[0] = mix<Pairs, 0>(a, c);
    rows[1] = mix<Pairs, 1>(a, c);
    rows[2] = mix<Pairs, 0>(b, d);
    rows[3] = mix<Pairs, 1>(b, d);
}

#else

inline void transpose_quarters(Vec<float> *rows) {
    for (int lane = 0; lane < LANES_OF<float>; ++lane)
        for (int j = 0; j < lane % 4; ++j)
            std::swap(rows[j][lane], rows[lane % 4][lane / 4 * 4 + j]);
}

#endif

// Turns a square of LANES vectors: lane i of vector j becomes lane j of vector i.
template <class T>
GEOSEG_INLINE void transpose(Vec<T> *square) {
    for (int i = 0; i < LANES_OF<T>; ++i)
        for (int j = 0; j < i; ++j) {
            const T kept = square[i][j];
            square[i][j] = square[j][i];
            square[j][i] = kept;
        }
}

#if GEOSEG_HAS_VECTORS
template <>
GEOSEG_INLINE void transpose<float>(Vec<float> *square) {
    constexpr int N = LANES_OF<float>;
    for (int i = 0; i < N; i += 4) transpose_quarters(square + i);
    for (int j = 0; j < 4; ++j) {
        Vec<float> *v = square + j;
        if constexpr (N == 16) {
            const Vec<float> a = mix<Quarters, 0>(v[0], v[4]), b = mix<Quarters, 1>(v[0], v[4]);
            const Vec<float> c = mix<Quarters, 0>(v[8], v[12]), d = mix<Quarters, 1>(v[8], v[12]);
            v[0] = mix<Quarters, 0>(a, c);
            v[4] = mix<Quarters, 0>(b, d);
            v[8] = mix<Quarters, 1>(a, c);
            v[12] = mix<Quarters, 1>(b, d);
        } else if constexpr (N == 8) {
            const Vec<float> a = v[0], b = v[4];
            v[0] = mix<Quarters, 0>(a, b);
            v[4] = mix<Quarters, 1>(a, b);
        }
    }
}
#endif

// Reads 4 neighbouring values of each of LANES columns, which lie `stride` apart, as 4 vectors; and
// the way back.
template <class E>
GEOSEG_INLINE void load_strip(const E *from, int64_t stride, Vec<float> *rows) {
    constexpr int N = LANES_OF<float>;
    E columns[4][N];
    for (int i = 0; i < N; ++i)
        std::memcpy(&columns[i % 4][i / 4 * 4], from + i * stride, 4 * sizeof(E));
    for (int j = 0; j < 4; ++j) rows[j] = load_wide(columns[j]);
    transpose_quarters(rows);
}
template <class E>
GEOSEG_INLINE void store_strip(Vec<float> *rows, E *to, int64_t stride) {
    constexpr int N = LANES_OF<float>;
    E columns[4][N];
    transpose_quarters(rows);
    for (int j = 0; j < 4; ++j) store_narrow(columns[j], rows[j]);
    for (int i = 0; i < N; ++i)
        std::memcpy(to + i * stride, &columns[i % 4][i / 4 * 4], 4 * sizeof(E));
}

}  // namespace GEOSEG_NAMESPACE

#endif
