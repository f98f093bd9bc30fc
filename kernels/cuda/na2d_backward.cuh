// Gradients of neighbourhood attention from each query's log-sum and dy . y:
//   p = exp(score - logsum), ds = p (dy . v - dy . y)
//   dq = scale sum ds k, dbias = sum ds; dk = scale sum ds q, dv = sum p dy
// One pass over queries and one over keys, which gather the queries that see them: nothing is added
// by two blocks, so the order of every sum is fixed.
#ifndef GEOSEG_CUDA_NA2D_BACKWARD_CUH
#define GEOSEG_CUDA_NA2D_BACKWARD_CUH

#include "na2d_tile.cuh"

namespace geoseg {

// Half of the forward pass's: four maps in registers instead of two.
constexpr int GRADIENT_WIDTH = 4;
typedef Na2dTile<GRADIENT_WIDTH> GradientTile;
typedef Halo<GRADIENT_WIDTH> GradientHalo;
typedef GroupWindow<GRADIENT_WIDTH> GradientWindow;

struct Na2dQueryGradient {
    Quad<GRADIENT_WIDTH> q, dy, dq;
};

struct Na2dQueryShared {
    float *bias, *dbias, *keys, *values;
    Products scores, products;

    GEOSEG_INLINE Na2dQueryShared(const GradientTile &t, const GradientHalo &halo,
                                  float *shared)
        : bias(shared), dbias(bias + bias_size(t)), keys(dbias + bias_size(t)),
          values(keys + halo.columns * t.pitch()),
          scores(products_at(t, values + halo.columns * t.pitch())),
          products(products_at(t, scores.end())) {}
};

// ds of a query over the columns [j0, j0 + count) of the group's keys, in the scores' first slice;
// 0 for keys outside of the window and for queries past the border.
GEOSEG_INLINE void query_gradient(const GradientTile &t, const Na2dQueryShared &s,
                                  const GradientWindow &window, int group, int i,
                                  int key_row, int j0, int count) {
    const int x = t.column(group, i);
    const int first = window_start(x, t.a.width, t.a.kernel) - window.start - j0;
    const float *bias = s.bias + t.bias_index(key_row - window.row, window.start + j0 - x);
    const float *statistics = t.statistics(window.row, x);
    const float logsum = statistics[0], mean = statistics[1];
    for (int j = 0; j < count; ++j) {
        float ds = 0.0f;
        if (t.exists(group, i) && j >= first && j < first + t.a.kernel)
            ds = exp2_of(s.scores.sum(j, group, i) + bias[j] - logsum) *
                 (s.products.sum(j, group, i) - mean);
        s.scores.of(0, j, group, i) = ds;
    }
}

// Adds ds of one row of queries to the offset that each job owns: for one row of keys, all rows of
// queries have other offsets.
GEOSEG_INLINE void add_bias_gradient(const GradientTile &t, const Na2dQueryShared &s,
                                     const GradientHalo &halo, int key_row, int j0, int count,
                                     int thread) {
    const int width = t.bias_width(), halves = TILE_COLUMNS / GROUP;
    for (int job = thread; job < t.a.tile_rows * width; job += t.threads) {
        const int row = job / width, offset = job % width - (t.a.kernel - 1);
        const GradientWindow window(t, halo, row * halves, key_row);
        if (!window.active || t.y0 + row >= t.a.height) continue;
        float sum = 0.0f;
        for (int half = 0; half < halves; ++half) {
            const int group = row * halves + half;
            const int start = window_start(t.column(group, 0), t.a.width, t.a.kernel) + j0;
            for (int i = 0; i < GROUP; ++i) {
                const int j = t.column(group, i) + offset - start;
                if (j >= 0 && j < count) sum += s.scores.of(0, j, group, i);
            }
        }
        s.dbias[t.bias_index(key_row - window.row, offset)] += sum;
    }
}

template <class Block>
GEOSEG_INLINE void query_row(Block &block, const GradientTile &t, const Na2dQueryShared &s,
                             const GradientHalo &halo, int key_row) {
    for (int j0 = 0; j0 < halo.span; j0 += t.a.columns_at_once) {
        const int count = smaller(t.a.columns_at_once, halo.span - j0);
        block.stage([&](int thread, Na2dQueryGradient &own) {
            const int group = t.group(thread), c0 = t.channel0(thread);
            const GradientWindow window(t, halo, group, key_row);
            if (!window.active) return;
            for (int j = 0; j < count; ++j) {
                const int at = smaller(window.in_strip + j0 + j, halo.columns - 1) * t.pitch() + c0;
                s.scores.at(t.slice(thread), j, group) = own.q.dot(s.keys + at);
                s.products.at(t.slice(thread), j, group) = own.dy.dot(s.values + at);
            }
        });
        block.stage([&](int thread, Na2dQueryGradient &) {
            const int group = t.group(thread);
            const GradientWindow window(t, halo, group, key_row);
            for (int i = t.slice(thread); window.active && i < GROUP; i += t.slices)
                query_gradient(t, s, window, group, i, key_row, j0, count);
        });
        block.stage([&](int thread, Na2dQueryGradient &own) {
            const int group = t.group(thread), c0 = t.channel0(thread);
            const GradientWindow window(t, halo, group, key_row);
            for (int j = 0; window.active && j < count; ++j) {
                const int column = smaller(window.in_strip + j0 + j, halo.columns - 1);
                own.dq.add(s.scores.at(0, j, group), s.keys + column * t.pitch() + c0);
            }
            if (t.a.dbias) add_bias_gradient(t, s, halo, key_row, j0, count, thread);
        });
    }
}

// Grid: (tiles, heads, images).
template <class Block>
GEOSEG_INLINE void na2d_backward_queries(Block &block, const Na2dArguments &a, float *shared) {
    const GradientTile t(a, block.x(), block.y(), block.z());
    const GradientHalo halo(t);
    const Na2dQueryShared s(t, halo, shared);
    block.stage([&](int thread, Na2dQueryGradient &own) {
        read_bias(t, thread, s.bias);
        for (int i = thread; i < bias_size(t); i += t.threads) s.dbias[i] = 0.0f;
        read_quad(t, a.q, a.q_strides, t.turns(), a.scale * GEOSEG_LOG2E, thread, own.q);
        read_quad(t, a.dy, nullptr, false, 1.0f, thread, own.dy);
        own.dq.clear();
    });
    for (int row = halo.first_row; row <= halo.last_row; ++row) {
        block.stage([&](int thread, Na2dQueryGradient &) {
            read_strip(t, a.k, a.k_strides, t.turns(), row, halo.first_column, halo.columns,
                       thread, s.keys);
            read_strip(t, a.v, a.v_strides, false, row, halo.first_column, halo.columns, thread,
                       s.values);
        });
        query_row(block, t, s, halo, row);
    }
    block.stage([&](int thread, Na2dQueryGradient &own) {
        own.dq.scale({a.scale, a.scale, a.scale, a.scale});
        write_quad(t, a.dq, t.turns(), thread, own.dq);
        const int size = t.bias_width() * t.bias_width();
        const int tiles = blocks_of(a.height, a.tile_rows) * blocks_of(a.width, TILE_COLUMNS);
        const int64 part = static_cast<int64>(t.image) * tiles + block.x();
        for (int i = thread; a.dbias && i < size; i += t.threads)
            a.dbias[(part * a.heads + t.head) * size + i] = s.dbias[i];
    });
}

struct Na2dKeyGradient {
    Quad<GRADIENT_WIDTH> k, v, dk, dv;
};

// The queries that see the tile's keys.
struct Seers {
    int first_row, last_row, first_column, columns, span;

    GEOSEG_INLINE explicit Seers(const GradientTile &t) {
        const int kernel = t.a.kernel, height = t.a.height, width = t.a.width;
        first_row = first_query(t.y0, kernel);
        last_row = last_query(t.last_row(), height, kernel);
        first_column = first_query(t.x0, kernel);
        columns = last_query(t.last_column(), width, kernel) + 1 - first_column;
        span = 0;
        for (int group = 0; group < TILE_COLUMNS / GROUP; ++group)
            span = greater(span, last_query(t.column(group, GROUP - 1), width, kernel) + 1 -
                                     first_query(t.column(group, 0), kernel));
    }
};

struct Na2dKeyShared {
    float *bias, *queries, *dy, *statistics;  // the last: log-sum and dy . y per query
    Products scores, products;

    GEOSEG_INLINE Na2dKeyShared(const GradientTile &t, const Seers &seers, float *shared)
        : bias(shared), queries(bias + bias_size(t)), dy(queries + seers.columns * t.pitch()),
          statistics(dy + seers.columns * t.pitch()),
          scores(products_at(t, statistics + (2 * seers.columns + 3) / 4 * 4)),
          products(products_at(t, scores.end())) {}
};

GEOSEG_INLINE bool sees(int query, int key, int length, int kernel) {
    const int from = key - window_start(query, length, kernel);
    return from >= 0 && from < kernel;
}

// ds and p of a key over the columns [j0, j0 + count) of the queries that see the group.
GEOSEG_INLINE void key_gradient(const GradientTile &t, const Na2dKeyShared &s,
                                const Seers &seers, int group, int i, int query_row, int j0,
                                int count) {
    const int x = t.column(group, i), start = first_query(t.column(group, 0), t.a.kernel) + j0;
    for (int j = 0; j < count; ++j) {
        const int query = start + j;
        float p = 0.0f, ds = 0.0f;
        if (query < t.a.width && sees(query, x, t.a.width, t.a.kernel)) {
            const float *statistics = s.statistics + 2 * (query - seers.first_column);
            const float bias = s.bias[t.bias_index(t.row(group) - query_row, x - query)];
            p = exp2_of(s.scores.sum(j, group, i) + bias - statistics[0]);
            ds = p * (s.products.sum(j, group, i) - statistics[1]);
        }
        s.scores.of(0, j, group, i) = ds;
        s.products.of(0, j, group, i) = p;
    }
}

template <class Block>
GEOSEG_INLINE void key_row(Block &block, const GradientTile &t, const Na2dKeyShared &s,
                           const Seers &seers, int query_row) {
    const int kernel = t.a.kernel;
    for (int j0 = 0; j0 < seers.span; j0 += t.a.columns_at_once) {
        const int count = smaller(t.a.columns_at_once, seers.span - j0);
        // Where column j of a group lies in the strips.
        const auto at = [&](int group, int thread, int j) {
            const int first = first_query(t.column(group, 0), kernel) - seers.first_column;
            return smaller(first + j0 + j, seers.columns - 1) * t.pitch() + t.channel0(thread);
        };
        block.stage([&](int thread, Na2dKeyGradient &own) {
            const int group = t.group(thread);
            if (!sees(query_row, t.row(group), t.a.height, kernel)) return;
            for (int j = 0; j < count; ++j) {
                const int from = at(group, thread, j), slice = t.slice(thread);
                s.scores.at(slice, j, group) = own.k.dot(s.queries + from);
                s.products.at(slice, j, group) = own.v.dot(s.dy + from);
            }
        });
        block.stage([&](int thread, Na2dKeyGradient &) {
            const int group = t.group(thread);
            if (!sees(query_row, t.row(group), t.a.height, kernel)) return;
            for (int i = t.slice(thread); i < GROUP; i += t.slices)
                key_gradient(t, s, seers, group, i, query_row, j0, count);
        });
        block.stage([&](int thread, Na2dKeyGradient &own) {
            const int group = t.group(thread);
            if (!sees(query_row, t.row(group), t.a.height, kernel)) return;
            for (int j = 0; j < count; ++j) {
                own.dk.add(s.scores.at(0, j, group), s.queries + at(group, thread, j));
                own.dv.add(s.products.at(0, j, group), s.dy + at(group, thread, j));
            }
        });
    }
}

// Grid: (tiles, heads, images).
template <class Block>
GEOSEG_INLINE void na2d_backward_keys(Block &block, const Na2dArguments &a, float *shared) {
    const GradientTile t(a, block.x(), block.y(), block.z());
    const Seers seers(t);
    const Na2dKeyShared s(t, seers, shared);
    block.stage([&](int thread, Na2dKeyGradient &own) {
        read_bias(t, thread, s.bias);
        read_quad(t, a.k, a.k_strides, t.turns(), a.scale * GEOSEG_LOG2E, thread, own.k);
        read_quad(t, a.v, a.v_strides, false, 1.0f, thread, own.v);
        own.dk.clear();
        own.dv.clear();
    });
    for (int row = seers.first_row; row <= seers.last_row; ++row) {
        block.stage([&](int thread, Na2dKeyGradient &) {
            read_strip(t, a.q, a.q_strides, t.turns(), row, seers.first_column, seers.columns,
                       thread, s.queries);
            read_strip(t, a.dy, nullptr, false, row, seers.first_column, seers.columns, thread,
                       s.dy);
            const float *statistics = t.statistics(row, seers.first_column);
            for (int i = thread; i < 2 * seers.columns; i += t.threads)
                s.statistics[i] = statistics[i];
        });
        key_row(block, t, s, seers, row);
    }
    block.stage([&](int thread, Na2dKeyGradient &own) {
        own.dk.scale({a.scale, a.scale, a.scale, a.scale});
        write_quad(t, a.dk, t.turns(), thread, own.dk);
        write_quad(t, a.dv, false, thread, own.dv);
    });
}

}  // namespace geoseg

#endif
