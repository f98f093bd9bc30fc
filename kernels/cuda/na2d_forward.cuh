// Neighbourhood attention, one row of keys after the other with a running softmax (in base 2). For
// the backward pass it writes each query's log-sum and dy . y instead of y.
#ifndef GEOSEG_CUDA_NA2D_FORWARD_CUH
#define GEOSEG_CUDA_NA2D_FORWARD_CUH

#include "na2d_tile.cuh"

namespace geoseg {

constexpr int QUERY_WIDTH = 8;

struct Na2dQuery {
    Quad<QUERY_WIDTH> q, sum;
};

struct Na2dShared {
    float *bias, *keys, *values;
    Products scores;
    float *greatest, *total, *factor;  // [groups][GROUP]

    GEOSEG_INLINE Na2dShared(const Na2dTile<QUERY_WIDTH> &t, const Halo<QUERY_WIDTH> &halo,
                             float *shared)
        : bias(shared), keys(bias + bias_size(t)), values(keys + halo.columns * t.pitch()),
          scores(products_at(t, values + halo.columns * t.pitch())), greatest(scores.end()),
          total(greatest + t.groups * GROUP), factor(total + t.groups * GROUP) {}
};

// A query's share of the softmax over the columns [j0, j0 + count) of the group's keys: leaves the
// weights where the scores' first slice was, 0 for keys outside of the window.
GEOSEG_INLINE void soften(const Na2dTile<QUERY_WIDTH> &t, const Na2dShared &s,
                          const GroupWindow<QUERY_WIDTH> &window, int group, int i, int key_row,
                          int j0, int count) {
    const int x = t.column(group, i), at = group * GROUP + i;
    const int first = window_start(x, t.a.width, t.a.kernel) - window.start - j0;
    const int begin = greater(first, 0), end = smaller(first + t.a.kernel, count);
    const float *bias = s.bias + t.bias_index(key_row - window.row, window.start + j0 - x);
    const float before = s.greatest[at];
    float greatest = before;
    for (int j = begin; j < end; ++j) {
        const float score = s.scores.sum(j, group, i) + bias[j];
        s.scores.of(0, j, group, i) = score;
        greatest = greatest > score ? greatest : score;
    }
    const float factor = exp2_of(before - greatest);
    float total = s.total[at] * factor;
    for (int j = 0; j < count; ++j) {
        float &place = s.scores.of(0, j, group, i);
        place = j >= begin && j < end ? exp2_of(place - greatest) : 0.0f;
        total += place;
    }
    s.greatest[at] = greatest;
    s.total[at] = total;
    s.factor[at] = factor;
}

// Products of the queries with one row of keys, their softmax, the weighted values.
template <class Block>
GEOSEG_INLINE void attend(Block &block, const Na2dTile<QUERY_WIDTH> &t, const Na2dShared &s,
                          const Halo<QUERY_WIDTH> &halo, int key_row) {
    for (int j0 = 0; j0 < halo.span; j0 += t.a.columns_at_once) {
        const int count = smaller(t.a.columns_at_once, halo.span - j0);
        block.stage([&](int thread, Na2dQuery &own) {
            const int group = t.group(thread);
            const GroupWindow<QUERY_WIDTH> window(t, halo, group, key_row);
            if (!window.active) return;
            for (int j = 0; j < count; ++j) {
                const int column = smaller(window.in_strip + j0 + j, halo.columns - 1);
                s.scores.at(t.slice(thread), j, group) =
                    own.q.dot(s.keys + column * t.pitch() + t.channel0(thread));
            }
        });
        block.stage([&](int thread, Na2dQuery &) {
            const int group = t.group(thread);
            const GroupWindow<QUERY_WIDTH> window(t, halo, group, key_row);
            for (int i = t.slice(thread); window.active && i < GROUP; i += t.slices)
                soften(t, s, window, group, i, key_row, j0, count);
        });
        block.stage([&](int thread, Na2dQuery &own) {
            const int group = t.group(thread);
            const GroupWindow<QUERY_WIDTH> window(t, halo, group, key_row);
            if (!window.active) return;
            own.sum.scale(reinterpret_cast<const Float4 *>(s.factor)[group]);
            for (int j = 0; j < count; ++j) {
                const int column = smaller(window.in_strip + j0 + j, halo.columns - 1);
                own.sum.add(s.scores.at(0, j, group),
                            s.values + column * t.pitch() + t.channel0(thread));
            }
        });
    }
}

GEOSEG_INLINE void divide(const Na2dShared &s, int group, Quad<QUERY_WIDTH> &sum) {
    const float *total = s.total + group * GROUP;
    sum.scale({1.0f / total[0], 1.0f / total[1], 1.0f / total[2], 1.0f / total[3]});
}

// dy . y per slice and query, then per query beside the logarithm of the softmax's sum.
template <class Block>
GEOSEG_INLINE void write_statistics(Block &block, const Na2dTile<QUERY_WIDTH> &t,
                                    const Na2dShared &s) {
    block.stage([&](int thread, Na2dQuery &own) {
        Quad<QUERY_WIDTH> dy;
        read_quad(t, t.a.dy, nullptr, false, 1.0f, thread, dy);
        for (int i = 0; i < GROUP; ++i) {
            float sum = 0.0f;
            for (int c = 0; c < QUERY_WIDTH; ++c) sum += dy.at[i][c] * own.sum.at[i][c];
            s.scores.of(t.slice(thread), 0, t.group(thread), i) = sum;
        }
    });
    block.stage([&](int thread, Na2dQuery &) {
        const int group = t.group(thread);
        for (int i = t.slice(thread); i < GROUP; i += t.slices) {
            if (!t.exists(group, i)) continue;
            float *to = t.statistics(t.row(group), t.column(group, i));
            const int at = group * GROUP + i;
            to[0] = s.greatest[at] + log2_of(s.total[at]);
            to[1] = s.scores.sum(0, group, i);
        }
    });
}

// Grid: (tiles, heads, images).
template <class Block>
GEOSEG_INLINE void na2d_forward(Block &block, const Na2dArguments &a, float *shared) {
    const Na2dTile<QUERY_WIDTH> t(a, block.x(), block.y(), block.z());
    const Halo<QUERY_WIDTH> halo(t);
    const Na2dShared s(t, halo, shared);
    block.stage([&](int thread, Na2dQuery &own) {
        read_bias(t, thread, s.bias);
        read_quad(t, a.q, a.q_strides, t.turns(), a.scale * GEOSEG_LOG2E, thread, own.q);
        own.sum.clear();
        for (int i = thread; i < t.groups * GROUP; i += t.threads) {
            s.greatest[i] = -3.0e38f;
            s.total[i] = 0.0f;
        }
    });
    for (int row = halo.first_row; row <= halo.last_row; ++row) {
        block.stage([&](int thread, Na2dQuery &) {
            read_strip(t, a.k, a.k_strides, t.turns(), row, halo.first_column, halo.columns,
                       thread, s.keys);
            read_strip(t, a.v, a.v_strides, false, row, halo.first_column, halo.columns, thread,
                       s.values);
        });
        attend(block, t, s, halo, row);
    }
    block.stage([&](int thread, Na2dQuery &own) {
        divide(s, t.group(thread), own.sum);
        if (a.y) write_quad(t, a.y, false, thread, own.sum);
    });
    if (a.statistics) write_statistics(block, t, s);
}

}  // namespace geoseg

#endif
