// What the forward and the backward scan share: reading a block of channels and one time step.
#ifndef GEOSEG_SS2D_H
#define GEOSEG_SS2D_H

#include "powers.h"
#include "scan_order.h"

namespace GEOSEG_NAMESPACE {

// The parameters of one direction for LANES channels, those of absent channels 0.
template <class T>
struct ScanWeights {
    const T *dt;  // rank rows of LANES, times log2(e)
    Vec<T> bias;  // times log2(e)
    Vec<T> decay; // -exp(A_logs)
};

template <class T>
ScanWeights<T> pack_weights(const geoseg_ss2d_scan &s, int direction, int64_t first, int lanes,
                            T *dt) {
    const T *weight = static_cast<const T *>(s.dt_weight) + direction * s.channels * s.rank;
    const T *bias = static_cast<const T *>(s.dt_bias) + direction * s.channels;
    const T *logs = static_cast<const T *>(s.a_logs) + direction * s.channels;
    const T log2e = static_cast<T>(1.4426950408889634);
    for (int64_t r = 0; r < s.rank; ++r)
        for (int i = 0; i < LANES_OF<T>; ++i)
            dt[r * LANES_OF<T> + i] = i < lanes ? log2e * weight[(first + i) * s.rank + r] : T(0);
    T lane_bias[LANES_OF<T>], lane_decay[LANES_OF<T>];
    for (int i = 0; i < LANES_OF<T>; ++i) {
        lane_bias[i] = i < lanes ? log2e * bias[first + i] : T(0);
        lane_decay[i] = i < lanes ? -std::exp(logs[first + i]) : T(0);
    }
    return {dt, load(lane_bias), load(lane_decay)};
}

// Sum of the four directions' skip weights.
template <class T>
Vec<T> pack_skips(const geoseg_ss2d_scan &s, int64_t first, int lanes) {
    const T *skip = static_cast<const T *>(s.ds);
    T sum[LANES_OF<T>] = {};
    for (int k = 0; k < DIRECTIONS; ++k)
        for (int i = 0; i < lanes; ++i) sum[i] += skip[k * s.channels + first + i];
    return load(sum);
}

// softplus in units of ln 2, from z times log2(e); e is what the logistic function needs.
template <class T>
struct Softplus {
    Vec<T> value, e;
};
// Turns z into the values; e gets what the logistic function needs.
template <class T, int COUNT>
GEOSEG_INLINE void softplus2_all(Vec<T> *z, Vec<T> *e) {
    Vec<T> logs[COUNT];
    for (int j = 0; j < COUNT; ++j) e[j] = minus_size<T>(z[j]);
    exp2_all<COUNT>(e);
    for (int j = 0; j < COUNT; ++j) logs[j] = e[j];
    log2_1p_all<COUNT>(logs);
    for (int j = 0; j < COUNT; ++j) z[j] = not_below_zero<T>(z[j]) + logs[j];
}
template <class T>
GEOSEG_INLINE Softplus<T> softplus2(Vec<T> z) {
    Softplus<T> plus{z, {}};
    softplus2_all<T, 1>(&plus.value, &plus.e);
    return plus;
}

// A channel block of the map: in place where it is dense and wide enough, else a copy.
template <class T>
struct Block {
    const T *values;
    int64_t stride;  // from pixel to pixel
};
template <class E, class T>
Block<T> block_of(const E *map, int64_t pixels, int64_t channels, int64_t first, int lanes,
                  T *copy) {
    if constexpr (sizeof(E) == sizeof(T))
        if (lanes == LANES_OF<T>) return {reinterpret_cast<const T *>(map) + first, channels};
    for (int64_t p = 0; p < pixels; ++p) {
        const E *from = map + p * channels + first;
        store(copy + p * LANES_OF<T>,
              lanes == LANES_OF<T> ? load_wide(from) : load_some(from, lanes));
    }
    return {copy, LANES_OF<T>};
}

// Steps whose exponentials are in flight together.
constexpr int STEPS = GEOSEG_VECTOR_REGISTERS >= 32 ? 8 : 6;

// What a direction reads of a channel block.
template <class T>
struct Direction {
    const geoseg_ss2d_scan &s;
    const T *q;            // of the image and the direction
    ScanWeights<T> w;
    const int32_t *order;  // of columns
    Block<T> x;
    int64_t length, per_pixel;
};

// Takes COUNT steps from one on; `finish` is told each step's place in the forward order, pixel, x,
// state and C. Returns the last state.
template <class T, int COUNT, bool COLUMNS, bool BACKWARDS, class Finish>
GEOSEG_INLINE Vec<T> advance(const Direction<T> &d, int64_t step, Vec<T> h, Finish finish) {
    const T ln2 = static_cast<T>(0.6931471805599453);
    const int64_t rank = d.s.rank;
    int64_t place[COUNT], pixel[COUNT];
    const T *row[COUNT];
    Vec<T> z[COUNT], decay[COUNT], x[COUNT];
    for (int j = 0; j < COUNT; ++j) {
        place[j] = BACKWARDS ? d.length - 1 - step - j : step + j;
        pixel[j] = COLUMNS ? d.order[place[j]] : place[j];
        row[j] = d.q + pixel[j] * d.per_pixel;
        z[j] = d.w.bias;
    }
    for (int64_t r = 0; r < rank; ++r) {
        const Vec<T> weight = load(d.w.dt + r * LANES_OF<T>);
        for (int j = 0; j < COUNT; ++j) z[j] += weight * row[j][r];
    }
    softplus2_all<T, COUNT>(z, decay);
    for (int j = 0; j < COUNT; ++j) decay[j] = d.w.decay * z[j];
    exp2_all<COUNT>(decay);
    for (int j = 0; j < COUNT; ++j) {
        x[j] = load(d.x.values + pixel[j] * d.x.stride);
        h = decay[j] * h + z[j] * (row[j][rank] * ln2) * x[j];
        finish(place[j], pixel[j], x[j], h, row[j][rank + 1]);
    }
    return h;
}

template <class T, bool COLUMNS, bool BACKWARDS, class Finish>
void scan_direction(const Direction<T> &d, Finish finish) {
    Vec<T> h{};
    int64_t step = 0;
    for (; step + STEPS <= d.length; step += STEPS) {
        // A column's pixels lie far apart: what hardware does not foresee.
        const int64_t ahead = step + 4 * STEPS;
        for (int j = 0; COLUMNS && j < STEPS && ahead + j < d.length; ++j) {
            const int64_t next = d.order[BACKWARDS ? d.length - 1 - ahead - j : ahead + j];
            prefetch(d.x.values + next * d.x.stride);
            prefetch(d.q + next * d.per_pixel);
        }
        h = advance<T, STEPS, COLUMNS, BACKWARDS>(d, step, h, finish);
    }
    for (; step < d.length; ++step) h = advance<T, 1, COLUMNS, BACKWARDS>(d, step, h, finish);
}

}  // namespace GEOSEG_NAMESPACE

#endif
