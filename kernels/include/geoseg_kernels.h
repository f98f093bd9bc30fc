/* C interface of geoseg's CPU kernels. Plain pointers and sizes: no torch, no Python.
 *
 * Images: arrays are dense along x; strides are in elements. Every function works on one thread and
 * may be called from several at once on disjoint outputs. A result never depends on how the caller
 * cuts the work: each element takes the same sequence of operations wherever it lies in a vector.
 *
 * Networks: tensors are dense unless strides are given. A function divides its work among `threads`
 * threads; the result is the same for any number. Scratch memory is the caller's, 64-byte aligned,
 * of the size that the function ..._workspace returns in bytes. Functions return 0, or 1 for a dtype
 * that they do not take.
 */
#ifndef GEOSEG_KERNELS_H
#define GEOSEG_KERNELS_H

#include <stdint.h>

#if defined(_WIN32)
#define GEOSEG_API __declspec(dllexport)
#else
#define GEOSEG_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes with any signature below; the Python side refuses another one. */
#define GEOSEG_ABI_VERSION 5

enum geoseg_dtype {
    GEOSEG_UINT8 = 0,
    GEOSEG_UINT16 = 1,
    GEOSEG_INT16 = 2,
    GEOSEG_UINT32 = 3,
    GEOSEG_INT32 = 4,
    GEOSEG_FLOAT32 = 5,
    GEOSEG_FLOAT64 = 6,
    GEOSEG_INT8 = 7,
    GEOSEG_BFLOAT16 = 8
};

GEOSEG_API int32_t geoseg_abi_version(void);

/* Name of the instruction set that the calls below run on, for example "x86-64-v4". */
GEOSEG_API const char *geoseg_instruction_set(void);

/* Makes later calls run on a lesser instruction set, for tests and benchmarks. Returns 0, or 1 where
 * there is no such build or the processor lacks it. Not while another call is running. */
GEOSEG_API int32_t geoseg_use_instruction_set(const char *name);

/* out[y][x][c] = values[c][y][x] * gain[c] + bias[c], and 0 where valid[y][x] is 0.
 * valid may be NULL (all valid). Returns 0, or 1 for an unknown dtype. */
GEOSEG_API int32_t geoseg_normalize(
    const void *values, int32_t dtype, int64_t band_stride, int64_t row_stride,
    const uint8_t *valid, int64_t valid_row_stride,
    const float *gain, const float *bias,
    int64_t bands, int64_t height, int64_t width, float *out);

/* What a tile's sums start from: its left neighbour's, then the rows carried from above. */
struct geoseg_blend_base {
    const float *left;         /* sums of the left neighbour at this tile's first column */
    int64_t left_plane_stride;
    int64_t left_row_stride;
    int64_t left_cols;         /* columns shared with it; 0 at the start of a strip */
    const float *carry;        /* sums of the tile row above at this tile's first column */
    int64_t carry_plane_stride;
    int64_t carry_row_stride;
    int64_t carry_rows;        /* rows shared with it; 0 at the top */
};

/* sums[k][y][x] = base[k][y][x] + weight_y[y] * weight_x[x] * logits[k][y][x]
 * base is left where x < left_cols, else carry where y < carry_rows, else 0.
 * logits may be NULL (the tile is empty), dense along x (column stride 1) or along classes (column
 * stride = classes). sums must not overlap with the inputs. */
GEOSEG_API void geoseg_blend(
    float *sums, int64_t sums_plane_stride, int64_t sums_row_stride,
    const struct geoseg_blend_base *base,
    const float *logits, int64_t logits_plane_stride, int64_t logits_row_stride,
    int64_t logits_col_stride, const float *weight_y, const float *weight_x,
    int64_t planes, int64_t height, int64_t width);

/* Where geoseg_classify writes. Planes and rows are strided in elements, columns are dense. */
struct geoseg_class_output {
    void *class_map;           /* class ids, uint8 or uint16 */
    uint8_t *confidence;       /* NULL, or round(254 p) of the class */
    uint8_t *probabilities;    /* NULL, or classes planes of round(254 p) */
    int64_t row_stride;        /* of all three */
    int64_t plane_stride;      /* of the probabilities */
    int32_t class_bytes;       /* 1 or 2 */
    int32_t class_nodata;      /* where not valid; the scores get 255 there */
};

/* Class, confidence and probabilities of blended logits.
 *
 * logits: views * classes planes. The views' softmax results are averaged.
 * inverse_temperature: factor on the logits before the softmax.
 * ids: class id of each channel; the greatest probability wins, the first of equals.
 * valid: NULL (all), or 0 where the map has no answer.
 * Returns the number of valid pixels whose logits are not all finite. */
GEOSEG_API int64_t geoseg_classify(
    const float *logits, int64_t plane_stride, int64_t row_stride,
    int64_t views, int64_t classes, float inverse_temperature, const uint16_t *ids,
    const uint8_t *valid, int64_t valid_row_stride,
    int64_t height, int64_t width, const struct geoseg_class_output *output);

/* How one value is made of four: the most frequent, the first of equals; or their rounded mean. */
enum geoseg_rule { GEOSEG_MODE = 0, GEOSEG_AVERAGE = 1 };

/* out[y][x], ceil(height / 2) x ceil(width / 2), from values[2y..2y+1][2x..2x+1], rows strided in
 * elements, columns dense. The last row or column of an odd number stands for two. nodata does not
 * count; four of it make nodata. Returns 0, or 1 for an unknown rule or a dtype that is not UINT8 or
 * UINT16. */
GEOSEG_API int32_t geoseg_halve(
    const void *values, int32_t dtype, int64_t row_stride, int64_t height, int64_t width,
    int32_t rule, int32_t nodata, void *out, int64_t out_row_stride);

/* The four-direction scan of a map (batch, height, width, channels) with one state per channel:
 *   z = dt_bias + sum_r dt_weight_r q_r;  d = softplus(z)
 *   h = exp(-exp(a_logs) d) h + d q_B x;  y += q_C h + ds x
 * along rows, columns, and both backwards. q holds, per pixel and direction, rank rows of z, then B,
 * then C. All but x and y are float32 (float64 where x is). */
struct geoseg_ss2d_scan {
    int32_t dtype;  /* of x and y: FLOAT32, FLOAT64 or BFLOAT16 */
    int64_t batch, height, width, channels, rank;
    const void *x;
    const void *q;          /* (batch, height, width, 4, rank + 2) */
    const void *dt_weight;  /* (4, channels, rank) */
    const void *dt_bias;    /* (4, channels) */
    const void *a_logs;     /* (4, channels) */
    const void *ds;         /* (4, channels) */
};

/* Gradients, shaped as what they belong to. Those of parameters are added to: zero them before. */
struct geoseg_ss2d_grads {
    void *x, *q, *dt_weight, *dt_bias, *a_logs, *ds;
};

GEOSEG_API int64_t geoseg_ss2d_workspace(const struct geoseg_ss2d_scan *scan, int32_t threads);
GEOSEG_API int32_t geoseg_ss2d(const struct geoseg_ss2d_scan *scan, void *y, void *workspace,
                               int32_t threads);
GEOSEG_API int64_t geoseg_ss2d_backward_workspace(const struct geoseg_ss2d_scan *scan);
/* FLOAT32 and FLOAT64 only. */
GEOSEG_API int32_t geoseg_ss2d_backward(const struct geoseg_ss2d_scan *scan, const void *dy,
                                        const struct geoseg_ss2d_grads *grads, void *workspace,
                                        int32_t threads);

/* The selective scan for any number of states and groups. Sequences are (batch, length, channels);
 * b and c are (batch, groups, length, states); FLOAT32 or FLOAT64. */
struct geoseg_sequences {
    int32_t dtype;
    int32_t softplus;       /* whether delta + delta_bias goes through softplus */
    int64_t batch, channels, length, states, groups;
    const void *u, *delta, *b, *c;
    const void *a;          /* (channels, states) */
    const void *d;          /* (channels), or NULL */
    const void *delta_bias; /* (channels), or NULL */
};

/* Shaped as what they belong to; those of a, d and delta_bias once per image. */
struct geoseg_sequence_grads {
    void *u, *delta, *b, *c, *a, *d, *delta_bias;
};

GEOSEG_API int64_t geoseg_selective_scan_workspace(const struct geoseg_sequences *scan,
                                                   int32_t threads, int32_t backward);
GEOSEG_API int32_t geoseg_selective_scan(const struct geoseg_sequences *scan, void *y,
                                         void *workspace, int32_t threads);
GEOSEG_API int32_t geoseg_selective_scan_backward(
    const struct geoseg_sequences *scan, const void *dy,
    const struct geoseg_sequence_grads *grads, void *workspace, int32_t threads);

/* Neighbourhood attention of maps (batch, height, width, heads, dim):
 *   softmax(scale rotated(q) . rotated(k) + bias) v over the kernel x kernel window of each query.
 * The result is dense. Maps are at least as large as the kernel, which is odd, 3 to 13. */
struct geoseg_attention {
    int32_t dtype;          /* of q, k, v and the result: FLOAT32, FLOAT64 or BFLOAT16 */
    int64_t batch, height, width, heads, dim, kernel;
    const void *q, *k, *v;  /* dense along dim */
    int64_t q_stride[4], k_stride[4], v_stride[4];  /* of image, row, column, head */
    const void *bias;       /* (heads, 2 kernel - 1, 2 kernel - 1), or NULL */
    const void *rope_rows;  /* sine, cosine of each row's dim / 4 angles, or NULL */
    const void *rope_columns;
    double scale;
};

/* Dense, shaped as what they belong to; that of the bias once per image, zeroed before. */
struct geoseg_attention_grads {
    void *q, *k, *v, *bias;
};

GEOSEG_API int64_t geoseg_na2d_workspace(const struct geoseg_attention *attention, int32_t threads);
GEOSEG_API int32_t geoseg_na2d(const struct geoseg_attention *attention, void *y, void *workspace,
                               int32_t threads);
GEOSEG_API int64_t geoseg_na2d_backward_workspace(const struct geoseg_attention *attention,
                                                  int32_t threads);
/* FLOAT32 and FLOAT64 only. */
GEOSEG_API int32_t geoseg_na2d_backward(const struct geoseg_attention *attention, const void *dy,
                                        const struct geoseg_attention_grads *grads, void *workspace,
                                        int32_t threads);

#ifdef __cplusplus
}
#endif
#endif
