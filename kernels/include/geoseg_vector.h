/* C interface of geoseg's polygoniser. Plain pointers and sizes: no Python.
 *
 * Rows of a class map go in from the top, features come out when they are complete. The method is
 * that of geoseg/vector/graph.py and trace.py, and the results are equal to the bit. One thread a
 * handle. Calls that return a negative number ran out of memory (-1) or were stopped by the
 * callback (-2). */
#ifndef GEOSEG_VECTOR_H
#define GEOSEG_VECTOR_H

#include "geoseg_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the squared form of a closed ring of `count` corners x, y to `out`, which has room for as
 * many, and returns how many it has; 0 leaves the ring, a negative number stops the call. */
typedef int64_t (*geoseg_square_ring)(const double *xy, int64_t count, double *out);

struct geoseg_polygon_options {
    int64_t height;
    int64_t width;
    int32_t connectivity;   /* 4 or 8 */
    int32_t square_count;   /* classes whose free-standing outlines get square corners */
    const int32_t *square_classes;
    geoseg_square_ring square;  /* NULL: none */
    double square_shift;    /* greatest distance by which `square` moves an outline, in pixels */
    double simplify;        /* greatest distance of an outline from its simpler form, in pixels */
    double smooth;          /* greatest distance by which rounding moves a corner, in pixels */
    double aspect;          /* height of a pixel in widths */
};

/* Features; arrays as in geoseg.vector.rows.PolygonBatch, valid until the next call. */
struct geoseg_polygon_batch {
    int64_t features, polygons, rings, vertices;
    const int32_t *class_id;
    const int64_t *pixels;
    const double *confidence;
    const uint8_t *on_edge;
    const double *xy;
    const int64_t *ring_offsets;
    const int64_t *polygon_offsets;
    const int64_t *feature_offsets;
    const uint8_t *squared;
};

/* Returns NULL when out of memory. */
GEOSEG_API void *geoseg_polygons_new(const struct geoseg_polygon_options *options);
GEOSEG_API void geoseg_polygons_free(void *handle);

/* codes (rows, width): class ids, -1 for none, -2 for a class that is left out. confidence alike or
 * NULL, NaN where there is none. */
GEOSEG_API int32_t geoseg_polygons_add_rows(
    void *handle, const int32_t *codes, const float *confidence, int64_t rows);
GEOSEG_API int32_t geoseg_polygons_finish(void *handle);

/* Fills `batch` with at most `most` complete features and returns how many. */
GEOSEG_API int64_t geoseg_polygons_pop(
    void *handle, int64_t most, struct geoseg_polygon_batch *batch);

/* Returns how many bytes the borders and features that are held take, about. */
GEOSEG_API int64_t geoseg_polygons_bytes(const void *handle);

#ifdef __cplusplus
}
#endif
#endif
