/* C interface of the streamed sieve: which specks and holes of a class map become which class.
 * The rules are those of geoseg/vector/clean.py; geoseg/vector/sieve_reference.py is the readable
 * form. Works on one thread; memory is linear in the width and in the regions that are undecided.
 */
#ifndef GEOSEG_SIEVE_H
#define GEOSEG_SIEVE_H

#include "geoseg_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Pixels [first, stop) of a row that get another class. */
struct geoseg_sieve_change {
    int32_t row, first, stop, class_id;
};

struct geoseg_sieve;

/* min_area, fill_holes: in the units of the weights below, at most 2^62; connectivity: 4 or 8.
 * spare_records: runs and borders that may gather before regions are decided; changes memory and
 * time, never the result. NULL where memory is short. */
GEOSEG_API struct geoseg_sieve *geoseg_sieve_new(
    int64_t height, int64_t width, int64_t min_area, int64_t fill_holes, int32_t connectivity,
    int64_t spare_records);

/* Takes the next `count` rows of class ids, dense; -1 is nodata. weights: area of a pixel of each
 * of these rows. Returns the number of changes that are known and not taken yet; they may lie in
 * any row so far. -1 where memory is short: the sieve can only be freed then. */
GEOSEG_API int64_t geoseg_sieve_add(struct geoseg_sieve *sieve, const int32_t *rows,
                                    const int64_t *weights, int64_t count);

/* Moves the known changes, as many as geoseg_sieve_add said, into `changes`. */
GEOSEG_API void geoseg_sieve_take(struct geoseg_sieve *sieve, struct geoseg_sieve_change *changes);

/* Returns how many bytes the regions that are undecided take, about. */
GEOSEG_API int64_t geoseg_sieve_bytes(const struct geoseg_sieve *sieve);

GEOSEG_API void geoseg_sieve_free(struct geoseg_sieve *sieve);

#ifdef __cplusplus
}
#endif
#endif
