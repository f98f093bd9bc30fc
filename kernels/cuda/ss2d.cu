// Entries of the four-direction scan.
#include "ss2d_backward.cuh"

GEOSEG_KERNEL(ss2d_sum_chunks, Ss2dArguments, Nothing, 64, 16)
GEOSEG_KERNEL(ss2d_sum_chunks_backward, Ss2dArguments, Nothing, geoseg::BACKWARD_THREADS, 8)
GEOSEG_KERNEL(ss2d_join_chunks, Ss2dArguments, Nothing, geoseg::CARRY_THREADS, 2)
GEOSEG_KERNEL(ss2d_output, Ss2dArguments, Nothing, 64, 16)
GEOSEG_KERNEL(ss2d_backward, Ss2dArguments, Nothing, geoseg::BACKWARD_THREADS, 8)
