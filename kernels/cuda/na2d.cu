// Entries of neighbourhood attention.
#include "na2d_backward.cuh"
#include "na2d_forward.cuh"

GEOSEG_KERNEL(na2d_forward, Na2dArguments, Na2dQuery, 256, 2)
GEOSEG_KERNEL(na2d_backward_queries, Na2dArguments, Na2dQueryGradient, 512, 1)
GEOSEG_KERNEL(na2d_backward_keys, Na2dArguments, Na2dKeyGradient, 512, 1)
