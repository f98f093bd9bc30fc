// The four-direction scan, fused: low-rank step sizes, softplus, recurrence, skip and merge.
//
// Lanes are channels, so both axes of the map cost the same and nothing is permuted. The row pair
// and the column pair of directions are summed apart and added last, whoever computes them.
#include "ss2d.h"
#include "threads.h"

namespace GEOSEG_NAMESPACE {

namespace {

// Steps whose exponentials are in flight together.
constexpr int STEPS = GEOSEG_VECTOR_REGISTERS >= 32 ? 8 : 6;

// What a direction reads of a channel block, and where its results go.
template <class T>
struct Direction {
    const geoseg_ss2d_scan &s;
    const T *q;            // of the image and the direction
    ScanWeights<T> w;
    const int32_t *order;  // of columns
    Block<T> x;
    int64_t length, per_pixel;
};

// Takes COUNT steps from one on; `finish` is told the place in the forward order, the pixel, its x
// and what the direction adds there. Returns the state.
template <class T, int COUNT, bool COLUMNS, bool BACKWARDS, class Finish>
GEOSEG_INLINE Vec<T> advance(const Direction<T> &d, int64_t step, Vec<T> h, Finish finish) {
    const T ln2 = static_cast<T>(0.6931471805599453);
    const int64_t rank = d.s.rank;
    int64_t place[COUNT], pixel[COUNT];
    const T *row[COUNT];
    Vec<T> z[COUNT], decay[COUNT], x[COUNT];
    for (int j = 0; j < COUNT; ++j) {
        place[j] = BACKWARDS ? d.length - 1 - step - j : step + j;
        pixel[j] = COLUMNS ? d.order[place[j]] : place[j];
        row[j] = d.q + pixel[j] * d.per_pixel;
        z[j] = d.w.bias;
    }
    for (int64_t r = 0; r < rank; ++r) {
        const Vec<T> weight = load(d.w.dt + r * LANES_OF<T>);
        for (int j = 0; j < COUNT; ++j) z[j] += weight * row[j][r];
    }
    softplus2_all<T, COUNT>(z, decay);
    for (int j = 0; j < COUNT; ++j) decay[j] = d.w.decay * z[j];
    exp2_all<COUNT>(decay);
    for (int j = 0; j < COUNT; ++j) {
        x[j] = load(d.x.values + pixel[j] * d.x.stride);
        h = decay[j] * h + z[j] * (row[j][rank] * ln2) * x[j];
        finish(place[j], pixel[j], x[j], h * row[j][rank + 1]);
    }
    return h;
}

template <class T, bool COLUMNS, bool BACKWARDS, class Finish>
void scan_direction(const Direction<T> &d, Finish finish) {
    Vec<T> h{};
    int64_t step = 0;
    for (; step + STEPS <= d.length; step += STEPS) {
        // A column's pixels lie far apart: what hardware does not foresee.
        const int64_t ahead = step + 4 * STEPS;
        for (int j = 0; COLUMNS && j < STEPS && ahead + j < d.length; ++j) {
            const int64_t next = d.order[BACKWARDS ? d.length - 1 - ahead - j : ahead + j];
            prefetch(d.x.values + next * d.x.stride);
            prefetch(d.q + next * d.per_pixel);
        }
        h = advance<T, STEPS, COLUMNS, BACKWARDS>(d, step, h, finish);
    }
    for (; step < d.length; ++step) h = advance<T, 1, COLUMNS, BACKWARDS>(d, step, h, finish);
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
    E *y = static_cast<E *>(out) + image * length * s.channels + first;
    const auto direction = [&](int k) {
        return Direction<T>{s, q + k * (s.rank + 2), pack_weights<T>(s, k, first, lanes, packed),
                            order, x, length, DIRECTIONS * (s.rank + 2)};
    };
    // The first of a pair starts the sums, the second adds to them, and the last writes the result.
    scan_direction<T, false, false>(
        direction(0), [&](int64_t, int64_t p, Vec<T> at, Vec<T> add) {
            store(by_rows + p * N, skip * at + add);
        });
    scan_direction<T, false, true>(direction(2), [&](int64_t, int64_t p, Vec<T>, Vec<T> add) {
        store(by_rows + p * N, load(by_rows + p * N) + add);
    });
    scan_direction<T, true, false>(direction(1), [&](int64_t t, int64_t, Vec<T>, Vec<T> add) {
        store(by_columns + t * N, add);
    });
    scan_direction<T, true, true>(direction(3), [&](int64_t t, int64_t p, Vec<T>, Vec<T> add) {
        const Vec<T> sum = load(by_rows + p * N) + (load(by_columns + t * N) + add);
        if (lanes == N)
            store_narrow(y + p * s.channels, sum);
        else
            store_some(y + p * s.channels, sum, lanes);
    });
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
