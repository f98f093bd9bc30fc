// Entries of the general selective scan.
#include "selective_scan_backward.cuh"

GEOSEG_KERNEL(selective_scan_sum_chunks, SelectiveScanArguments, Nothing, 64, 16)
GEOSEG_KERNEL(selective_scan_join_chunks, SelectiveScanArguments, Nothing, geoseg::CARRY_THREADS, 2)
GEOSEG_KERNEL(selective_scan_output, SelectiveScanArguments, Nothing, 64, 16)
GEOSEG_KERNEL(selective_scan_backward, SelectiveScanArguments, Nothing, 64, 8)
