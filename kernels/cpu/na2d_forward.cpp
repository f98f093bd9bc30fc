// Neighbourhood attention. Two rows of queries are taken together: their windows share all rows of
// keys but two, so each loaded key and value serves both.
#include "na2d.h"
#include "threads.h"

namespace GEOSEG_NAMESPACE {

namespace {

// Everything that the queries of one image, head and pair of rows need.
template <class T>
struct Head {
    const T *keys, *values;  // planes
    const T *bias;           // (2k-1, 2k-1) times log2(e), or null
    const Angles<T> *angles; // or null
    T *queries, *out;        // (2, dim, LANES) each
    Scores<T> *scores;       // 2
};

template <class T>
void attend(const Rows &rows, const Planes<T> &p, const Head<T> &head, int64_t x0,
            const Offsets<T> &o) {
    constexpr int N = LANES_OF<T>;
    const int side = static_cast<int>(2 * p.kernel - 1);
    const T *q[2] = {head.queries, head.queries + p.dim * N};
    const int64_t stop = rows.start[rows.count - 1] + p.kernel;
    for (int64_t y = rows.start[0]; y < stop; ++y) {
        const T *key = head.keys + p.row(y) + x0 + o.first;
        Start<T> start[2] = {{nullptr, o}, {nullptr, o}};
        T(*to[2])[N] = {nullptr, nullptr};
        int present[2], count = 0;
        for (int r = 0; r < rows.count; ++r) {
            if (y < rows.start[r] || y >= rows.start[r] + p.kernel) continue;
            const int64_t offset = y - (rows.y + r) + p.kernel - 1;
            if (head.bias) start[count].bias = head.bias + offset * side + o.first + p.kernel - 1;
            to[count] = head.scores[r].value[y - rows.start[r]];
            present[count++] = r;
        }
        if (count == 2)
            score_row<T, 2>(q, key, p, start, o.count, to);
        else
            score_row<T, 1>(q + present[0], key, p, start, o.count, to);
    }
    Vec<T> inverse[2];
    for (int r = 0; r < rows.count; ++r)
        inverse[r] = soften(head.scores[r], static_cast<int>(p.kernel), o.count);
    constexpr int D = GEOSEG_VECTOR_REGISTERS >= 32 ? 8 : 4;
    int64_t c = 0;
    for (; c + D <= p.dim; c += D)
        gather_values<T, D>(rows, p, head.values, c, x0, o, head.scores, inverse, head.out,
                            p.dim * N);
    for (; c + 4 <= p.dim; c += 4)
        gather_values<T, 4>(rows, p, head.values, c, x0, o, head.scores, inverse, head.out,
                            p.dim * N);
    for (; c < p.dim; ++c)
        gather_values<T, 1>(rows, p, head.values, c, x0, o, head.scores, inverse, head.out,
                            p.dim * N);
}

template <class E>
void attend_rows(const geoseg_attention &s, int64_t image, int64_t head_index, int64_t y,
                 const Head<typename Sums<E>::type> &head, E *out) {
    typedef typename Sums<E>::type T;
    constexpr int N = LANES_OF<T>;
    const Planes<T> p(s);
    Rows rows{y, y + 1 < p.height ? 2 : 1, {window_start(y, p.height, p.kernel), 0}};
    rows.start[1] = window_start(y + 1, p.height, p.kernel);
    const Map<E> map{static_cast<const E *>(s.q), s.q_stride};
    const T scale = static_cast<T>(s.scale * 1.4426950408889634);
    for (int64_t x = 0; x < p.width; x += N) {
        const int columns = p.width - x < N ? static_cast<int>(p.width - x) : N;
        for (int r = 0; r < rows.count; ++r) {
            T *query = head.queries + r * p.dim * N;
            gather_row(map.at(image, y + r, x, head_index), map.stride[2], p.dim, columns, query,
                       N);
            if (head.angles) turn(query, N, *head.angles, y + r, x, T(1));
            for (int64_t c = 0; c < p.dim; ++c) store(query + c * N, load(query + c * N) * scale);
        }
        attend(rows, p, head, x, offsets_at(x, p));
        for (int r = 0; r < rows.count; ++r) {
            const int64_t pixel = (image * p.height + y + r) * p.width + x;
            scatter_row(head.out + r * p.dim * N, N, p.dim, columns,
                        out + (pixel * s.heads + head_index) * p.dim, s.heads * p.dim);
        }
    }
}

template <class T>
int64_t thread_values(const Planes<T> &p) {
    return 4 * p.dim * LANES_OF<T> + 2 * sizeof(Scores<T>) / sizeof(T);
}

template <class E>
void run(const geoseg_attention &s, void *y, void *workspace, int32_t threads) {
    typedef typename Sums<E>::type T;
    const Planes<T> p(s);
    const int64_t heads = s.batch * s.heads, side = 2 * s.kernel - 1;
    T *keys = static_cast<T *>(workspace), *values = keys + heads * p.values();
    T *scratch = values + heads * p.values(), *bias = scratch + threads * thread_values(p);
    T *table = bias + s.heads * side * side;
    const Angles<T> turning{static_cast<const T *>(s.rope_rows), table, s.dim / 4,
                            p.whole_width()};
    const Angles<T> *angles = s.rope_rows ? &turning : nullptr;
    if (angles) turn_columns(s, p, table);
    if (s.bias)
        for (int64_t i = 0; i < s.heads * side * side; ++i)
            bias[i] = static_cast<const T *>(s.bias)[i] * static_cast<T>(1.4426950408889634);
    const auto fill = [&](int64_t index, int64_t row) {
        const int64_t image = index / s.heads, h = index % s.heads;
        fill_row(p, Map<E>{static_cast<const E *>(s.k), s.k_stride}, image, h, row, angles,
                 keys + index * p.values());
        fill_row<E, T>(p, Map<E>{static_cast<const E *>(s.v), s.v_stride}, image, h, row, nullptr,
                       values + index * p.values());
    };
    const int64_t pairs = (s.height + 1) / 2;
    const auto compute = [&](int64_t index, int64_t pair) {
        const int64_t h = index % s.heads;
        T *own = scratch + thread_index() * thread_values(p);
        Head<T> head;
        head.keys = keys + index * p.values();
        head.values = values + index * p.values();
        head.bias = s.bias ? bias + h * side * side : nullptr;
        head.angles = angles;
        head.queries = own;
        head.out = own + 2 * p.dim * LANES_OF<T>;
        head.scores = reinterpret_cast<Scores<T> *>(own + 4 * p.dim * LANES_OF<T>);
        attend_rows<E>(s, index / s.heads, h, pair * 2, head, static_cast<E *>(y));
    };
    if (heads % threads == 0 || heads >= 4 * threads) {
        // A head's planes then stay in the cache of the thread that has filled them.
        GEOSEG_PARALLEL_FOR(threads)
        for (int64_t index = 0; index < heads; ++index) {
            for (int64_t row = 0; row < s.height; ++row) fill(index, row);
            for (int64_t pair = 0; pair < pairs; ++pair) compute(index, pair);
        }
        return;
    }
    GEOSEG_PARALLEL_FOR(threads)
    for (int64_t job = 0; job < heads * s.height; ++job) fill(job / s.height, job % s.height);
    GEOSEG_PARALLEL_FOR(threads)
    for (int64_t job = 0; job < heads * pairs; ++job) compute(job / pairs, job % pairs);
}

template <class T>
int64_t workspace_values(const geoseg_attention &s, int32_t threads) {
    const Planes<T> p(s);
    const int64_t side = 2 * s.kernel - 1;
    return 2 * s.batch * s.heads * p.values() + threads * thread_values(p) +
           s.heads * side * side + (s.rope_rows ? s.dim / 2 * p.whole_width() : 0);
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
