// Gradients of neighbourhood attention. A job is one head of one image, so that nobody else adds to
// its keys' and values' gradients and the order of all sums is fixed.
#include "na2d.h"
#include "threads.h"

namespace GEOSEG_NAMESPACE {

namespace {

template <class T>
struct HeadGrads {
    T *keys, *values, *d_keys, *d_values;         // planes
    T *query, *dy, *d_query;                      // (dim, LANES)
    Scores<T> *weights, *d_scores;
    const T *bias;                                // times log2(e), or null
    T *d_bias;                                    // (2k-1, 2k-1), or null
    const Angles<T> *angles;                      // or null
};

// Adds weight times a vector of channel rows to a shifted place in planes.
template <class T>
GEOSEG_INLINE void spread(T *to, int64_t pitch, int64_t dim, Vec<T> weight, const T *from) {
    for (int64_t c = 0; c < dim; ++c)
        store(to + c * pitch, load(to + c * pitch) + weight * load(from + c * LANES_OF<T>));
}

// Weights of the window of one vector of queries, and the gradients of their scores.
template <class T>
void differentiate(const Rows &rows, const Planes<T> &p, const HeadGrads<T> &h, int64_t x0,
                   const Offsets<T> &o) {
    const int side = static_cast<int>(2 * p.kernel - 1), kernel = static_cast<int>(p.kernel);
    const Offsets<T> everywhere{o.first, o.count, false, {}};
    const T *query[1] = {h.query}, *dy[1] = {h.dy};
    for (int j = 0; j < kernel; ++j) {
        const int64_t y = rows.start[0] + j, at = p.row(y) + x0 + o.first;
        Start<T> start[1] = {{nullptr, o}}, none[1] = {{nullptr, everywhere}};
        if (h.bias)
            start[0].bias = h.bias + (y - rows.y + kernel - 1) * side + o.first + kernel - 1;
        T(*to[1])[LANES_OF<T>] = {h.weights->value[j]};
        score_row<T, 1>(query, h.keys + at, p, start, o.count, to);
        to[0] = h.d_scores->value[j];
        score_row<T, 1>(dy, h.values + at, p, none, o.count, to);
    }
    const Vec<T> inverse = soften(*h.weights, kernel, o.count);
    Vec<T> mean{};
    for (int j = 0; j < kernel; ++j)
        for (int i = 0; i < o.count; ++i) {
            const Vec<T> weight = load(h.weights->value[j][i]) * inverse;
            store(h.weights->value[j][i], weight);
            mean += weight * load(h.d_scores->value[j][i]);
        }
    for (int j = 0; j < kernel; ++j)
        for (int i = 0; i < o.count; ++i)
            store(h.d_scores->value[j][i], load(h.weights->value[j][i]) *
                                               (load(h.d_scores->value[j][i]) - mean));
}

template <class T>
void distribute(const Rows &rows, const Planes<T> &p, const HeadGrads<T> &h, int64_t x0,
                const Offsets<T> &o) {
    const int64_t side = 2 * p.kernel - 1;
    for (int64_t j = 0; j < p.kernel; ++j) {
        const int64_t y = rows.start[0] + j, at = p.row(y) + x0 + o.first;
        for (int i = 0; i < o.count; ++i) {
            const Vec<T> weight = load(h.weights->value[j][i]);
            const Vec<T> d_score = load(h.d_scores->value[j][i]);
            spread(h.d_values + at + i, p.pitch, p.dim, weight, h.dy);
            spread(h.d_keys + at + i, p.pitch, p.dim, d_score, h.query);
            if (h.d_bias)
                h.d_bias[(y - rows.y + p.kernel - 1) * side + o.first + i + p.kernel - 1] +=
                    sum_of<T>(d_score);
        }
    }
    const Vec<T> one[1] = {splat(T(1))};
    int64_t c = 0;
    for (; c + 4 <= p.dim; c += 4)
        gather_values<T, 4>(rows, p, h.keys, c, x0, o, h.d_scores, one, h.d_query, 0);
    for (; c < p.dim; ++c)
        gather_values<T, 1>(rows, p, h.keys, c, x0, o, h.d_scores, one, h.d_query, 0);
}

template <class T>
void run_vector(const Planes<T> &p, const HeadGrads<T> &h, const Rows &rows, int64_t x0) {
    const Offsets<T> o = offsets_at(x0, p);
    differentiate(rows, p, h, x0, o);
    distribute(rows, p, h, x0, o);
}

template <class T>
void run_head(const geoseg_attention &s, const T *dy, const geoseg_attention_grads &grads, int64_t image,
              int64_t head, const HeadGrads<T> &h) {
    constexpr int N = LANES_OF<T>;
    const Planes<T> p(s);
    const int64_t dense = s.heads * s.dim;  // from column to column
    const int64_t strides[4] = {p.height * p.width * dense, p.width * dense, dense, s.dim};
    const Map<T> q{static_cast<const T *>(s.q), s.q_stride}, gradient{dy, strides};
    const T scale = static_cast<T>(s.scale * 1.4426950408889634);
    for (int64_t y = 0; y < p.height; ++y) {
        fill_row(p, Map<T>{static_cast<const T *>(s.k), s.k_stride}, image, head, y, h.angles,
                 h.keys);
        fill_row<T, T>(p, Map<T>{static_cast<const T *>(s.v), s.v_stride}, image, head, y, nullptr,
                       h.values);
    }
    for (int64_t i = 0; i < p.values(); ++i) h.d_keys[i] = h.d_values[i] = 0;
    for (int64_t y = 0; y < p.height; ++y) {
        const Rows rows{y, 1, {window_start(y, p.height, p.kernel), 0}};
        for (int64_t x = 0; x < p.width; x += N) {
            const int columns = p.width - x < N ? static_cast<int>(p.width - x) : N;
            gather_row(q.at(image, y, x, head), q.stride[2], p.dim, columns, h.query, N);
            gather_row(gradient.at(image, y, x, head), dense, p.dim, columns, h.dy, N);
            if (h.angles) turn(h.query, N, *h.angles, y, x, T(1));
            for (int64_t c = 0; c < p.dim; ++c)
                store(h.query + c * N, load(h.query + c * N) * scale);
            run_vector(p, h, rows, x);
            for (int64_t c = 0; c < p.dim; ++c)
                store(h.d_query + c * N, load(h.d_query + c * N) * static_cast<T>(s.scale));
            if (h.angles) turn(h.d_query, N, *h.angles, y, x, T(-1));
            T *to = static_cast<T *>(grads.q) + image * strides[0] + y * strides[1] + x * dense +
                    head * s.dim;
            scatter_row(h.d_query, N, p.dim, columns, to, dense);
        }
    }
    const T ln2 = static_cast<T>(0.6931471805599453);  // the queries above hold log2(e)
    for (int64_t y = 0; y < p.height; ++y)
        for (int64_t x = 0; x < p.width; x += N) {
            const int columns = p.width - x < N ? static_cast<int>(p.width - x) : N;
            const int64_t to = image * strides[0] + y * strides[1] + x * dense + head * s.dim;
            T *row = h.d_keys + p.row(y) + x;
            for (int64_t c = 0; c < p.dim; ++c)
                store(row + c * p.pitch, load(row + c * p.pitch) * ln2);
            if (h.angles) turn(row, p.pitch, *h.angles, y, x, T(-1));
            scatter_row(row, p.pitch, p.dim, columns, static_cast<T *>(grads.k) + to, dense);
            scatter_row(h.d_values + p.row(y) + x, p.pitch, p.dim, columns,
                        static_cast<T *>(grads.v) + to, dense);
        }
}

template <class T>
int64_t thread_values(const Planes<T> &p) {
    return 4 * p.values() + 3 * p.dim * LANES_OF<T> + 2 * sizeof(Scores<T>) / sizeof(T);
}

template <class T>
void run(const geoseg_attention &s, const void *dy, const geoseg_attention_grads &grads, void *workspace,
         int32_t threads) {
    constexpr int N = LANES_OF<T>;
    const Planes<T> p(s);
    const int64_t table = (2 * s.kernel - 1) * (2 * s.kernel - 1);
    T *scratch = static_cast<T *>(workspace), *bias = scratch + threads * thread_values(p);
    T *columns = bias + s.heads * table;
    const Angles<T> turning{static_cast<const T *>(s.rope_rows), columns, s.dim / 4,
                            p.whole_width()};
    if (s.rope_rows) turn_columns(s, p, columns);
    if (s.bias)
        for (int64_t i = 0; i < s.heads * table; ++i)
            bias[i] = static_cast<const T *>(s.bias)[i] * static_cast<T>(1.4426950408889634);
    GEOSEG_PARALLEL_FOR(threads)
    for (int64_t job = 0; job < s.batch * s.heads; ++job) {
        const int64_t head = job % s.heads;
        T *own = scratch + thread_index() * thread_values(p);
        HeadGrads<T> h;
        h.keys = own;
        h.values = h.keys + p.values();
        h.d_keys = h.values + p.values();
        h.d_values = h.d_keys + p.values();
        h.query = h.d_values + p.values();
        h.dy = h.query + p.dim * N;
        h.d_query = h.dy + p.dim * N;
        h.weights = reinterpret_cast<Scores<T> *>(h.d_query + p.dim * N);
        h.d_scores = h.weights + 1;
        h.bias = s.bias ? bias + head * table : nullptr;
        h.d_bias = s.bias ? static_cast<T *>(grads.bias) + job * table : nullptr;
        h.angles = s.rope_rows ? &turning : nullptr;
        run_head(s, static_cast<const T *>(dy), grads, job / s.heads, head, h);
    }
}

template <class T>
int64_t workspace_values(const geoseg_attention &s, int32_t threads) {
    const int64_t side = 2 * s.kernel - 1;
    const Planes<T> p(s);
    return threads * thread_values(p) + s.heads * side * side +
           (s.rope_rows ? s.dim / 2 * p.whole_width() : 0);
}

}  // namespace

int64_t na2d_backward_workspace(const geoseg_attention *s, int32_t threads) {
    return s->dtype == GEOSEG_FLOAT64 ? 8 * workspace_values<double>(*s, threads)
                                      : 4 * workspace_values<float>(*s, threads);
}

int32_t na2d_backward(const geoseg_attention *s, const void *dy, const geoseg_attention_grads *grads,
                      void *workspace, int32_t threads) {
    switch (s->dtype) {
        case GEOSEG_FLOAT32: run<float>(*s, dy, *grads, workspace, threads); return 0;
        case GEOSEG_FLOAT64: run<double>(*s, dy, *grads, workspace, threads); return 0;
        default: return 1;
    }
}

}  // namespace GEOSEG_NAMESPACE
