// Planes of keys and values, and what a vector of queries sees, for forward and backward attention.
//
// Lanes are neighbouring queries of a row. A key at offset o from each of them is then one unaligned
// load from a plane, and the bias one number. Queries near a border have windows that are moved
// inwards, so a vector there takes every offset that one of its lanes needs and masks the others.
#ifndef GEOSEG_NA2D_H
#define GEOSEG_NA2D_H

#include "attention_window.h"
#include "powers.h"

namespace GEOSEG_NAMESPACE {

// What is added to the score of a key outside of the window; 2 to this power is nothing.
constexpr float MASKED = -1e30f;

// Geometry of the planes (row, channel, column) of one head; columns have room on both sides.
template <class T>
struct Planes {
    int64_t height, width, dim, kernel;
    int64_t lead, pitch;  // columns before the first; columns of a row in all

    explicit Planes(const geoseg_attention &s)
        : height(s.height), width(s.width), dim(s.dim), kernel(s.kernel) {
        constexpr int N = LANES_OF<T>;
        lead = (s.kernel - 1 + N - 1) / N * N;
        pitch = lead + whole_width() + lead;
    }
    int64_t whole_width() const { return (width + LANES_OF<T> - 1) / LANES_OF<T> * LANES_OF<T>; }
    int64_t row(int64_t y) const { return y * dim * pitch + lead; }
    int64_t values() const { return height * dim * pitch; }
};

// The offsets that a vector of queries starting at column x0 needs, and which lanes need which.
template <class T>
struct Offsets {
    int first, count;
    bool masked;
    T add[2 * 13 - 1][LANES_OF<T>];  // 0 or MASKED by offset - first
};
template <class T>
Offsets<T> offsets_at(int64_t x0, const Planes<T> &p) {
    constexpr int N = LANES_OF<T>;
    const int radius = static_cast<int>(p.kernel / 2);
    Offsets<T> o;
    o.masked = x0 < radius || x0 + N > p.width - radius;
    if (!o.masked) {
        o.first = -radius;
        o.count = static_cast<int>(p.kernel);
        return o;
    }
    int least = 13, most = -13;
    for (int64_t x = x0; x < x0 + N && x < p.width; ++x) {
        const int start = static_cast<int>(window_start(x, p.width, p.kernel) - x);
        least = start < least ? start : least;
        most = start > most ? start : most;
    }
    o.first = least;
    o.count = most - least + static_cast<int>(p.kernel);
    for (int i = 0; i < o.count; ++i)
        for (int lane = 0; lane < N; ++lane) {
            const int64_t x = x0 + lane, key = x + o.first + i;
            const int64_t start = window_start(x, p.width, p.kernel);
            const bool inside = x < p.width && key >= start && key < start + p.kernel;
            o.add[i][lane] = inside ? T(0) : static_cast<T>(MASKED);
        }
    return o;
}

// Element strides of one of q, k, v: image, row, column, head; channels are dense.
template <class E>
struct Map {
    const E *values;
    const int64_t *stride;
    const E *at(int64_t image, int64_t y, int64_t x, int64_t head) const {
        return values + image * stride[0] + y * stride[1] + x * stride[2] + head * stride[3];
    }
};

// Reads LANES columns of one row and head as channel rows: to[c * pitch + lane].
template <class E, class T>
GEOSEG_INLINE void gather_row(const E *from, int64_t column_stride, int64_t dim, int columns,
                              T *to, int64_t pitch) {
    constexpr int N = LANES_OF<T>;
    for (int64_t c = 0; c < dim; c += N) {
        // The last square overlaps with the one before, so that it stays inside of the head.
        const int64_t first = dim >= N && c + N > dim ? dim - N : c;
        const int count = dim - first < N ? static_cast<int>(dim - first) : N;
        Vec<T> square[N];
        for (int i = 0; i < N; ++i) {
            if (i >= columns)
                square[i] = Vec<T>{};
            else if (count == N)
                square[i] = load_wide(from + i * column_stride + first);
            else
                square[i] = load_some(from + i * column_stride + first, count);
        }
        transpose<T>(square);
        for (int j = 0; j < count; ++j) store(to + (first + j) * pitch, square[j]);
    }
}

// The way back: channel rows of LANES columns to one row and head of a dense map.
template <class E, class T>
GEOSEG_INLINE void scatter_row(const T *from, int64_t pitch, int64_t dim, int columns, E *to,
                               int64_t column_stride) {
    constexpr int N = LANES_OF<T>;
    for (int64_t c = 0; c < dim; c += N) {
        const int64_t first = dim >= N && c + N > dim ? dim - N : c;
        const int count = dim - first < N ? static_cast<int>(dim - first) : N;
        Vec<T> square[N];
        for (int j = 0; j < N; ++j)
            square[j] = j < count ? load(from + (first + j) * pitch) : Vec<T>{};
        transpose<T>(square);
        for (int i = 0; i < columns; ++i) {
            if (count == N)
                store_narrow(to + i * column_stride + first, square[i]);
            else
                store_some(to + i * column_stride + first, square[i], count);
        }
    }
}

// Sines and cosines of the column angles as channel rows, (dim / 4, 2, whole_width).
template <class T>
void turn_columns(const geoseg_attention &s, const Planes<T> &p, T *table) {
    const T *columns = static_cast<const T *>(s.rope_columns);
    const int64_t pairs = s.dim / 4, whole = p.whole_width();
    for (int64_t i = 0; i < 2 * pairs; ++i)
        for (int64_t x = 0; x < whole; ++x)
            table[i * whole + x] = x < s.width ? columns[x * 2 * pairs + i] : T(0);
}

// Angles of a map: the rows' table as it is given, the columns' from turn_columns.
template <class T>
struct Angles {
    const T *rows, *columns;
    int64_t pairs, whole;
};

// Turns channel pairs of LANES columns: the first half by the row's angles, the second by each
// column's. `sense` 1 turns, -1 turns back.
template <class T>
GEOSEG_INLINE void turn(T *channels, int64_t pitch, const Angles<T> &angles, int64_t y, int64_t x0,
                        T sense) {
    const int64_t pairs = angles.pairs, whole = angles.whole;
    const T *row = angles.rows + y * pairs * 2;
    for (int64_t j = 0; j < 2 * pairs; ++j) {
        const T *column = angles.columns + (j - pairs) * 2 * whole + x0;
        const Vec<T> sin = j < pairs ? splat(row[2 * j]) : load(column);
        const Vec<T> cos = j < pairs ? splat(row[2 * j + 1]) : load(column + whole);
        T *even = channels + 2 * j * pitch, *odd = even + pitch;
        const Vec<T> a = load(even), b = load(odd), turned = sin * sense;
        store(even, a * cos - b * turned);
        store(odd, b * cos + a * turned);
    }
}

// Fills one row of planes from a map, turned if there are angles; the room on both sides becomes 0.
template <class E, class T>
void fill_row(const Planes<T> &p, Map<E> map, int64_t image, int64_t head, int64_t y,
              const Angles<T> *angles, T *planes) {
    constexpr int N = LANES_OF<T>;
    T *row = planes + p.row(y);
    for (int64_t c = 0; c < p.dim; ++c)
        for (int64_t i = 0; i < p.lead; i += N) {
            store(row + c * p.pitch - p.lead + i, Vec<T>{});
            store(row + c * p.pitch + p.whole_width() + i, Vec<T>{});
        }
    for (int64_t x = 0; x < p.width; x += N) {
        const int columns = p.width - x < N ? static_cast<int>(p.width - x) : N;
        gather_row(map.at(image, y, x, head), map.stride[2], p.dim, columns, row + x, p.pitch);
        if (angles) turn(row + x, p.pitch, *angles, y, x, T(1));
    }
}

constexpr int MOST_OFFSETS = 2 * 13 - 1, MOST_ROWS = 13;

// Offsets whose sums fit into the registers together, for two rows of queries.
constexpr int MOST_TOGETHER = (GEOSEG_VECTOR_REGISTERS - 4) / 2 < 13 ? 6 : 13;

// Scores of one vector of queries: [window row][offset].
template <class T>
struct Scores {
    T value[MOST_ROWS][MOST_OFFSETS][LANES_OF<T>];
};

// What scores start from: the bias of a window row, and the mask.
template <class T>
struct Start {
    const T *bias;  // of this row of the table, at the first offset; or null
    const Offsets<T> &offsets;
    GEOSEG_INLINE Vec<T> at(int i) const {
        Vec<T> v = bias ? splat(bias[i]) : Vec<T>{};
        if (offsets.masked) v += load(offsets.add[i]);
        return v;
    }
};

// Adds q . k of G neighbouring offsets and one row of keys, for ROWS rows of queries.
template <class T, int ROWS, int G>
GEOSEG_INLINE void score(const T *const *q, const T *k, int64_t pitch, int64_t dim,
                         const Start<T> *start, int from, T (*const *to)[LANES_OF<T>]) {
    Vec<T> sum[ROWS][G];
    for (int r = 0; r < ROWS; ++r)
        for (int i = 0; i < G; ++i) sum[r][i] = start[r].at(from + i);
    for (int64_t c = 0; c < dim; ++c) {
        Vec<T> query[ROWS];
        for (int r = 0; r < ROWS; ++r) query[r] = load(q[r] + c * LANES_OF<T>);
        const T *key = k + c * pitch;
        for (int i = 0; i < G; ++i) {
            Vec<T> shifted = load(key + i);
            if (ROWS > 1) keep(shifted);
            for (int r = 0; r < ROWS; ++r) sum[r][i] += query[r] * shifted;
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int i = 0; i < G; ++i) store(to[r][from + i], sum[r][i]);
}

template <class T, int ROWS, int G>
GEOSEG_INLINE void score_groups(const T *const *q, const T *k, const Planes<T> &p,
                                const Start<T> *start, int count, T (*const *to)[LANES_OF<T>]) {
    // The last group overlaps with the one before and writes the same again.
    for (int i = 0; i < count; i += G) {
        const int from = i + G > count ? count - G : i;
        score<T, ROWS, G>(q, k + from, p.pitch, p.dim, start, from, to);
    }
}

// Scores of all offsets and one row of keys, in as few groups of equal size as the registers allow.
template <class T, int ROWS>
void score_row(const T *const *q, const T *k, const Planes<T> &p, const Start<T> *start, int count,
               T (*const *to)[LANES_OF<T>]) {
    const int groups = (count + MOST_TOGETHER - 1) / MOST_TOGETHER;
    switch ((count + groups - 1) / groups) {
#define GEOSEG_CASE(G)                                             \
    case G:                                                        \
        score_groups<T, ROWS, G>(q, k, p, start, count, to); \
        break;
        GEOSEG_CASE(3)
        GEOSEG_CASE(4)
        GEOSEG_CASE(5)
#if GEOSEG_VECTOR_REGISTERS >= 32
        GEOSEG_CASE(6)
        GEOSEG_CASE(7)
        GEOSEG_CASE(8)
        GEOSEG_CASE(9)
        GEOSEG_CASE(10)
        GEOSEG_CASE(11)
        GEOSEG_CASE(12)
        default: score_groups<T, ROWS, 13>(q, k, p, start, count, to);
#else
        default: score_groups<T, ROWS, 6>(q, k, p, start, count, to);
#endif
#undef GEOSEG_CASE
    }
}

// Scores to weights that are not yet divided by their sum; returns 1 / sum.
template <class T>
GEOSEG_INLINE Vec<T> soften(Scores<T> &s, int rows, int count) {
    Vec<T> most = load(s.value[0][0]);
    for (int j = 0; j < rows; ++j)
        for (int i = 0; i < count; ++i) most = greater_of<T>(most, load(s.value[j][i]));
    Vec<T> sum{};
    for (int j = 0; j < rows; ++j)
        for (int i = 0; i < count; ++i) {
            const Vec<T> weight = exp2_of(load(s.value[j][i]) - most);
            store(s.value[j][i], weight);
            sum += weight;
        }
    return splat(T(1)) / sum;
}

// Rows of queries with their windows.
struct Rows {
    int64_t y;
    int count;         // 1 or 2
    int64_t start[2];  // first key row of each
};

// Weighted sums of D channels of values, for all rows of queries.
template <class T, int D>
GEOSEG_INLINE void gather_values(const Rows &rows, const Planes<T> &p, const T *v, int64_t channel,
                                 int64_t x0, const Offsets<T> &o, const Scores<T> *weights,
                                 const Vec<T> *inverse, T *out, int64_t out_rows) {
    Vec<T> sum[2][D];
    for (int r = 0; r < 2; ++r)
        for (int d = 0; d < D; ++d) sum[r][d] = Vec<T>{};
    const int64_t stop = rows.start[rows.count - 1] + p.kernel;
    for (int64_t y = rows.start[0]; y < stop; ++y) {
        const T *value = v + p.row(y) + channel * p.pitch + x0 + o.first;
        const bool first = y < rows.start[0] + p.kernel;
        const bool second = rows.count == 2 && y >= rows.start[1];
        if (first && second) {
            const T(*a)[LANES_OF<T>] = weights[0].value[y - rows.start[0]];
            const T(*b)[LANES_OF<T>] = weights[1].value[y - rows.start[1]];
            for (int i = 0; i < o.count; ++i) {
                const Vec<T> wa = load(a[i]), wb = load(b[i]);
                for (int d = 0; d < D; ++d) {
                    Vec<T> shifted = load(value + d * p.pitch + i);
                    keep(shifted);
                    sum[0][d] += wa * shifted;
                    sum[1][d] += wb * shifted;
                }
            }
        } else {
            const int r = first ? 0 : 1;
            const T(*a)[LANES_OF<T>] = weights[r].value[y - rows.start[r]];
            Vec<T> one[D];
            for (int d = 0; d < D; ++d) one[d] = sum[r][d];
            for (int i = 0; i < o.count; ++i) {
                const Vec<T> w = load(a[i]);
                for (int d = 0; d < D; ++d) one[d] += w * load(value + d * p.pitch + i);
            }
            for (int d = 0; d < D; ++d) sum[r][d] = one[d];
        }
    }
    for (int r = 0; r < rows.count; ++r)
        for (int d = 0; d < D; ++d)
            store(out + r * out_rows + (channel + d) * LANES_OF<T>, sum[r][d] * inverse[r]);
}

}  // namespace GEOSEG_NAMESPACE

#endif
