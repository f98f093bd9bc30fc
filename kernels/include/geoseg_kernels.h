/* C interface of geoseg's CPU kernels. Plain pointers and sizes: no torch, no Python.
 *
 * Arrays are dense along x; strides are in elements. Every function works on one thread and may be
 * called from several at once on disjoint outputs. A result never depends on how the caller cuts
 * the work: each element takes the same sequence of operations wherever it lies in a vector.
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
#define GEOSEG_ABI_VERSION 1

enum geoseg_dtype {
    GEOSEG_UINT8 = 0,
    GEOSEG_UINT16 = 1,
    GEOSEG_INT16 = 2,
    GEOSEG_UINT32 = 3,
    GEOSEG_INT32 = 4,
    GEOSEG_FLOAT32 = 5,
    GEOSEG_FLOAT64 = 6,
    GEOSEG_INT8 = 7
};

GEOSEG_API int32_t geoseg_abi_version(void);

/* Name of the instruction set that the calls below run on, for example "x86-64-v4". */
GEOSEG_API const char *geoseg_instruction_set(void);

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

#ifdef __cplusplus
}
#endif
#endif
