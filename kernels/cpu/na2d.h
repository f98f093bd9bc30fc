// Planes of keys and values, and how maps are turned into them, for forward and backward attention.
//
// Lanes are neighbouring queries of a row; planes are (row, channel, column), so that what these
// queries see at the same place of their windows lies side by side.
#ifndef GEOSEG_NA2D_H
#define GEOSEG_NA2D_H

#include "attention_window.h"
#include "powers.h"
#include "transpose.h"

namespace GEOSEG_NAMESPACE {

constexpr int LARGEST_KERNEL = 13;

// Geometry of the planes of one head.
template <class T>
struct Planes {
    int64_t height, width, dim, kernel;
    int64_t lead, pitch;  // columns before the first; columns of a row in all

    // With room, columns can be written that lie a window beside the map.
    Planes(const geoseg_attention &s, bool room)
        : height(s.height), width(s.width), dim(s.dim), kernel(s.kernel) {
        constexpr int N = LANES_OF<T>;
        lead = room ? (s.kernel - 1 + N - 1) / N * N : 0;
        pitch = lead + whole_width() + lead;
        // An odd number of vectors: channels of one column then spread over the whole cache.
        if (!room && pitch > 2 * N) pitch += (pitch / N + 1) % 2 * N;
    }
    int64_t whole_width() const { return (width + LANES_OF<T> - 1) / LANES_OF<T> * LANES_OF<T>; }
    int64_t row_values() const { return dim * pitch; }
    // So many rows, and a vector that may be read beyond them.
    int64_t values(int64_t rows) const { return rows * row_values() + LANES_OF<T>; }
};

// Element strides of one of q, k, v: image, row, column, head; channels are dense.
template <class E>
struct Map {
    const E *values;
    const int64_t *stride;
    const E *at(int64_t image, int64_t y, int64_t x, int64_t head) const {
        return values + image * stride[0] + y * stride[1] + x * stride[2] + head * stride[3];
    }
};

// Angles of a map: the rows' table as it is given, the columns' from turn_columns.
template <class T>
struct Angles {
    const T *rows, *columns;
    int64_t pairs, whole;
};

// Sines and cosines of the column angles as channel rows, (dim / 4, 2, whole_width).
template <class T>
void turn_columns(const geoseg_attention &s, const Planes<T> &p, T *table) {
    const T *columns = static_cast<const T *>(s.rope_columns);
    const int64_t pairs = s.dim / 4, whole = p.whole_width();
    for (int64_t i = 0; i < 2 * pairs; ++i)
        for (int64_t x = 0; x < whole; ++x)
            table[i * whole + x] = x < s.width ? columns[x * 2 * pairs + i] : T(0);
}

// What happens to the channels of LANES columns on their way between a map and planes: pairs turn,
// those of the first half by the row's angles, of the second by each column's; and all are scaled.
template <class T>
struct Turn {
    const Angles<T> *angles;  // or null
    int64_t y, x0;
    T scale;
    T sense;  // 1 turns, -1 turns back

    // `rows` are `count` channels from `first` on.
    GEOSEG_INLINE void operator()(int64_t first, int count, Vec<T> *rows) const {
        if (!angles) {
            if (scale != T(1))
                for (int j = 0; j < count; ++j) rows[j] = rows[j] * scale;
            return;
        }
        const T *row = angles->rows + y * angles->pairs * 2;
        for (int j = 0; j + 1 < count; j += 2) {
            const int64_t pair = (first + j) / 2, beyond = pair - angles->pairs;
            Vec<T> sin, cos;
            if (beyond < 0) {
                sin = splat(row[2 * pair]);
                cos = splat(row[2 * pair + 1]);
            } else {
                const T *column = angles->columns + beyond * 2 * angles->whole + x0;
                sin = load(column);
                cos = load(column + angles->whole);
            }
            sin = sin * (scale * sense);
            cos = cos * scale;
            const Vec<T> even = rows[j], odd = rows[j + 1];
            rows[j] = even * cos - odd * sin;
            rows[j + 1] = odd * cos + even * sin;
        }
    }
};

// Whether the last channels of a row, fewer than a square has, are better taken by fours.
template <class T>
constexpr bool by_strips(int64_t channels) {
    return sizeof(T) == sizeof(float) && channels <= LANES_OF<T> / 2 && channels % 4 == 0;
}

// Calls `touch` with an address in each cache line of `columns` columns of one row and head: heads
// are small pieces far apart, which hardware does not foresee.
template <class E, class Touch>
GEOSEG_INLINE void each_line(E *from, int64_t column_stride, int64_t dim, int columns,
                             Touch touch) {
    constexpr int64_t LINE = 64 / sizeof(E);
    for (int i = 0; i < columns; ++i) {
        for (int64_t c = 0; c < dim; c += LINE) touch(from + i * column_stride + c);
        touch(from + i * column_stride + dim - 1);
    }
}

// Reads LANES columns of one row and head as channel rows: to[c * pitch + lane]. What lies `ahead`
// is needed next.
template <class E, class T>
GEOSEG_INLINE void gather_row(const E *from, int64_t column_stride, int64_t dim, int columns,
                              int64_t ahead, const Turn<T> &turn, T *to, int64_t pitch) {
    constexpr int N = LANES_OF<T>;
    if (ahead) each_line(from + ahead, column_stride, dim, columns, prefetch);
    int64_t c = 0;
    Vec<T> square[N];
    for (; columns == N && c + N <= dim; c += N) {
        for (int i = 0; i < N; ++i) square[i] = load_wide(from + i * column_stride + c);
        transpose<T>(square);
        turn(c, N, square);
        for (int j = 0; j < N; ++j) store(to + (c + j) * pitch, square[j]);
    }
    if constexpr (sizeof(T) == sizeof(float))
        for (; columns == N && c < dim && by_strips<T>(dim - c); c += 4) {
            load_strip(from + c, column_stride, square);
            turn(c, 4, square);
            for (int j = 0; j < 4; ++j) store(to + (c + j) * pitch, square[j]);
        }
    for (; c < dim; c += N) {
        // The last square overlaps with the one before, so that it stays inside of the head.
        const int64_t first = dim >= N && c + N > dim ? dim - N : c;
        const int count = dim - first < N ? static_cast<int>(dim - first) : N;
        for (int i = 0; i < N; ++i)
            square[i] = i >= columns ? Vec<T>{}
                        : count == N ? load_wide(from + i * column_stride + first)
                                     : load_some(from + i * column_stride + first, count);
        transpose<T>(square);
        turn(first, count, square);
        for (int j = 0; j < count; ++j) store(to + (first + j) * pitch, square[j]);
    }
}

// The way back: channel rows of LANES columns to one row and head of a dense map.
template <class E, class T>
GEOSEG_INLINE void scatter_row(const T *from, int64_t pitch, int64_t dim, int columns,
                               const Turn<T> &turn, E *to, int64_t column_stride) {
    constexpr int N = LANES_OF<T>;
    int64_t c = 0;
    Vec<T> square[N];
    for (; columns == N && c + N <= dim; c += N) {
        for (int j = 0; j < N; ++j) square[j] = load(from + (c + j) * pitch);
        turn(c, N, square);
        transpose<T>(square);
        for (int i = 0; i < N; ++i) store_narrow(to + i * column_stride + c, square[i]);
    }
    if constexpr (sizeof(T) == sizeof(float))
        for (; columns == N && c < dim && by_strips<T>(dim - c); c += 4) {
            for (int j = 0; j < 4; ++j) square[j] = load(from + (c + j) * pitch);
            turn(c, 4, square);
            store_strip(square, to + c, column_stride);
        }
    for (; c < dim; c += N) {
        const int64_t first = dim >= N && c + N > dim ? dim - N : c;
        const int count = dim - first < N ? static_cast<int>(dim - first) : N;
        for (int j = 0; j < N; ++j)
            square[j] = j < count ? load(from + (first + j) * pitch) : Vec<T>{};
        turn(first, count, square);
        transpose<T>(square);
        for (int i = 0; i < columns; ++i)
            if (count == N)
                store_narrow(to + i * column_stride + first, square[i]);
            else
                store_some(to + i * column_stride + first, square[i], count);
    }
}

// Fills one row of planes from a map, turned if there are angles.
template <class E, class T>
void fill_row(const Planes<T> &p, Map<E> map, int64_t image, int64_t head, int64_t y,
              const Angles<T> *angles, T *row) {
    constexpr int N = LANES_OF<T>;
    const int64_t ahead = y + 1 < p.height ? map.stride[1] : 0;
    for (int64_t x = 0; x < p.width; x += N) {
        const int columns = p.width - x < N ? static_cast<int>(p.width - x) : N;
        gather_row(map.at(image, y, x, head), map.stride[2], p.dim, columns, ahead,
                   Turn<T>{angles, y, x, T(1), T(1)}, row + p.lead + x, p.pitch);
    }
}

}  // namespace GEOSEG_NAMESPACE

#endif
