// The selective scan of the papers, for any number of states and groups, forward and backward.
//
// Sequences come as (batch, length, channels) with channels in lanes; B and C as (batch, group,
// length, state). A job is a block of channels of one group of one image.
#include "ss2d.h"
#include "threads.h"

namespace GEOSEG_NAMESPACE {

namespace {

template <class T>
struct Sequence {
    const T *u, *delta, *b, *c;
    int64_t channels, length, states;
    int64_t first;  // channel
    int lanes;
    Vec<T> bias, skip;
    const T *decay;  // (states, LANES), times log2(e)
    bool softplus;
};

// Without softplus a step may be negative and the decay grow; 2^127 stands for all that is larger.
template <class T>
GEOSEG_INLINE Vec<T> decay_of(Vec<T> t) {
    return exp2_of(smaller_of<T>(t, splat(T(127))));
}

template <class T>
GEOSEG_INLINE Vec<T> read(const Sequence<T> &q, const T *from, int64_t step) {
    from += step * q.channels + q.first;
    return q.lanes == LANES_OF<T> ? load(from) : load_some(from, q.lanes);
}
template <class T>
GEOSEG_INLINE void write(const Sequence<T> &q, T *to, int64_t step, Vec<T> value) {
    to += step * q.channels + q.first;
    if (q.lanes == LANES_OF<T>)
        store(to, value);
    else
        store_some(to, value, q.lanes);
}

// Step size, and the derivative of its softplus.
template <class T>
struct StepSize {
    Vec<T> value, slope;
};
template <class T>
GEOSEG_INLINE StepSize<T> step_size(const Sequence<T> &q, int64_t step) {
    const Vec<T> raw = read(q, q.delta, step) + q.bias, one = splat(T(1));
    if (!q.softplus) return {raw, one};
    const Softplus<T> plus = softplus2<T>(raw * T(1.4426950408889634));
    return {plus.value * T(0.6931471805599453),
            by_sign<T>(raw, one, plus.e) / (one + plus.e)};
}

// states: one step's, or where all of them are wanted, (length, states, LANES).
template <class T>
void forward(const Sequence<T> &q, T *y, T *states, bool keep) {
    const int64_t size = q.states * LANES_OF<T>;
    for (int64_t i = 0; i < size; ++i) states[i] = 0;
    const T *before = states;
    for (int64_t step = 0; step < q.length; ++step) {
        const Vec<T> dt = step_size(q, step).value, u = read(q, q.u, step);
        Vec<T> sum = q.skip * u;
        T *now = states + (keep ? step * size : 0);
        for (int64_t n = 0; n < q.states; ++n) {
            const int64_t lane = n * LANES_OF<T>;
            const Vec<T> old = step ? load(before + lane) : Vec<T>{};
            const Vec<T> h = decay_of<T>(dt * load(q.decay + lane)) * old +
                             dt * u * q.b[step * q.states + n];
            store(now + lane, h);
            sum += h * q.c[step * q.states + n];
        }
        if (y) write(q, y, step, sum);
        before = now;
    }
}

template <class T>
struct BlockGrads {
    T *u, *delta;    // (length, channels)
    T *b, *c;        // (length, states, LANES) sums per lane
    T *decay, *skip, *bias;  // (states, LANES), (LANES), (LANES)
};

template <class T>
void backward(const Sequence<T> &q, const T *dy_map, const T *states, T *carry,
              const BlockGrads<T> &g) {
    const int64_t size = q.states * LANES_OF<T>;
    const T ln2 = static_cast<T>(0.6931471805599453);
    for (int64_t i = 0; i < size; ++i) carry[i] = g.decay[i] = 0;
    Vec<T> d_skip{}, d_bias{};
    for (int64_t step = q.length - 1; step >= 0; --step) {
        const StepSize<T> dt = step_size(q, step);
        const Vec<T> u = read(q, q.u, step), dy = read(q, dy_map, step);
        Vec<T> du = q.skip * dy, d_dt{};
        d_skip += dy * u;
        for (int64_t n = 0; n < q.states; ++n) {
            const int64_t lane = n * LANES_OF<T>, at = step * size + lane;
            const Vec<T> rate = load(q.decay + lane);  // A log2(e)
            const Vec<T> before = step ? load(states + at - size) : Vec<T>{};
            const Vec<T> lambda = dy * q.c[step * q.states + n] + load(carry + lane);
            const Vec<T> back = decay_of<T>(dt.value * rate) * lambda;
            store(carry + lane, back);
            const T weight = q.b[step * q.states + n];
            store(g.b + at, load(g.b + at) + lambda * dt.value * u);
            store(g.c + at, load(g.c + at) + dy * load(states + at));
            du += lambda * dt.value * weight;
            d_dt += lambda * u * weight + back * before * rate * ln2;
            store(g.decay + lane, load(g.decay + lane) + back * before * dt.value);
        }
        const Vec<T> d_raw = d_dt * dt.slope;
        d_bias += d_raw;
        write(q, g.u, step, du);
        write(q, g.delta, step, d_raw);
    }
    store(g.skip, d_skip);
    store(g.bias, d_bias);
}

template <class T>
Sequence<T> sequence(const geoseg_sequences &s, int64_t image, int64_t group, int64_t first,
                     T *decay) {
    constexpr int N = LANES_OF<T>;
    const int64_t width = s.channels / s.groups;
    Sequence<T> q;
    q.channels = s.channels;
    q.length = s.length;
    q.states = s.states;
    q.first = group * width + first;
    q.lanes = width - first < N ? static_cast<int>(width - first) : N;
    q.u = static_cast<const T *>(s.u) + image * s.length * s.channels;
    q.delta = static_cast<const T *>(s.delta) + image * s.length * s.channels;
    q.b = static_cast<const T *>(s.b) + (image * s.groups + group) * s.length * s.states;
    q.c = static_cast<const T *>(s.c) + (image * s.groups + group) * s.length * s.states;
    const T *a = static_cast<const T *>(s.a), *skip = static_cast<const T *>(s.d);
    const T *bias = static_cast<const T *>(s.delta_bias);
    q.skip = skip ? load_some(skip + q.first, q.lanes) : Vec<T>{};
    q.bias = bias ? load_some(bias + q.first, q.lanes) : Vec<T>{};
    q.softplus = s.softplus != 0;
    for (int64_t n = 0; n < s.states; ++n)
        for (int i = 0; i < N; ++i)
            decay[n * N + i] = i < q.lanes ? a[(q.first + i) * s.states + n] * T(1.4426950408889634)
                                           : T(0);
    q.decay = decay;
    return q;
}

template <class T>
void run_forward(const geoseg_sequences &s, void *y, void *workspace, int32_t threads) {
    constexpr int N = LANES_OF<T>;
    const int64_t width = s.channels / s.groups, blocks = (width + N - 1) / N;
    const int64_t jobs = s.batch * s.groups * blocks;
    T *shared = static_cast<T *>(workspace);
    GEOSEG_PARALLEL_FOR(threads)
    for (int64_t job = 0; job < jobs; ++job) {
        T *scratch = shared + thread_index() * 2 * s.states * N;
        const int64_t image = job / (s.groups * blocks);
        const Sequence<T> q =
            sequence(s, image, job / blocks % s.groups, job % blocks * N, scratch);
        forward(q, static_cast<T *>(y) + image * s.length * s.channels, scratch + s.states * N,
                false);
    }
}

// Jobs are a group of an image: its blocks follow each other, so sums over channels have one order.
template <class T>
void run_backward(const geoseg_sequences &s, const void *dy,
                  const geoseg_sequence_grads &grads, void *workspace, int32_t threads) {
    constexpr int N = LANES_OF<T>;
    const int64_t width = s.channels / s.groups, size = s.states * N;
    const int64_t scratch_values = 3 * s.length * size + 3 * size + 2 * N;
    T *shared = static_cast<T *>(workspace);
    GEOSEG_PARALLEL_FOR(threads)
    for (int64_t job = 0; job < s.batch * s.groups; ++job) {
        const int64_t image = job / s.groups, group = job % s.groups;
        T *states = shared + thread_index() * scratch_values;
        T *db = states + s.length * size, *dc = db + s.length * size;
        T *decay = dc + s.length * size, *carry = decay + size, *d_decay = carry + size;
        T *d_skip = d_decay + size, *d_bias = d_skip + N;
        for (int64_t i = 0; i < 2 * s.length * size; ++i) db[i] = 0;
        const int64_t offset = image * s.length * s.channels;
        for (int64_t first = 0; first < width; first += N) {
            const Sequence<T> q = sequence(s, image, group, first, decay);
            forward<T>(q, nullptr, states, true);
            backward(q, static_cast<const T *>(dy) + offset, states, carry,
                     BlockGrads<T>{static_cast<T *>(grads.u) + offset,
                                   static_cast<T *>(grads.delta) + offset, db, dc, d_decay, d_skip,
                                   d_bias});
            // Per image; the caller adds them up.
            for (int i = 0; i < q.lanes; ++i) {
                const int64_t channel = image * s.channels + q.first + i;
                static_cast<T *>(grads.d)[channel] = d_skip[i];
                static_cast<T *>(grads.delta_bias)[channel] = d_bias[i];
                for (int64_t n = 0; n < s.states; ++n)
                    static_cast<T *>(grads.a)[channel * s.states + n] = d_decay[n * N + i];
            }
        }
        const int64_t at = job * s.length * s.states;
        for (int64_t i = 0; i < s.length * s.states; ++i) {
            static_cast<T *>(grads.b)[at + i] = sum_of<T>(load(db + i * N));
            static_cast<T *>(grads.c)[at + i] = sum_of<T>(load(dc + i * N));
        }
    }
}

}  // namespace

int64_t selective_scan_workspace(const geoseg_sequences *s, int32_t threads, int32_t back) {
    const int64_t size = s->states * GEOSEG_VECTOR_BYTES;
    const int64_t each = back ? 3 * (s->length + 1) * size + 2 * GEOSEG_VECTOR_BYTES : 2 * size;
    return threads * each;
}

int32_t selective_scan(const geoseg_sequences *s, void *y, void *workspace, int32_t threads) {
    switch (s->dtype) {
        case GEOSEG_FLOAT32: run_forward<float>(*s, y, workspace, threads); return 0;
        case GEOSEG_FLOAT64: run_forward<double>(*s, y, workspace, threads); return 0;
        default: return 1;
    }
}

int32_t selective_scan_backward(const geoseg_sequences *s, const void *dy,
                                const geoseg_sequence_grads *grads, void *workspace,
                                int32_t threads) {
    switch (s->dtype) {
        case GEOSEG_FLOAT32: run_backward<float>(*s, dy, *grads, workspace, threads); return 0;
        case GEOSEG_FLOAT64: run_backward<double>(*s, dy, *grads, workspace, threads); return 0;
        default: return 1;
    }
}

}  // namespace GEOSEG_NAMESPACE
