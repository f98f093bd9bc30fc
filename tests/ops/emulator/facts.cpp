// Lets the tests see what is inside of the headers: index maps, number formats, argument layouts.
#include "na2d_tile.cuh"
#include "scan_order.h"
#include "selective_scan_chunk.cuh"
#include "ss2d_chunk.cuh"
#include "ss2d_project.cuh"

#include <cstddef>

extern "C" {

// Steps at which the kernels' map differs from the one of the CPU kernels.
int scan_order_differences(int height, int width) {
    int wrong = 0;
    for (int step = 0; step < height * width; ++step)
        for (int columns = 0; columns < 2; ++columns)
            wrong += geoseg::pixel_of(step, columns, height, width) !=
                     pixel_at(step, columns, height, width);
    return wrong;
}

int window_start(int query, int length, int kernel) {
    return geoseg::window_start(query, length, kernel);
}
int first_query(int key, int kernel) { return geoseg::first_query(key, kernel); }
int last_query(int key, int length, int kernel) { return geoseg::last_query(key, length, kernel); }

float load(unsigned short raw) {
#if GEOSEG_IO == 0
    return raw;
#else
    return geoseg::load_io(&raw, 0);
#endif
}
unsigned short store(float x) {
#if GEOSEG_IO == 0
    return x;
#else
    unsigned short raw;
    geoseg::store_io(&raw, 0, x);
    return raw;
#endif
}
float softplus2(float z) { return geoseg::softplus2(z); }
float logistic(float z) {
    float slope;
    geoseg::softplus2(z, slope);
    return slope;
}

#define FIELD(Arguments, name) offsetof(geoseg::Arguments, name)
int size_of(int which) {
    const int sizes[4] = {sizeof(geoseg::Ss2dArguments), sizeof(geoseg::SelectiveScanArguments),
                          sizeof(geoseg::Na2dArguments), sizeof(geoseg::Ss2dProjectArguments)};
    return sizes[which];
}
// Of the fields that a wrong one before them would shift.
int offset_of(int which, int field) {
    const size_t ss2d[4] = {FIELD(Ss2dArguments, dy), FIELD(Ss2dArguments, parameters),
                            FIELD(Ss2dArguments, rank), FIELD(Ss2dArguments, slices)};
    const size_t scan[4] = {
        FIELD(SelectiveScanArguments, dy), FIELD(SelectiveScanArguments, parameters),
        FIELD(SelectiveScanArguments, states), FIELD(SelectiveScanArguments, softplus)};
    const size_t na2d[4] = {FIELD(Na2dArguments, v_strides), FIELD(Na2dArguments, dbias),
                            FIELD(Na2dArguments, scale), FIELD(Na2dArguments, columns_at_once)};
    const size_t project[4] = {FIELD(Ss2dProjectArguments, q), FIELD(Ss2dProjectArguments, pixels),
                               FIELD(Ss2dProjectArguments, channels),
                               FIELD(Ss2dProjectArguments, rows)};
    const size_t *all[4] = {ss2d, scan, na2d, project};
    return static_cast<int>(all[which][field]);
}
}
