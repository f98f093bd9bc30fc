// Gradients of neighbourhood attention. A job is one head of one image, so that nobody else adds to
// its keys' and values' gradients and the order of all sums is fixed.
#include "na2d_window.h"
#include "threads.h"

namespace GEOSEG_NAMESPACE {

namespace {

template <class T>
struct HeadGrads {
    T *keys, *values, *d_keys, *d_values;         // planes
    T *query, *dy, *d_query;                      // (dim, LANES)
    Scores<T> *weights, *d_scores;
    const T *bias;                                // times log2(e), columns reversed; or null
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
template <class T, bool MOVED>
void differentiate(const Rows<T, 1> &rows, const Planes<T> &p, const HeadGrads<T> &h,
                   const Columns<T> &columns) {
    const int64_t side = 2 * p.kernel - 1, kernel = p.kernel;
    const int places = static_cast<int>(kernel * kernel);
    h.weights->most = h.d_scores->most = splat(T(-INFINITY));
    for (int64_t j = 0; j < kernel; ++j) {
        const int64_t offset = rows.start[0] + j - rows.y + kernel - 1;
        const T *bias = h.bias ? h.bias + offset * side : nullptr;
        score_row<T, 1, MOVED>({{h.query}, {bias}, {h.weights->value + j * kernel},
                                {&h.weights->most}}, rows.keys[j], p, columns);
        score_row<T, 1, MOVED>({{h.dy}, {nullptr}, {h.d_scores->value + j * kernel},
                                {&h.d_scores->most}}, rows.values[j], p, columns);
    }
    const Vec<T> inverse = soften(*h.weights, places);
    Vec<T> mean{};
    for (int i = 0; i < places; ++i) {
        const Vec<T> weight = load(h.weights->value[i]) * inverse;
        store(h.weights->value[i], weight);
        mean += weight * load(h.d_scores->value[i]);
    }
    for (int i = 0; i < places; ++i)
        store(h.d_scores->value[i],
              load(h.weights->value[i]) * (load(h.d_scores->value[i]) - mean));
}

// A row of windows by offset from the query in place of place in the window: what lanes add to then
// lies side by side also where windows have been moved. Offsets that a lane does not see are 0.
template <class T>
struct ByOffset {
    int first, count;
    const T (*value)[LANES_OF<T>];
    T own[2 * LARGEST_KERNEL - 1][LANES_OF<T>];

    ByOffset(const T (*row)[LANES_OF<T>], const Columns<T> &columns, int kernel, int lanes)
        : first(columns.offset), count(kernel), value(row) {
        if (!columns.moved) return;
        int furthest = 0;
        for (int lane = 0; lane < lanes; ++lane)
            if (columns.bias[lane] > furthest) furthest = static_cast<int>(columns.bias[lane]);
        first -= furthest;
        count += furthest;
        value = own;
        for (int i = 0; i < count; ++i) store(own[i], Vec<T>{});
        for (int lane = 0; lane < lanes; ++lane)
            for (int i = 0; i < kernel; ++i)
                own[furthest - columns.bias[lane] + i][lane] = row[i][lane];
    }
    ByOffset(const ByOffset &) = delete;
};

template <class T>
void distribute(const Rows<T, 1> &rows, const Planes<T> &p, const HeadGrads<T> &h, int64_t x0,
                const Columns<T> &columns) {
    const int64_t side = 2 * p.kernel - 1;
    const int kernel = static_cast<int>(p.kernel);
    const int lanes = p.width - x0 < LANES_OF<T> ? static_cast<int>(p.width - x0) : LANES_OF<T>;
    for (int64_t j = 0; j < p.kernel; ++j) {
        const ByOffset<T> weights(h.weights->value + j * kernel, columns, kernel, lanes);
        const ByOffset<T> d_scores(h.d_scores->value + j * kernel, columns, kernel, lanes);
        const int64_t y = rows.start[0] + j;
        const int64_t at = y * p.row_values() + p.lead + x0 + weights.first;
        for (int i = 0; i < weights.count; ++i) {
            const Vec<T> d_score = load(d_scores.value[i]);
            spread(h.d_values + at + i, p.pitch, p.dim, load(weights.value[i]), h.dy);
            spread(h.d_keys + at + i, p.pitch, p.dim, d_score, h.query);
            if (h.d_bias)
                h.d_bias[(y - rows.y + p.kernel - 1) * side + weights.first + i + p.kernel - 1] +=
                    sum_of<T>(d_score);
        }
    }
}

template <class T, bool MOVED>
void run_vector(const Planes<T> &p, const HeadGrads<T> &h, const Rows<T, 1> &rows, int64_t x0,
                const Columns<T> &columns) {
    differentiate<T, MOVED>(rows, p, h, columns);
    distribute(rows, p, h, x0, columns);
    const Vec<T> one[1] = {splat(T(1))};
    gather_channels<T, 1, MOVED>(rows, p, rows.keys, h.d_scores, one, columns, h.d_query);
}

template <class T>
void run_head(const geoseg_attention &s, const T *dy, const geoseg_attention_grads &grads, int64_t image,
              int64_t head, const HeadGrads<T> &h) {
    constexpr int N = LANES_OF<T>;
    const Planes<T> p(s, true);
    const int64_t dense = s.heads * s.dim;  // from column to column
    const int64_t strides[4] = {p.height * p.width * dense, p.width * dense, dense, s.dim};
    const Map<T> q{static_cast<const T *>(s.q), s.q_stride}, gradient{dy, strides};
    const T scale = static_cast<T>(s.scale * 1.4426950408889634);
    for (int64_t i = 0; i < p.values(p.height); ++i) h.d_keys[i] = h.d_values[i] = 0;
    for (int64_t y = 0; y < p.height; ++y) {
        const int64_t at = y * p.row_values();
        fill_row(p, Map<T>{static_cast<const T *>(s.k), s.k_stride}, image, head, y, h.angles,
                 h.keys + at);
        fill_row<T, T>(p, Map<T>{static_cast<const T *>(s.v), s.v_stride}, image, head, y, nullptr,
                       h.values + at);
    }
    for (int64_t y = 0; y < p.height; ++y) {
        Rows<T, 1> rows(y, p);
        for (int64_t j = 0; j < p.kernel; ++j) {
            const int64_t at = (rows.start[0] + j) * p.row_values() + p.lead;
            rows.keys[j] = h.keys + at;
            rows.values[j] = h.values + at;
        }
        for (int64_t x = 0; x < p.width; x += N) {
            const int count = p.width - x < N ? static_cast<int>(p.width - x) : N;
            gather_row(q.at(image, y, x, head), q.stride[2], p.dim, count, 0,
                       Turn<T>{h.angles, y, x, scale, T(1)}, h.query, N);
            gather_row(gradient.at(image, y, x, head), dense, p.dim, count, 0,
                       Turn<T>{nullptr, y, x, T(1), T(1)}, h.dy, N);
            const Columns<T> columns(x, p);
            if (columns.moved)
                run_vector<T, true>(p, h, rows, x, columns);
            else
                run_vector<T, false>(p, h, rows, x, columns);
            T *to = static_cast<T *>(grads.q) + image * strides[0] + y * strides[1] + x * dense +
                    head * s.dim;
            scatter_row(h.d_query, N, p.dim, count,
                        Turn<T>{h.angles, y, x, static_cast<T>(s.scale), T(-1)}, to, dense);
        }
    }
    const T ln2 = static_cast<T>(0.6931471805599453);  // the queries above hold log2(e)
    for (int64_t y = 0; y < p.height; ++y)
        for (int64_t x = 0; x < p.width; x += N) {
            const int count = p.width - x < N ? static_cast<int>(p.width - x) : N;
            const int64_t to = image * strides[0] + y * strides[1] + x * dense + head * s.dim;
            const int64_t at = y * p.row_values() + p.lead + x;
            scatter_row(h.d_keys + at, p.pitch, p.dim, count, Turn<T>{h.angles, y, x, ln2, T(-1)},
                        static_cast<T *>(grads.k) + to, dense);
            scatter_row(h.d_values + at, p.pitch, p.dim, count,
                        Turn<T>{nullptr, y, x, T(1), T(1)}, static_cast<T *>(grads.v) + to, dense);
        }
}

template <class T>
int64_t thread_values(const Planes<T> &p) {
    return 4 * p.values(p.height) + 3 * p.dim * LANES_OF<T> + 2 * sizeof(Scores<T>) / sizeof(T);
}

template <class T>
void run(const geoseg_attention &s, const void *dy, const geoseg_attention_grads &grads, void *workspace,
         int32_t threads) {
    constexpr int N = LANES_OF<T>;
    const Planes<T> p(s, true);
    const int64_t table = (2 * s.kernel - 1) * (2 * s.kernel - 1);
    T *scratch = static_cast<T *>(workspace), *bias = scratch + threads * thread_values(p);
    T *columns = bias + bias_values<T>(s);
    const Angles<T> turning{static_cast<const T *>(s.rope_rows), columns, s.dim / 4,
                            p.whole_width()};
    if (s.rope_rows) turn_columns(s, p, columns);
    if (s.bias)
        reverse_bias(s, bias);
    GEOSEG_PARALLEL_FOR(threads)
    for (int64_t job = 0; job < s.batch * s.heads; ++job) {
        const int64_t head = job % s.heads;
        T *own = scratch + thread_index() * thread_values(p);
        HeadGrads<T> h;
        h.keys = own;
        h.values = h.keys + p.values(p.height);
        h.d_keys = h.values + p.values(p.height);
        h.d_values = h.d_keys + p.values(p.height);
        h.query = h.d_values + p.values(p.height);
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
    const Planes<T> p(s, true);
    return threads * thread_values(p) + bias_values<T>(s) +
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
