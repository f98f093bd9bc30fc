// Neighbourhood attention. Rows of queries are taken in groups: their windows share most rows of
// keys, so each loaded key and value serves all of them. Only the rows of planes that a group needs
// exist, in a ring: a thread walks down its band of the map and fills them on the way.
#include "na2d_window.h"
#include "threads.h"

namespace GEOSEG_NAMESPACE {

namespace {

constexpr int GROUP = GEOSEG_VECTOR_REGISTERS >= 32 ? 3 : 2;

// What the jobs of a call share.
template <class E>
struct Call {
    typedef typename Sums<E>::type T;
    const geoseg_attention &s;
    Planes<T> p;
    const T *bias;           // (heads, 2k-1, 2k-1) times log2(e), columns reversed; or null
    const Angles<T> *angles; // or null
    E *out;

    int64_t ring() const { return p.kernel + GROUP - 1; }
    int64_t groups() const { return (p.height + GROUP - 1) / GROUP; }
    // The last group overlaps with the one before, and computes the same again.
    int64_t first_row(int64_t group) const {
        return group * GROUP + GROUP > p.height ? p.height - GROUP : group * GROUP;
    }
};

// A thread's memory.
template <class T>
struct Scratch {
    T *keys, *values;      // rings of rows
    T *queries, *out;      // (GROUP, dim, LANES) each
    Scores<T> *scores;     // GROUP

    Scratch(const Planes<T> &p, T *from) {
        const int64_t ring = p.values(p.kernel + GROUP - 1);
        scores = reinterpret_cast<Scores<T> *>(from);
        queries = from + GROUP * sizeof(Scores<T>) / sizeof(T);
        out = queries + GROUP * p.dim * LANES_OF<T>;
        keys = out + GROUP * p.dim * LANES_OF<T>;
        values = keys + ring;
    }
    static int64_t size(const Planes<T> &p) {
        return GROUP * sizeof(Scores<T>) / sizeof(T) + 2 * GROUP * p.dim * LANES_OF<T> +
               2 * p.values(p.kernel + GROUP - 1);
    }
};

// Scores of the rows of queries from `first` on that see one row of keys.
template <class T, int ROWS, bool MOVED>
void meet(const Rows<T, GROUP> &rows, const Planes<T> &p, const T *bias, const Scratch<T> &own,
          const Columns<T> &columns, int64_t y, int first) {
    const int64_t side = 2 * p.kernel - 1;
    Meeting<T, ROWS> m;
    for (int r = 0; r < ROWS; ++r) {
        const int64_t row = first + r;
        m.query[r] = own.queries + row * p.dim * LANES_OF<T>;
        m.bias[r] = bias ? bias + (y - (rows.y + row) + p.kernel - 1) * side : nullptr;
        m.to[r] = own.scores[row].value + (y - rows.start[row]) * p.kernel;
        m.most[r] = &own.scores[row].most;
    }
    score_row<T, ROWS, MOVED>(m, rows.keys[y - rows.start[0]], p, columns);
}

template <class T, bool MOVED>
void attend(const Rows<T, GROUP> &rows, const Planes<T> &p, const T *bias, const Scratch<T> &own,
            const Columns<T> &columns) {
    for (int r = 0; r < GROUP; ++r) own.scores[r].most = splat(T(-INFINITY));
    for (int64_t y = rows.start[0]; y < rows.stop(p.kernel); ++y) {
        int first = 0, end = GROUP;
        while (y >= rows.start[first] + p.kernel) ++first;
        while (y < rows.start[end - 1]) --end;
        if (end - first == 1) meet<T, 1, MOVED>(rows, p, bias, own, columns, y, first);
        if (end - first == 2) meet<T, 2, MOVED>(rows, p, bias, own, columns, y, first);
        if constexpr (GROUP > 2)
            if (end - first == 3) meet<T, 3, MOVED>(rows, p, bias, own, columns, y, first);
    }
    Vec<T> inverse[GROUP];
    for (int r = 0; r < GROUP; ++r)
        inverse[r] = soften(own.scores[r], static_cast<int>(p.kernel * p.kernel));
    gather_channels<T, GROUP, MOVED>(rows, p, rows.values, own.scores, inverse, columns, own.out);
}

template <class E, class T>
void attend_rows(const Call<E> &call, int64_t image, int64_t head, const Rows<T, GROUP> &rows,
                 const T *bias, const Scratch<T> &own) {
    constexpr int N = LANES_OF<T>;
    const geoseg_attention &s = call.s;
    const Planes<T> &p = call.p;
    const Map<E> map{static_cast<const E *>(s.q), s.q_stride};
    const T scale = static_cast<T>(s.scale * 1.4426950408889634);
    const int64_t ahead = rows.y + 2 * GROUP <= p.height ? GROUP * map.stride[1] : 0;
    const Turn<T> as_it_is{nullptr, 0, 0, T(1), T(1)};
    for (int64_t x = 0; x < p.width; x += N) {
        const int count = p.width - x < N ? static_cast<int>(p.width - x) : N;
        E *to[GROUP];
        for (int r = 0; r < GROUP; ++r) {
            const int64_t pixel = (image * p.height + rows.y + r) * p.width + x;
            to[r] = call.out + (pixel * s.heads + head) * p.dim;
            each_line(to[r], s.heads * p.dim, p.dim, count, prefetch_own);
            gather_row(map.at(image, rows.y + r, x, head), map.stride[2], p.dim, count, ahead,
                       Turn<T>{call.angles, rows.y + r, x, scale, T(1)},
                       own.queries + r * p.dim * N, N);
        }
        const Columns<T> columns(x, p);
        if (columns.moved)
            attend<T, true>(rows, p, bias, own, columns);
        else
            attend<T, false>(rows, p, bias, own, columns);
        for (int r = 0; r < GROUP; ++r)
            scatter_row(own.out + r * p.dim * N, N, p.dim, count, as_it_is, to[r],
                        s.heads * p.dim);
    }
}

// A band of groups of one head of one image.
template <class E, class T>
void attend_band(const Call<E> &call, int64_t image, int64_t head, int64_t begin, int64_t end,
                 const Scratch<T> &own) {
    const geoseg_attention &s = call.s;
    const Planes<T> &p = call.p;
    const int64_t side = 2 * p.kernel - 1, ring = call.ring();
    const Map<E> k{static_cast<const E *>(s.k), s.k_stride};
    const Map<E> v{static_cast<const E *>(s.v), s.v_stride};
    int64_t filled = window_start(call.first_row(begin), p.height, p.kernel);
    for (int64_t group = begin; group < end; ++group) {
        Rows<T, GROUP> rows(call.first_row(group), p);
        for (; filled < rows.stop(p.kernel); ++filled) {
            const int64_t at = filled % ring * p.row_values();
            fill_row(p, k, image, head, filled, call.angles, own.keys + at);
            fill_row<E, T>(p, v, image, head, filled, nullptr, own.values + at);
        }
        for (int64_t y = rows.start[0]; y < rows.stop(p.kernel); ++y) {
            rows.keys[y - rows.start[0]] = own.keys + y % ring * p.row_values();
            rows.values[y - rows.start[0]] = own.values + y % ring * p.row_values();
        }
        attend_rows(call, image, head, rows,
                    call.bias ? call.bias + head * side * side : nullptr, own);
    }
}

// Into how many bands a head is cut: as few as keep all threads busy, since bands share rows of
// keys, which each fills for itself.
int64_t bands_of(int64_t heads, int64_t height, int64_t kernel, int64_t threads) {
    if (heads % threads == 0 || heads >= 4 * threads) return 1;
    const int64_t most = height / kernel;
    return threads < most ? threads : most;
}

template <class E>
void run(const geoseg_attention &s, void *y, void *workspace, int32_t threads) {
    typedef typename Sums<E>::type T;
    const Planes<T> p(s, false);
    const int64_t size = Scratch<T>::size(p);
    T *scratch = static_cast<T *>(workspace), *bias = scratch + threads * size;
    T *table = bias + bias_values<T>(s);
    const Angles<T> turning{static_cast<const T *>(s.rope_rows), table, s.dim / 4,
                            p.whole_width()};
    if (s.rope_rows) turn_columns(s, p, table);
    if (s.bias) reverse_bias(s, bias);
    const Call<E> call{s, p, s.bias ? bias : nullptr, s.rope_rows ? &turning : nullptr,
                       static_cast<E *>(y)};
    const int64_t heads = s.batch * s.heads, groups = call.groups();
    const int64_t bands = bands_of(heads, s.height, s.kernel, threads);
    GEOSEG_PARALLEL_FOR(threads)
    for (int64_t job = 0; job < heads * bands; ++job) {
        const int64_t index = job / bands, band = job % bands;
        attend_band(call, index / s.heads, index % s.heads, band * groups / bands,
                    (band + 1) * groups / bands,
                    Scratch<T>(p, scratch + thread_index() * size));
    }
}

template <class T>
int64_t workspace_values(const geoseg_attention &s, int32_t threads) {
    const Planes<T> p(s, false);
    return threads * Scratch<T>::size(p) + bias_values<T>(s) +
           (s.rope_rows ? s.dim / 2 * p.whole_width() : 0);
}

}  // namespace

int64_t na2d_workspace(const geoseg_attention *s, int32_t threads) {
    return s->dtype == GEOSEG_FLOAT64 ? 8 * workspace_values<double>(*s, threads)
                                      : 4 * workspace_values<float>(*s, threads);
}

int32_t na2d(const geoseg_attention *s, void *y, void *workspace, int32_t threads) {
    switch (s->dtype) {
        case GEOSEG_FLOAT32: run<float>(*s, y, workspace, threads); return 0;
        case GEOSEG_FLOAT64: run<double>(*s, y, workspace, threads); return 0;
        case GEOSEG_BFLOAT16: run<Bfloat16>(*s, y, workspace, threads); return 0;
        default: return 1;
    }
}

}  // namespace GEOSEG_NAMESPACE
