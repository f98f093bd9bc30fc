// Scores, weights and weighted sums of the windows of a vector of queries.
//
// Inside of a map neighbouring queries have windows one column apart: what they see at the same
// place of their windows is one unaligned load, and the bias one number. Near a border windows are
// moved inwards and some are the same: lanes then pick from the loaded vector. Either way each
// query meets the keys of its window and no others.
#ifndef GEOSEG_NA2D_WINDOW_H
#define GEOSEG_NA2D_WINDOW_H

#include "na2d.h"

namespace GEOSEG_NAMESPACE {

// The windows of LANES neighbouring queries on the axis of columns.
template <class T>
struct Columns {
    int64_t start;      // first column of the first query's window
    int offset;         // from the first query to there
    bool moved;         // whether lanes have to pick
    Lanes<T> key;       // first column of each query's window, from `start`
    Lanes<T> bias;      // how far left each query's window lies, beyond the first one's

    Columns(int64_t x0, const Planes<T> &p) {
        start = window_start(x0, p.width, p.kernel);
        offset = static_cast<int>(start - x0);
        moved = false;
        for (int lane = 0; lane < LANES_OF<T>; ++lane) {
            const int64_t x = x0 + lane < p.width ? x0 + lane : p.width - 1;
            const int64_t own = window_start(x, p.width, p.kernel);
            key[lane] = static_cast<int>(own - start);
            bias[lane] = static_cast<int>(offset - (own - x));
            moved = moved || key[lane] != lane;
        }
    }
};

// A score or weight for each place of the windows, (kernel, kernel, LANES).
template <class T>
struct Scores {
    T value[LARGEST_KERNEL * LARGEST_KERNEL][LANES_OF<T>];
    Vec<T> most;
};

// Neighbouring rows of queries, and the rows of planes that their windows cover, from the first.
template <class T, int COUNT>
struct Rows {
    int64_t y;
    int64_t start[COUNT];  // first key row of each
    const T *keys[LARGEST_KERNEL + COUNT - 1], *values[LARGEST_KERNEL + COUNT - 1];

    Rows(int64_t first, const Planes<T> &p) : y(first) {
        for (int r = 0; r < COUNT; ++r) start[r] = window_start(y + r, p.height, p.kernel);
    }
    int64_t stop(int64_t kernel) const { return start[COUNT - 1] + kernel; }
};

// The bias table times log2(e), columns reversed: what moved windows see then rises with the lane.
// Vectors are read from its last row, too.
template <class T>
int64_t bias_values(const geoseg_attention &s) {
    const int64_t side = 2 * s.kernel - 1;
    return (s.heads * side * side + 2 * LANES_OF<T>) / LANES_OF<T> * LANES_OF<T>;
}
template <class T>
void reverse_bias(const geoseg_attention &s, T *table) {
    const int64_t side = 2 * s.kernel - 1;
    for (int64_t row = 0; row < s.heads * side; ++row)
        for (int64_t i = 0; i < side; ++i)
            table[row * side + i] = static_cast<const T *>(s.bias)[row * side + side - 1 - i] *
                                    static_cast<T>(1.4426950408889634);
}

template <class T, bool MOVED>
GEOSEG_INLINE Vec<T> load_picked(const T *from, const Lanes<T> &lanes) {
    return MOVED ? pick<T>(load(from), lanes) : load(from);
}

// Places of a window row that are taken together: as many as registers hold the sums of.
template <int ROWS>
constexpr int MOST_TOGETHER = GEOSEG_VECTOR_REGISTERS < 32 ? 6 : ROWS > 2 ? 9 : 13;

// What one row of keys is to ROWS rows of queries.
template <class T, int ROWS>
struct Meeting {
    const T *query[ROWS];         // (dim, LANES)
    const T *bias[ROWS];          // of this row of keys, columns reversed; or null
    T (*to[ROWS])[LANES_OF<T>];   // this row's scores
    Vec<T> *most[ROWS];
};

// q . k of G neighbouring places from one on.
template <class T, int ROWS, int G, bool MOVED>
void score(const Meeting<T, ROWS> &m, const T *key, const Planes<T> &p, const Columns<T> &columns,
           int from) {
    Vec<T> sum[ROWS][G];
    const Lanes<T> lanes = columns.key;
    const int64_t begin = p.kernel - 1 - columns.offset - from;
    for (int r = 0; r < ROWS; ++r)
        for (int i = 0; i < G; ++i) {
            const T *bias = m.bias[r] + begin - i;
            sum[r][i] = !m.bias[r] ? Vec<T>{}
                        : MOVED    ? pick<T>(load(bias), columns.bias)
                                   : splat(*bias);
        }
    key += columns.start + from;
    for (int64_t c = 0; c < p.dim; ++c) {
        Vec<T> query[ROWS];
        for (int r = 0; r < ROWS; ++r) query[r] = load(m.query[r] + c * LANES_OF<T>);
        for (int i = 0; i < G; ++i) {
            Vec<T> own = load_picked<T, MOVED>(key + i, lanes);
            if (ROWS > 1) keep(own);
            for (int r = 0; r < ROWS; ++r) sum[r][i] += query[r] * own;
        }
        key += p.pitch;
    }
    for (int r = 0; r < ROWS; ++r) {
        Vec<T> most = *m.most[r];
        for (int i = 0; i < G; ++i) {
            store(m.to[r][from + i], sum[r][i]);
            most = greater_of<T>(most, sum[r][i]);
        }
        *m.most[r] = most;
    }
}

// All places of a window row, in parts of about the same size.
template <class T, int ROWS, bool MOVED>
void score_row(const Meeting<T, ROWS> &m, const T *key, const Planes<T> &p,
               const Columns<T> &columns) {
    constexpr int MOST = MOST_TOGETHER<ROWS>;
    const int kernel = static_cast<int>(p.kernel);
    for (int from = 0, parts = (kernel + MOST - 1) / MOST; parts > 0; --parts) {
        const int count = (kernel - from + parts - 1) / parts;
        switch (count) {
#define GEOSEG_CASE(n) \
    case n: score<T, ROWS, n < MOST ? n : MOST, MOVED>(m, key, p, columns, from); break;
            GEOSEG_CASE(3)
            GEOSEG_CASE(4)
            GEOSEG_CASE(5)
            GEOSEG_CASE(6)
            GEOSEG_CASE(7)
            GEOSEG_CASE(9)
            GEOSEG_CASE(11)
            GEOSEG_CASE(13)
#undef GEOSEG_CASE
        }
        from += count;
    }
}

// Scores to weights that are not yet divided by their sum; returns 1 / sum.
template <class T>
GEOSEG_INLINE Vec<T> soften(Scores<T> &s, int count) {
    constexpr int TOGETHER = 4;
    Vec<T> sum{};
    int i = 0;
    for (; i + TOGETHER <= count; i += TOGETHER) {
        Vec<T> weight[TOGETHER];
        for (int j = 0; j < TOGETHER; ++j) weight[j] = load(s.value[i + j]) - s.most;
        exp2_all<TOGETHER>(weight);
        for (int j = 0; j < TOGETHER; ++j) {
            store(s.value[i + j], weight[j]);
            sum += weight[j];
        }
    }
    for (; i < count; ++i) {
        const Vec<T> weight = exp2_of(load(s.value[i]) - s.most);
        store(s.value[i], weight);
        sum += weight;
    }
    return splat(T(1)) / sum;
}

// Adds weighted values of D channels from key row `begin` to `end`, which the rows of queries from
// LOW to HIGH see.
template <class T, int COUNT, int D, bool MOVED, int LOW, int HIGH>
GEOSEG_INLINE void add_values(const Rows<T, COUNT> &rows, const Planes<T> &p,
                              const T *const *values, const Scores<T> *weights,
                              const Columns<T> &columns, int64_t channel, int64_t begin,
                              int64_t end, Vec<T> (*sum)[D]) {
    const Lanes<T> lanes = columns.key;
    for (int64_t y = begin; y < end; ++y) {
        const T *value = values[y - rows.start[0]] + channel * p.pitch + columns.start;
        const T(*weight[COUNT])[LANES_OF<T>] = {};
        for (int r = LOW; r < HIGH; ++r)
            weight[r] = weights[r].value + (y - rows.start[r]) * p.kernel;
        for (int64_t i = 0; i < p.kernel; ++i) {
            Vec<T> own[COUNT];
            for (int r = LOW; r < HIGH; ++r) own[r] = load(weight[r][i]);
            for (int d = 0; d < D; ++d) {
                Vec<T> seen = load_picked<T, MOVED>(value + d * p.pitch + i, lanes);
                if (HIGH - LOW > 1) keep(seen);
                for (int r = LOW; r < HIGH; ++r) sum[r][d] += own[r] * seen;
            }
        }
    }
}

// Weighted sums of D channels of values for all rows of queries, out[row][channel][lane].
template <class T, int COUNT, int D, bool MOVED>
void gather_values(const Rows<T, COUNT> &rows, const Planes<T> &p, const T *const *values,
                   const Scores<T> *weights, const Vec<T> *factor, const Columns<T> &columns,
                   int64_t channel, T *out) {
    Vec<T> sum[COUNT][D];
    for (int r = 0; r < COUNT; ++r)
        for (int d = 0; d < D; ++d) sum[r][d] = Vec<T>{};
    // Windows begin one after the other, then all are met, then they end one after the other.
    const int64_t *start = rows.start, kernel = p.kernel;
#define GEOSEG_ADD(low, high, begin, end)                                                       \
    add_values<T, COUNT, D, MOVED, low, high>(rows, p, values, weights, columns, channel, begin, \
                                              end, sum)
    if constexpr (COUNT > 1) GEOSEG_ADD(0, 1, start[0], start[1]);
    if constexpr (COUNT > 2) GEOSEG_ADD(0, 2, start[1], start[2]);
    GEOSEG_ADD(0, COUNT, start[COUNT - 1], start[0] + kernel);
    if constexpr (COUNT > 1) GEOSEG_ADD(1, COUNT, start[0] + kernel, start[1] + kernel);
    if constexpr (COUNT > 2) GEOSEG_ADD(2, COUNT, start[1] + kernel, start[2] + kernel);
#undef GEOSEG_ADD
    for (int r = 0; r < COUNT; ++r)
        for (int d = 0; d < D; ++d)
            store(out + (r * p.dim + channel + d) * LANES_OF<T>, sum[r][d] * factor[r]);
}

// The same for all channels.
template <class T, int COUNT, bool MOVED>
void gather_channels(const Rows<T, COUNT> &rows, const Planes<T> &p, const T *const *values,
                     const Scores<T> *weights, const Vec<T> *factor, const Columns<T> &columns,
                     T *out) {
    constexpr bool MANY = GEOSEG_VECTOR_REGISTERS >= 32;
    constexpr int D = MANY ? 8 : 4;
    int64_t c = 0;
    // Heads of 36 channels, which three networks have, leave no rest then.
    for (; MANY && p.dim % 9 == 0 && c < p.dim; c += 9)
        gather_values<T, COUNT, MANY ? 9 : D, MOVED>(rows, p, values, weights, factor, columns, c,
                                                     out);
    for (; c + D <= p.dim; c += D)
        gather_values<T, COUNT, D, MOVED>(rows, p, values, weights, factor, columns, c, out);
    for (; D > 4 && c + 4 <= p.dim; c += 4)
        gather_values<T, COUNT, 4, MOVED>(rows, p, values, weights, factor, columns, c, out);
    for (; c < p.dim; ++c)
        gather_values<T, COUNT, 1, MOVED>(rows, p, values, weights, factor, columns, c, out);
}

}  // namespace GEOSEG_NAMESPACE

#endif
