// Gradients of the four-direction scan.
//
// A job is one direction of one image. It runs the recurrence again to have every state, then walks
// back in chunks: lambda_t = C_t dy_t + a_(t+1) lambda_(t+1) is the gradient of the state. Sums over
// channels and over time are kept apart per job and added in a fixed order, so the same input gives
// the same bits whatever the threads.
#include "ss2d.h"
#include "threads.h"
#include "transpose.h"

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
};

template <class T>
int64_t scratch_values(const geoseg_ss2d_scan &s) {
    constexpr int N = LANES_OF<T>;
    const int64_t length = s.height * s.width, padded = (s.channels + N - 1) / N * N;
    return padded * (2 * length + CHUNK + 1 + 2 * s.rank + 2) + N * (2 * CHUNK + s.rank);
}

template <class T>
Scratch<T> divide(const geoseg_ss2d_scan &s, T *from) {
    constexpr int N = LANES_OF<T>;
    const int64_t length = s.height * s.width, padded = (s.channels + N - 1) / N * N;
    Scratch<T> w;
    w.states = from;
    w.dx = w.states + length * padded;
    w.dz = w.dx + length * padded;
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
    const T *q, *x, *dy;  // of the image; x and dy in rows of whole vectors
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

template <class T, bool COLUMNS, bool BACKWARDS>
void recompute_states(const Job<T> &job, const ScanWeights<T> &w, int64_t first) {
    const int64_t length = job.s.height * job.s.width;
    const Direction<T> d{job.s,  job.row(0), w, job.order, {job.x + first, job.padded},
                         length, DIRECTIONS * (job.s.rank + 2)};
    scan_direction<T, COLUMNS, BACKWARDS>(
        d, [&](int64_t place, int64_t, Vec<T>, Vec<T> h, T) {
            const int64_t step = BACKWARDS ? length - 1 - place : place;
            store(job.w.states + step * job.padded + first, h);
        });
}

// Sums that a walk back over one channel block adds to.
template <class T>
struct BlockSums {
    Vec<T> carry, d_bias, d_log;
};

// Walks back over COUNT steps of a chunk, the last of which is `last`.
template <class T, int COUNT>
GEOSEG_INLINE void walk_steps(const Job<T> &job, const ScanWeights<T> &w, int64_t first,
                              int64_t begin, int64_t last, BlockSums<T> &sums) {
    const Scratch<T> &k = job.w;
    const T ln2 = static_cast<T>(0.6931471805599453);
    const int64_t rank = job.s.rank, padded = job.padded;
    int64_t pixel[COUNT];
    const T *row[COUNT];
    Vec<T> z[COUNT], plus[COUNT], e[COUNT], a[COUNT];
    for (int j = 0; j < COUNT; ++j) {
        pixel[j] = job.pixel(begin + last - j);
        row[j] = job.row(pixel[j]);
        z[j] = w.bias;
    }
    for (int64_t r = 0; r < rank; ++r) {
        const Vec<T> weight = load(w.dt + r * LANES_OF<T>);
        for (int j = 0; j < COUNT; ++j) z[j] += weight * row[j][r];
    }
    for (int j = 0; j < COUNT; ++j) plus[j] = z[j];
    softplus2_all<T, COUNT>(plus, e);
    for (int j = 0; j < COUNT; ++j) a[j] = w.decay * plus[j];
    exp2_all<COUNT>(a);
    for (int j = 0; j < COUNT; ++j) {
        const int64_t i = last - j, step = begin + i, p = pixel[j];
        const T b = row[j][rank], c = row[j][rank + 1];
        const Vec<T> dt = plus[j] * ln2;
        const Vec<T> x = load(job.x + p * padded + first), dy = load(job.dy + p * padded + first);
        const Vec<T> before =
            step > 0 ? load(k.states + (step - 1) * padded + first) : Vec<T>{};
        const Vec<T> lambda = c * dy + sums.carry;
        sums.carry = a[j] * lambda;
        const Vec<T> through_decay = sums.carry * before;  // d/d(dt A)
        const Vec<T> driven = lambda * x;
        T *db = k.db + i * LANES_OF<T>, *dc = k.dc + i * LANES_OF<T>;
        store(db, load(db) + driven * dt);
        store(dc, load(dc) + dy * load(k.states + step * padded + first));
        store(k.dx + p * padded + first, lambda * dt * b);
        const Vec<T> d_dt = driven * b + through_decay * w.decay;
        sums.d_log += through_decay * w.decay * dt;  // A = -exp(A_logs), so dA/dA_logs = A
        // The logistic function of z: 1 / (1 + e) for z >= 0, e / (1 + e) below.
        const Vec<T> one = splat(T(1));
        const Vec<T> dz = d_dt * by_sign<T>(z[j], one, e[j]) / (one + e[j]);
        sums.d_bias += dz;
        store(k.dz + i * padded + first, dz);
    }
}

// Walks one chunk back for one channel block.
template <class T>
void walk_back(const Job<T> &job, const ScanWeights<T> &w, int64_t first, int64_t begin,
               int64_t count) {
    const Scratch<T> &k = job.w;
    const int64_t rank = job.s.rank, padded = job.padded;
    T *d_bias = k.totals + rank * padded + first, *d_log = d_bias + padded;
    BlockSums<T> sums{load(k.carry + first), load(d_bias), load(d_log)};
    int64_t left = count;
    for (; left >= STEPS; left -= STEPS)
        walk_steps<T, STEPS>(job, w, first, begin, left - 1, sums);
    for (; left > 0; --left) walk_steps<T, 1>(job, w, first, begin, left - 1, sums);
    store(k.carry + first, sums.carry);
    store(d_bias, sums.d_bias);
    store(d_log, sums.d_log);
}

// Adds a chunk's gradients of COUNT rows of the step-size weights from `r` on, for one channel block.
template <class T, int COUNT>
void add_weights(const Job<T> &job, int64_t first, int64_t begin, int64_t count, int64_t r) {
    T *totals = job.w.totals + r * job.padded + first;
    Vec<T> sum[COUNT];
    for (int j = 0; j < COUNT; ++j) sum[j] = load(totals + j * job.padded);
    for (int64_t i = 0; i < count; ++i) {
        const T *row = job.row(job.pixel(begin + i)) + r;
        const Vec<T> dz = load(job.w.dz + i * job.padded + first);
        for (int j = 0; j < COUNT; ++j) sum[j] += dz * row[j];
    }
    for (int j = 0; j < COUNT; ++j) store(totals + j * job.padded, sum[j]);
}

// Sums over the lanes of each of LANES vectors: to[i * stride] for the first `count` of them.
template <class T>
GEOSEG_INLINE void sums_of(Vec<T> *rows, int64_t count, T *const *to, int64_t at) {
    constexpr int N = LANES_OF<T>;
    transpose<T>(rows);
    for (int step = N / 2; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) rows[i] += rows[i + step];
    T lane[N];
    store(lane, rows[0]);
    for (int64_t i = 0; i < count; ++i) to[i][at] = lane[i];
}

// Gradients of a chunk's dt rows, B and C: sums over all channels.
template <class T>
void project(const Job<T> &job, int64_t begin, int64_t count) {
    constexpr int N = LANES_OF<T>;
    const int64_t rank = job.s.rank, padded = job.padded;
    for (int64_t start = 0; start < count; start += N) {
        const int64_t steps = count - start < N ? count - start : N;
        T *dq[N];
        for (int64_t i = 0; i < steps; ++i)
            dq[i] = job.dq + (job.row(job.pixel(begin + start + i)) - job.q);
        // Of the last chunk, steps beyond the end are summed, too, but not kept.
        Vec<T> sum[N];
        for (int64_t r = 0; r < rank; ++r) {
            for (int i = 0; i < N; ++i) sum[i] = Vec<T>{};
            for (int64_t c = 0; c < padded; c += N) {
                const Vec<T> weight = load(job.w.weights + r * padded + c);
                for (int i = 0; i < N; ++i)
                    sum[i] += load(job.w.dz + (start + i) * padded + c) * weight;
            }
            sums_of<T>(sum, steps, dq, r);
        }
        for (int i = 0; i < N; ++i) sum[i] = load(job.w.db + (start + i) * N);
        sums_of<T>(sum, steps, dq, rank);
        for (int i = 0; i < N; ++i) sum[i] = load(job.w.dc + (start + i) * N);
        sums_of<T>(sum, steps, dq, rank + 1);
    }
}

template <class T>
void recompute_block(const Job<T> &job, const ScanWeights<T> &w, int64_t first) {
    switch (job.direction) {
        case 0: recompute_states<T, false, false>(job, w, first); return;
        case 1: recompute_states<T, true, false>(job, w, first); return;
        case 2: recompute_states<T, false, true>(job, w, first); return;
        default: recompute_states<T, true, true>(job, w, first);
    }
}

template <class T>
void walk_block(const Job<T> &job, const ScanWeights<T> &w, int64_t first, int64_t begin,
                int64_t count) {
    walk_back(job, w, first, begin, count);
    int64_t r = 0;
    for (; r + 4 <= job.s.rank; r += 4) add_weights<T, 4>(job, first, begin, count, r);
    for (; r < job.s.rank; ++r) add_weights<T, 1>(job, first, begin, count, r);
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
        recompute_block(job, pack_weights<T>(s, job.direction, first, lanes, job.w.dt), first);
    }
    for (int64_t begin = (length - 1) / CHUNK * CHUNK; begin >= 0; begin -= CHUNK) {
        const int64_t count = length - begin < CHUNK ? length - begin : CHUNK;
        for (int64_t i = 0; i < CHUNK * N; ++i) job.w.db[i] = job.w.dc[i] = 0;
        for (int64_t first = 0; first < job.padded; first += N) {
            const int lanes = s.channels - first < N ? static_cast<int>(s.channels - first) : N;
            walk_block(job, pack_weights<T>(s, job.direction, first, lanes, job.w.dt), first,
                       begin, count);
        }
        project(job, begin, count);
    }
}

template <class T>
int64_t workspace_values(const geoseg_ss2d_scan &s) {
    constexpr int N = LANES_OF<T>;
    const int64_t padded = (s.channels + N - 1) / N * N;
    const int64_t copies = s.channels == padded ? 0 : 2 * s.height * s.width * padded;
    return DIRECTIONS * scratch_values<T>(s) + copies;
}

// A map in rows of whole vectors: as it is, or a copy in which absent channels are 0.
template <class T>
const T *whole_rows(const T *map, int64_t pixels, int64_t channels, int64_t padded, int32_t threads,
                    T *copy) {
    if (channels == padded) return map;
    GEOSEG_PARALLEL_FOR(threads)
    for (int64_t chunk = 0; chunk < (pixels + CHUNK - 1) / CHUNK; ++chunk)
        for (int64_t p = chunk * CHUNK; p < pixels && p < (chunk + 1) * CHUNK; ++p) {
            for (int64_t c = 0; c < channels; ++c) copy[p * padded + c] = map[p * channels + c];
            for (int64_t c = channels; c < padded; ++c) copy[p * padded + c] = T(0);
        }
    return copy;
}

// Adds the directions' gradients of x for one channel block, and those of the skip weights.
template <class T>
void merge_block(const geoseg_ss2d_scan &s, const Scratch<T> *jobs, const T *x, const T *dy,
                 int64_t first, int64_t padded, T *dx, T *d_skip) {
    constexpr int N = LANES_OF<T>;
    const int64_t length = s.height * s.width, channels = s.channels;
    const int lanes = channels - first < N ? static_cast<int>(channels - first) : N;
    const T *skip = static_cast<const T *>(s.ds) + first;
    T sums[N] = {};
    for (int i = 0; i < lanes; ++i)
        sums[i] = (skip[i] + skip[channels + i]) + (skip[2 * channels + i] + skip[3 * channels + i]);
    const Vec<T> weight = load(sums);
    Vec<T> total = load_some(d_skip + first, lanes);
    for (int64_t p = 0; p < length; ++p) {
        const int64_t at = p * padded + first;
        const Vec<T> gradient = load(dy + at);
        const Vec<T> sum = weight * gradient + ((load(jobs[0].dx + at) + load(jobs[2].dx + at)) +
                                                (load(jobs[1].dx + at) + load(jobs[3].dx + at)));
        if (lanes == N)
            store(dx + p * channels + first, sum);
        else
            store_some(dx + p * channels + first, sum, lanes);
        total += gradient * load(x + at);
    }
    store_some(d_skip + first, total, lanes);
}

// Adds one image's gradients of the parameters to the outputs.
template <class T>
void merge_parameters(const geoseg_ss2d_scan &s, const Scratch<T> *jobs, int64_t padded,
                      const geoseg_ss2d_grads &grads) {
    T *d_weight = static_cast<T *>(grads.dt_weight), *d_bias = static_cast<T *>(grads.dt_bias);
    T *d_logs = static_cast<T *>(grads.a_logs);
    for (int k = 0; k < DIRECTIONS; ++k)
        for (int64_t c = 0; c < s.channels; ++c) {
            const int64_t at = k * s.channels + c;
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
    T *copies = scratch + DIRECTIONS * scratch_values<T>(s);
    for (int64_t t = 0; t < length; ++t)
        order[t] = static_cast<int32_t>(pixel_at(t, true, s.height, s.width));
    T *d_skip = static_cast<T *>(grads.ds);
    Scratch<T> jobs[DIRECTIONS];
    for (int k = 0; k < DIRECTIONS; ++k) jobs[k] = divide(s, scratch + k * scratch_values<T>(s));
    for (int64_t image = 0; image < s.batch; ++image) {
        const T *x = whole_rows(static_cast<const T *>(s.x) + image * image_values, length,
                                s.channels, padded, threads, copies);
        const T *dy = whole_rows(static_cast<const T *>(gradient) + image * image_values, length,
                                 s.channels, padded, threads, copies + length * padded);
        GEOSEG_PARALLEL_FOR(threads)
        for (int64_t k = 0; k < DIRECTIONS; ++k)
            run_job(Job<T>{s, jobs[k], order, static_cast<const T *>(s.q) + image * q_values, x,
                           dy, static_cast<T *>(grads.q) + image * q_values, static_cast<int>(k),
                           padded});
        GEOSEG_PARALLEL_FOR(threads)
        for (int64_t block = 0; block < padded / N; ++block)
            merge_block(s, jobs, x, dy, block * N, padded,
                        static_cast<T *>(grads.x) + image * image_values, d_skip);
        merge_parameters(s, jobs, padded, grads);
    }
    // All directions skip with the same product.
    for (int k = 1; k < DIRECTIONS; ++k)
        for (int64_t c = 0; c < s.channels; ++c) d_skip[k * s.channels + c] = d_skip[c];
}

}  // namespace

int64_t ss2d_backward_workspace(const geoseg_ss2d_scan *s) {
    const int64_t head = aligned(s->height * s->width * 4) + ALIGNMENT;
    return head + (s->dtype == GEOSEG_FLOAT64 ? 8 * workspace_values<double>(*s)
                                              : 4 * workspace_values<float>(*s));
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
