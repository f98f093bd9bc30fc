// Gradients of the four-direction scan.
//
// A job is one direction of one image. It runs the recurrence again to have every state, then walks
// back in chunks: lambda_t = C_t dy_t + a_(t+1) lambda_(t+1) is the gradient of the state. Sums over
// channels and over time are kept apart per job and added in a fixed order, so the same input gives
// the same bits whatever the threads.
#include "ss2d.h"
#include "threads.h"

namespace GEOSEG_NAMESPACE {

namespace {

constexpr int CHUNK = 32;  // steps whose step-size gradients are kept to be projected together

// Where a job keeps what it makes; channels are padded to whole vectors.
template <class T>
struct Scratch {
    T *states;   // (length, padded): h of each step
    T *dx;       // (length, padded): in pixel order
    T *dz;       // (CHUNK, padded): gradients of z
    T *carry;    // (padded): a_(t+1) lambda_(t+1)
    T *db, *dc;  // (CHUNK, LANES): gradients of B and C before their lanes are summed
    T *dt;       // (rank, LANES): packed weights of one block
    T *totals;   // (rank + 2, padded): gradients of dt_weight, of dt_bias, of A_logs
    T *weights;  // (rank, padded): step-size weights by channel
    T *x, *dy;   // (length, padded): copies where the channels are no whole vectors
};

template <class T>
int64_t scratch_values(const geoseg_ss2d_scan &s) {
    constexpr int N = LANES_OF<T>;
    const int64_t length = s.height * s.width, padded = (s.channels + N - 1) / N * N;
    return padded * (4 * length + CHUNK + 1 + 2 * s.rank + 2) + N * (2 * CHUNK + s.rank);
}

template <class T>
Scratch<T> divide(const geoseg_ss2d_scan &s, T *from) {
    constexpr int N = LANES_OF<T>;
    const int64_t length = s.height * s.width, padded = (s.channels + N - 1) / N * N;
    Scratch<T> w;
    w.states = from;
    w.dx = w.states + length * padded;
    w.x = w.dx + length * padded;
    w.dy = w.x + length * padded;
    w.dz = w.dy + length * padded;
    w.carry = w.dz + CHUNK * padded;
    w.totals = w.carry + padded;
    w.weights = w.totals + (s.rank + 2) * padded;
    w.db = w.weights + s.rank * padded;
    w.dc = w.db + CHUNK * N;
    w.dt = w.dc + CHUNK * N;
    return w;
}

// One direction of one image.
template <class T>
struct Job {
    const geoseg_ss2d_scan &s;
    Scratch<T> w;
    const int32_t *order;
    const T *q, *x, *dy;  // of the image; x and dy padded
    T *dq;
    int direction;
    int64_t padded;

    int64_t pixel(int64_t step) const {
        const int64_t forward = reads_backwards(direction) ? s.height * s.width - 1 - step : step;
        return reads_columns(direction) ? order[forward] : forward;
    }
    const T *row(int64_t p) const {
        return q + p * DIRECTIONS * (s.rank + 2) + direction * (s.rank + 2);
    }
};

template <class T>
GEOSEG_INLINE Vec<T> pre_softplus(const Job<T> &job, const ScanWeights<T> &w, const T *row) {
    Vec<T> z = w.bias;
    for (int64_t r = 0; r < job.s.rank; ++r) z += load(w.dt + r * LANES_OF<T>) * row[r];
    return z;
}

template <class T>
void recompute_states(const Job<T> &job, const ScanWeights<T> &w, int64_t first) {
    const T ln2 = static_cast<T>(0.6931471805599453);
    const int64_t length = job.s.height * job.s.width, rank = job.s.rank;
    Vec<T> h{};
    for (int64_t step = 0; step < length; ++step) {
        const int64_t p = job.pixel(step);
        const T *row = job.row(p);
        const Vec<T> dt2 = softplus2<T>(pre_softplus(job, w, row)).value;
        h = exp2_of(w.decay * dt2) * h +
            dt2 * (row[rank] * ln2) * load(job.x + p * job.padded + first);
        store(job.w.states + step * job.padded + first, h);
    }
}

// Walks one chunk back for one channel block.
template <class T>
void walk_back(const Job<T> &job, const ScanWeights<T> &w, int64_t first, int64_t begin,
               int64_t count) {
    const Scratch<T> &k = job.w;
    const T ln2 = static_cast<T>(0.6931471805599453);
    const int64_t rank = job.s.rank, padded = job.padded;
    Vec<T> carry = load(k.carry + first);
    Vec<T> d_bias = load(k.totals + rank * padded + first);
    Vec<T> d_log = load(k.totals + (rank + 1) * padded + first);
    for (int64_t i = count - 1; i >= 0; --i) {
        const int64_t step = begin + i, p = job.pixel(step);
        const T *row = job.row(p);
        const Vec<T> z = pre_softplus(job, w, row);
        const Softplus<T> plus = softplus2<T>(z);
        const Vec<T> dt = plus.value * ln2, a = exp2_of(w.decay * plus.value);
        const Vec<T> x = load(job.x + p * padded + first), dy = load(job.dy + p * padded + first);
        const Vec<T> before =
            step > 0 ? load(k.states + (step - 1) * padded + first) : Vec<T>{};
        const Vec<T> lambda = row[rank + 1] * dy + carry;
        carry = a * lambda;
        const Vec<T> through_decay = carry * before;  // d/d(dt A)
        const Vec<T> driven = lambda * x;
        T *db = k.db + i * LANES_OF<T>, *dc = k.dc + i * LANES_OF<T>;
        store(db, load(db) + driven * dt);
        store(dc, load(dc) + dy * load(k.states + step * padded + first));
        store(k.dx + p * padded + first, lambda * dt * row[rank]);
        const Vec<T> d_dt = driven * row[rank] + through_decay * w.decay;
        d_log += through_decay * w.decay * dt;  // A = -exp(A_logs), so dA/dA_logs = A
        // The logistic function of z: 1 / (1 + e) for z >= 0, e / (1 + e) below.
        const Vec<T> one = splat(T(1));
        const Vec<T> dz = d_dt * by_sign<T>(z, one, plus.e) / (one + plus.e);
        d_bias += dz;
        store(k.dz + i * padded + first, dz);
    }
    store(k.carry + first, carry);
    store(k.totals + rank * padded + first, d_bias);
    store(k.totals + (rank + 1) * padded + first, d_log);
    for (int64_t r = 0; r < rank; ++r) {
        Vec<T> sum = load(k.totals + r * padded + first);
        for (int64_t i = 0; i < count; ++i)
            sum += load(k.dz + i * padded + first) * job.row(job.pixel(begin + i))[r];
        store(k.totals + r * padded + first, sum);
    }
}

// Gradients of a chunk's dt rows, B and C: sums over all channels.
template <class T>
void project(const Job<T> &job, int64_t begin, int64_t count) {
    const int64_t rank = job.s.rank, padded = job.padded;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t p = job.pixel(begin + i);
        T *dq = job.dq + p * DIRECTIONS * (rank + 2) + job.direction * (rank + 2);
        for (int64_t r = 0; r < rank; ++r) {
            Vec<T> sum{};
            for (int64_t c = 0; c < padded; c += LANES_OF<T>)
                sum += load(job.w.dz + i * padded + c) * load(job.w.weights + r * padded + c);
            dq[r] = sum_of<T>(sum);
        }
        dq[rank] = sum_of<T>(load(job.w.db + i * LANES_OF<T>));
        dq[rank + 1] = sum_of<T>(load(job.w.dc + i * LANES_OF<T>));
    }
}

template <class T>
void run_job(const Job<T> &job) {
    constexpr int N = LANES_OF<T>;
    const geoseg_ss2d_scan &s = job.s;
    const int64_t length = s.height * s.width;
    const T *weight = static_cast<const T *>(s.dt_weight) + job.direction * s.channels * s.rank;
    for (int64_t r = 0; r < s.rank; ++r)
        for (int64_t c = 0; c < job.padded; ++c)
            job.w.weights[r * job.padded + c] = c < s.channels ? weight[c * s.rank + r] : T(0);
    for (int64_t i = 0; i < (s.rank + 2) * job.padded; ++i) job.w.totals[i] = 0;
    for (int64_t i = 0; i < job.padded; ++i) job.w.carry[i] = 0;
    for (int64_t first = 0; first < job.padded; first += N) {
        const int lanes = s.channels - first < N ? static_cast<int>(s.channels - first) : N;
        recompute_states(job, pack_weights<T>(s, job.direction, first, lanes, job.w.dt), first);
    }
    for (int64_t begin = (length - 1) / CHUNK * CHUNK; begin >= 0; begin -= CHUNK) {
        const int64_t count = length - begin < CHUNK ? length - begin : CHUNK;
        for (int64_t i = 0; i < CHUNK * N; ++i) job.w.db[i] = job.w.dc[i] = 0;
        for (int64_t first = 0; first < job.padded; first += N) {
            const int lanes = s.channels - first < N ? static_cast<int>(s.channels - first) : N;
            walk_back(job, pack_weights<T>(s, job.direction, first, lanes, job.w.dt), first, begin,
                      count);
        }
        project(job, begin, count);
    }
}

// Copies a map into rows of whole vectors; absent channels are 0.
template <class T>
void pad(const T *map, int64_t pixels, int64_t channels, int64_t padded, T *to) {
    for (int64_t p = 0; p < pixels; ++p)
        for (int64_t c = 0; c < padded; ++c)
            to[p * padded + c] = c < channels ? map[p * channels + c] : T(0);
}

// Adds one image's jobs to the outputs.
template <class T>
void merge(const geoseg_ss2d_scan &s, const Scratch<T> *jobs, const T *x, const T *dy,
           const geoseg_ss2d_grads &grads, T *dx) {
    constexpr int N = LANES_OF<T>;
    const int64_t length = s.height * s.width, channels = s.channels;
    const int64_t padded = (channels + N - 1) / N * N;
    const T *skip = static_cast<const T *>(s.ds);
    T *d_skip = static_cast<T *>(grads.ds);
    for (int64_t p = 0; p < length; ++p)
        for (int64_t c = 0; c < channels; ++c) {
            const int64_t at = p * padded + c, dense = p * channels + c;
            const T weight = (skip[c] + skip[channels + c]) +
                             (skip[2 * channels + c] + skip[3 * channels + c]);
            dx[dense] = weight * dy[dense] + ((jobs[0].dx[at] + jobs[2].dx[at]) +
                                              (jobs[1].dx[at] + jobs[3].dx[at]));
            d_skip[c] += dy[dense] * x[dense];
        }
    T *d_weight = static_cast<T *>(grads.dt_weight), *d_bias = static_cast<T *>(grads.dt_bias);
    T *d_logs = static_cast<T *>(grads.a_logs);
    for (int k = 0; k < DIRECTIONS; ++k)
        for (int64_t c = 0; c < channels; ++c) {
            const int64_t at = k * channels + c;
            for (int64_t r = 0; r < s.rank; ++r)
                d_weight[at * s.rank + r] += jobs[k].totals[r * padded + c];
            d_bias[at] += jobs[k].totals[s.rank * padded + c];
            d_logs[at] += jobs[k].totals[(s.rank + 1) * padded + c];
        }
}

template <class T>
void run(const geoseg_ss2d_scan &s, const void *gradient, const geoseg_ss2d_grads &grads,
         void *workspace, int32_t threads) {
    constexpr int N = LANES_OF<T>;
    const int64_t length = s.height * s.width, padded = (s.channels + N - 1) / N * N;
    const int64_t image_values = length * s.channels;
    const int64_t q_values = length * DIRECTIONS * (s.rank + 2);
    int32_t *order = static_cast<int32_t *>(workspace);
    T *scratch = reinterpret_cast<T *>(static_cast<char *>(workspace) + aligned(length * 4));
    for (int64_t t = 0; t < length; ++t)
        order[t] = static_cast<int32_t>(pixel_at(t, true, s.height, s.width));
    const T *x = static_cast<const T *>(s.x), *dy = static_cast<const T *>(gradient);
    for (int64_t image = 0; image < s.batch; ++image) {
        Scratch<T> jobs[DIRECTIONS];
        for (int k = 0; k < DIRECTIONS; ++k)
            jobs[k] = divide(s, scratch + k * scratch_values<T>(s));
        GEOSEG_PARALLEL_FOR(threads)
        for (int64_t k = 0; k < DIRECTIONS; ++k) {
            pad(x + image * image_values, length, s.channels, padded, jobs[k].x);
            pad(dy + image * image_values, length, s.channels, padded, jobs[k].dy);
            run_job(Job<T>{s, jobs[k], order, static_cast<const T *>(s.q) + image * q_values,
                           jobs[k].x, jobs[k].dy, static_cast<T *>(grads.q) + image * q_values,
                           static_cast<int>(k), padded});
        }
        merge(s, jobs, x + image * image_values, dy + image * image_values, grads,
              static_cast<T *>(grads.x) + image * image_values);
    }
    // All directions skip with the same product.
    T *d_skip = static_cast<T *>(grads.ds);
    for (int k = 1; k < DIRECTIONS; ++k)
        for (int64_t c = 0; c < s.channels; ++c) d_skip[k * s.channels + c] = d_skip[c];
}

}  // namespace

int64_t ss2d_backward_workspace(const geoseg_ss2d_scan *s) {
    const int64_t head = aligned(s->height * s->width * 4) + ALIGNMENT;
    if (s->dtype == GEOSEG_FLOAT64) return head + DIRECTIONS * 8 * scratch_values<double>(*s);
    return head + DIRECTIONS * 4 * scratch_values<float>(*s);
}

int32_t ss2d_backward(const geoseg_ss2d_scan *s, const void *dy, const geoseg_ss2d_grads *grads,
                      void *workspace, int32_t threads) {
    switch (s->dtype) {
        case GEOSEG_FLOAT32: run<float>(*s, dy, *grads, workspace, threads); return 0;
        case GEOSEG_FLOAT64: run<double>(*s, dy, *grads, workspace, threads); return 0;
        default: return 1;
    }
}

}  // namespace GEOSEG_NAMESPACE
