// The four-direction scan, fused: low-rank step sizes, softplus, recurrence, skip and merge.
//
// Lanes are channels, so both axes of the map cost the same and nothing is permuted. The row pair
// and the column pair of directions are summed apart and added last, whoever computes them.
#include "ss2d.h"
#include "threads.h"

namespace GEOSEG_NAMESPACE {

namespace {

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
        direction(0), [&](int64_t, int64_t p, Vec<T> at, Vec<T> h, T c) {
            store(by_rows + p * N, skip * at + h * c);
        });
    scan_direction<T, false, true>(direction(2), [&](int64_t, int64_t p, Vec<T>, Vec<T> h, T c) {
        store(by_rows + p * N, load(by_rows + p * N) + h * c);
    });
    scan_direction<T, true, false>(direction(1), [&](int64_t t, int64_t, Vec<T>, Vec<T> h, T c) {
        store(by_columns + t * N, h * c);
    });
    scan_direction<T, true, true>(direction(3), [&](int64_t t, int64_t p, Vec<T>, Vec<T> h, T c) {
        const Vec<T> sum = load(by_rows + p * N) + (load(by_columns + t * N) + h * c);
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
