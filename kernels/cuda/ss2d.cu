// Entries of the four-direction scan.
#include "ss2d_backward.cuh"
#include "ss2d_forward.cuh"
#include "ss2d_project.cuh"

GEOSEG_KERNEL(ss2d_project, Ss2dProjectArguments, ProjectSums, geoseg::PROJECT_THREADS, 8)
GEOSEG_KERNEL(ss2d_sum_8, Ss2dArguments, Nothing, geoseg::FORWARD_THREADS, 4)
GEOSEG_KERNEL(ss2d_sum_16, Ss2dArguments, Nothing, geoseg::FORWARD_THREADS, 4)
GEOSEG_KERNEL(ss2d_join_chunks, Ss2dArguments, Nothing, geoseg::CARRY_THREADS, 2)
GEOSEG_KERNEL(ss2d_output_8, Ss2dArguments, Nothing, geoseg::FORWARD_THREADS, 4)
GEOSEG_KERNEL(ss2d_output_16, Ss2dArguments, Nothing, geoseg::FORWARD_THREADS, 4)
GEOSEG_KERNEL(ss2d_sum_chunks_backward, Ss2dArguments, Nothing, geoseg::BACKWARD_THREADS, 8)
GEOSEG_KERNEL(ss2d_backward, Ss2dArguments, Nothing, geoseg::BACKWARD_THREADS, 8)
