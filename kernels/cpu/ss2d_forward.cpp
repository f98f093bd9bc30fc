// The four-direction scan, fused: low-rank step sizes, softplus, recurrence, skip and merge.
//
// Lanes are channels, so both axes of the map cost the same and nothing is permuted. The row pair
// and the column pair of directions are summed apart and added last, whoever computes them.
#include "ss2d.h"
#include "threads.h"

namespace GEOSEG_NAMESPACE {

namespace {

// Steps whose exponentials are in flight together.
constexpr int STEPS = GEOSEG_VECTOR_REGISTERS >= 32 ? 6 : 3;

// Adds one direction of a channel block to `sums`, LANES per step of the forward direction.
template <class T>
void scan_direction(const geoseg_ss2d_scan &s, const T *q, const ScanWeights<T> &w, int direction,
                    const int32_t *order, Block<T> x, T *sums) {
    const int64_t length = s.height * s.width, rank = s.rank, per_pixel = DIRECTIONS * (rank + 2);
    const T ln2 = static_cast<T>(0.6931471805599453);
    const bool columns = reads_columns(direction), backwards = reads_backwards(direction);
    q += direction * (rank + 2);
    Vec<T> h{};
    int64_t pixel[STEPS], place[STEPS];
    for (int64_t begin = 0; begin < length; begin += STEPS) {
        // The last group repeats its last pixel; what repeats is not used.
        const int count = length - begin < STEPS ? static_cast<int>(length - begin) : STEPS;
        for (int j = 0; j < STEPS; ++j) {
            const int64_t step = begin + (j < count ? j : count - 1);
            const int64_t forward = backwards ? length - 1 - step : step;
            place[j] = forward;
            pixel[j] = columns ? order[forward] : forward;
        }
        const T *row[STEPS];
        Vec<T> z[STEPS], decay[STEPS], drive[STEPS];
        for (int j = 0; j < STEPS; ++j) {
            row[j] = q + pixel[j] * per_pixel;
            z[j] = w.bias;
        }
        if (columns) {
            // A column's pixels lie far apart: what hardware does not foresee.
            const int64_t ahead = begin + 4 * STEPS;
            for (int j = 0; j < STEPS && ahead + j < length; ++j) {
                const int64_t next = order[backwards ? length - 1 - ahead - j : ahead + j];
                prefetch(x.values + next * x.stride);
                prefetch(q + next * per_pixel);
            }
        }
        for (int64_t r = 0; r < rank; ++r) {
            Vec<T> weight = load(w.dt + r * LANES_OF<T>);
            for (int j = 0; j < STEPS; ++j) z[j] += weight * row[j][r];
        }
        for (int j = 0; j < STEPS; ++j) {
            const Vec<T> dt2 = softplus2<T>(z[j]).value;
            decay[j] = exp2_of(w.decay * dt2);
            drive[j] = dt2 * (row[j][rank] * ln2) * load(x.values + pixel[j] * x.stride);
        }
        for (int j = 0; j < count; ++j) {
            h = decay[j] * h + drive[j];
            T *sum = sums + place[j] * LANES_OF<T>;
            store(sum, load(sum) + h * row[j][rank + 1]);
        }
    }
}

template <class E>
void scan_block(const geoseg_ss2d_scan &s, int64_t image, int64_t first, void *out,
                const int32_t *order, typename Sums<E>::type *scratch) {
    typedef typename Sums<E>::type T;
    constexpr int N = LANES_OF<T>;
    const int64_t length = s.height * s.width;
    const int lanes = s.channels - first < N ? static_cast<int>(s.channels - first) : N;
    T *by_rows = scratch, *by_columns = by_rows + length * N, *copy = by_columns + length * N;
    T *packed = copy + length * N;
    const E *map = static_cast<const E *>(s.x) + image * length * s.channels;
    const T *q = static_cast<const T *>(s.q) + image * length * DIRECTIONS * (s.rank + 2);
    const Block<T> x = block_of(map, length, s.channels, first, lanes, copy);
    const Vec<T> skip = pack_skips<T>(s, first, lanes);
    for (int64_t p = 0; p < length; ++p) {
        store(by_rows + p * N, skip * load(x.values + p * x.stride));
        store(by_columns + p * N, Vec<T>{});
    }
    for (int k = 0; k < DIRECTIONS; ++k) {
        const ScanWeights<T> w = pack_weights<T>(s, k, first, lanes, packed);
        scan_direction(s, q, w, k, order, x, reads_columns(k) ? by_columns : by_rows);
    }
    E *y = static_cast<E *>(out) + image * length * s.channels + first;
    for (int64_t t = 0; t < length; ++t) {
        const int64_t p = order[t];
        const Vec<T> sum = load(by_rows + p * N) + load(by_columns + t * N);
        if (lanes == N)
            store_narrow(y + p * s.channels, sum);
        else
            store_some(y + p * s.channels, sum, lanes);
    }
}

template <class E>
void run(const geoseg_ss2d_scan &s, void *y, void *workspace, int32_t threads) {
    typedef typename Sums<E>::type T;
    constexpr int N = LANES_OF<T>;
    const int64_t length = s.height * s.width;
    const int64_t blocks = (s.channels + N - 1) / N, jobs = s.batch * blocks;
    const int64_t scratch = length * N * 3 + s.rank * N;
    int32_t *order = static_cast<int32_t *>(workspace);
    T *shared = reinterpret_cast<T *>(static_cast<char *>(workspace) + aligned(length * 4));
    for (int64_t t = 0; t < length; ++t)
        order[t] = static_cast<int32_t>(pixel_at(t, true, s.height, s.width));
    GEOSEG_PARALLEL_FOR(threads)
    for (int64_t job = 0; job < jobs; ++job)
        scan_block<E>(s, job / blocks, job % blocks * N, y, order,
                      shared + thread_index() * scratch);
}

}  // namespace

int64_t ss2d_workspace(const geoseg_ss2d_scan *s, int32_t threads) {
    const int64_t length = s->height * s->width;
    const int64_t lanes = GEOSEG_VECTOR_BYTES / 4;
    const int64_t bytes = s->dtype == GEOSEG_FLOAT64 ? 8 : 4;
    return aligned(length * 4) + threads * bytes * lanes * (3 * length + s->rank) + ALIGNMENT;
}

int32_t ss2d(const geoseg_ss2d_scan *s, void *y, void *workspace, int32_t threads) {
    switch (s->dtype) {
        case GEOSEG_FLOAT32: run<float>(*s, y, workspace, threads); return 0;
        case GEOSEG_FLOAT64: run<double>(*s, y, workspace, threads); return 0;
        case GEOSEG_BFLOAT16: run<Bfloat16>(*s, y, workspace, threads); return 0;
        default: return 1;
    }
}

}  // namespace GEOSEG_NAMESPACE
