// Weighted sums of overlapping tiles, and what is read off them once they are complete.
#include <type_traits>
#include <vector>

#include "exp.h"
#include "geoseg_kernels.h"
#include "isa.h"
#include "lanes.h"

namespace GEOSEG_NAMESPACE {

using geoseg::LANES;
using geoseg::lanes_left;

namespace {

// STRIDE is a constant where it is 1, so that this loop loads whole vectors.
template <typename Stride>
void blend_row(float *sum, const float *base, const float *logit, Stride stride, float wy,
               const float *weight_x, int64_t first, int64_t stop) {
    // Products and sum are rounded one by one (built without contraction), so vector body and
    // tail agree.
    if (base == nullptr)
        for (int64_t x = first; x < stop; ++x) sum[x] = (wy * weight_x[x]) * logit[x * stride];
    else
        for (int64_t x = first; x < stop; ++x)
            sum[x] = base[x] + (wy * weight_x[x]) * logit[x * stride];
}

void start_row(float *sum, const float *base, int64_t first, int64_t stop) {
    for (int64_t x = first; x < stop; ++x) sum[x] = base == nullptr ? 0.0f : base[x];
}

}  // namespace

void blend(float *sums, int64_t sums_plane_stride, int64_t sums_row_stride,
           const geoseg_blend_base *base, const float *logits, int64_t logits_plane_stride,
           int64_t logits_row_stride, int64_t logits_col_stride, const float *weight_y,
           const float *weight_x, int64_t planes, int64_t height, int64_t width) {
    const int64_t left_cols = base->left_cols;
    const std::integral_constant<int64_t, 1> dense{};
    // Rows outermost: interleaved logits are read from memory once, whatever the class count.
    for (int64_t y = 0; y < height; ++y) {
        for (int64_t k = 0; k < planes; ++k) {
            float *sum = sums + k * sums_plane_stride + y * sums_row_stride;
            const float *left = base->left + k * base->left_plane_stride + y * base->left_row_stride;
            const float *carry =
                y < base->carry_rows
                    ? base->carry + k * base->carry_plane_stride + y * base->carry_row_stride
                    : nullptr;
            if (logits == nullptr) {
                start_row(sum, left, 0, left_cols);
                start_row(sum, carry, left_cols, width);
                continue;
            }
            const float *logit = logits + k * logits_plane_stride + y * logits_row_stride;
            const float wy = weight_y[y];
            if (logits_col_stride == 1) {
                blend_row(sum, left, logit, dense, wy, weight_x, 0, left_cols);
                blend_row(sum, carry, logit, dense, wy, weight_x, left_cols, width);
            } else {
                blend_row(sum, left, logit, logits_col_stride, wy, weight_x, 0, left_cols);
                blend_row(sum, carry, logit, logits_col_stride, wy, weight_x, left_cols, width);
            }
        }
    }
}

namespace {

// Greatest logit per lane of one view; marks lanes with a value that is not finite.
void greatest(const float *logits, int64_t plane_stride, int64_t classes, float *best,
              int32_t *argbest, int32_t *bad) {
    for (int64_t i = 0; i < LANES; ++i) {
        best[i] = logits[i];
        argbest[i] = 0;
        bad[i] |= !(logits[i] - logits[i] == 0.0f);
    }
    for (int64_t k = 1; k < classes; ++k) {
        const float *plane = logits + k * plane_stride;
        for (int64_t i = 0; i < LANES; ++i) {
            const float v = plane[i];
            const bool more = v > best[i];
            best[i] = more ? v : best[i];
            argbest[i] = more ? static_cast<int32_t>(k) : argbest[i];
            bad[i] |= !(v - v == 0.0f);
        }
    }
}

// Adds softmax(logits * inverse_temperature) / views of one view to probs (classes, LANES).
void add_softmax(const float *logits, int64_t plane_stride, int64_t classes,
                 float inverse_temperature, float share, const float *best, float *probs) {
    float total[LANES] = {};
    float power[LANES];
    for (int pass = 0; pass < 2; ++pass) {
        float scale[LANES];
        for (int64_t i = 0; i < LANES; ++i) scale[i] = pass ? share / total[i] : 0.0f;
        for (int64_t k = 0; k < classes; ++k) {
            const float *plane = logits + k * plane_stride;
            for (int64_t i = 0; i < LANES; ++i)
                power[i] = geoseg_exp_negative((plane[i] - best[i]) * inverse_temperature);
            if (pass == 0) {
                for (int64_t i = 0; i < LANES; ++i) total[i] += power[i];
            } else {
                float *out = probs + k * LANES;
                for (int64_t i = 0; i < LANES; ++i) out[i] += power[i] * scale[i];
            }
        }
    }
}

// Confidence of a single view without keeping the probabilities: 1 / sum of exp(l - greatest).
void confidence_of_best(const float *logits, int64_t plane_stride, int64_t classes,
                        float inverse_temperature, const float *best, float *confidence) {
    float total[LANES] = {};
    for (int64_t k = 0; k < classes; ++k) {
        const float *plane = logits + k * plane_stride;
        for (int64_t i = 0; i < LANES; ++i)
            total[i] += geoseg_exp_negative((plane[i] - best[i]) * inverse_temperature);
    }
    for (int64_t i = 0; i < LANES; ++i) confidence[i] = 1.0f / total[i];
}

// NaN, of pixels that are counted as bad, must not reach the undefined float-to-int conversion.
uint8_t quantize(float p) {
    const float steps = p * 254.0f + 0.5f;
    return steps >= 0.0f && steps < 255.0f ? static_cast<uint8_t>(static_cast<int32_t>(steps)) : 0;
}

struct Block {
    const float *logits;
    int64_t plane_stride;
    int64_t views;
    int64_t classes;
    float inverse_temperature;
};

// One block of LANES pixels. probs is scratch (classes, LANES), used when all of them are wanted.
void classify_lanes(const Block &b, bool want_probs, bool want_confidence, float *probs,
                    int32_t *argbest, float *confidence, int32_t *bad) {
    float best[LANES];
    if (!want_probs) {
        greatest(b.logits, b.plane_stride, b.classes, best, argbest, bad);
        if (want_confidence)
            confidence_of_best(b.logits, b.plane_stride, b.classes, b.inverse_temperature, best,
                               confidence);
        return;
    }
    for (int64_t i = 0; i < b.classes * LANES; ++i) probs[i] = 0.0f;
    const float share = 1.0f / static_cast<float>(b.views);
    for (int64_t v = 0; v < b.views; ++v) {
        const float *view = b.logits + v * b.classes * b.plane_stride;
        greatest(view, b.plane_stride, b.classes, best, argbest, bad);
        add_softmax(view, b.plane_stride, b.classes, b.inverse_temperature, share, best, probs);
    }
    if (b.views == 1) {  // the logits decide: two of them may share one rounded probability
        for (int64_t i = 0; i < LANES; ++i) confidence[i] = probs[argbest[i] * LANES + i];
        return;
    }
    int32_t ignored[LANES] = {};
    greatest(probs, LANES, b.classes, confidence, argbest, ignored);
}

void store(const geoseg_class_output &out, int64_t row, int64_t col, int64_t n, int64_t classes,
           const uint16_t *ids, const uint8_t *valid, const int32_t *argbest,
           const float *confidence, const float *probs) {
    const int64_t at = row * out.row_stride + col;
    if (out.class_bytes == 1) {
        uint8_t *map = static_cast<uint8_t *>(out.class_map) + at;
        const uint8_t none = static_cast<uint8_t>(out.class_nodata);
        for (int64_t i = 0; i < n; ++i)
            map[i] = valid == nullptr || valid[i] ? static_cast<uint8_t>(ids[argbest[i]]) : none;
    } else {
        uint16_t *map = static_cast<uint16_t *>(out.class_map) + at;
        const uint16_t none = static_cast<uint16_t>(out.class_nodata);
        for (int64_t i = 0; i < n; ++i)
            map[i] = valid == nullptr || valid[i] ? ids[argbest[i]] : none;
    }
    if (out.confidence != nullptr)
        for (int64_t i = 0; i < n; ++i)
            out.confidence[at + i] = valid == nullptr || valid[i] ? quantize(confidence[i]) : 255;
    if (out.probabilities != nullptr)
        for (int64_t k = 0; k < classes; ++k)
            for (int64_t i = 0; i < n; ++i)
                out.probabilities[k * out.plane_stride + at + i] =
                    valid == nullptr || valid[i] ? quantize(probs[k * LANES + i]) : 255;
}

}  // namespace

int64_t classify(const float *logits, int64_t plane_stride, int64_t row_stride, int64_t views,
                 int64_t classes, float inverse_temperature, const uint16_t *ids,
                 const uint8_t *valid, int64_t valid_row_stride, int64_t height, int64_t width,
                 const geoseg_class_output *out) {
    const bool want_probs = out->probabilities != nullptr || views > 1;
    const bool want_confidence = out->confidence != nullptr;
    std::vector<float> probs(want_probs ? classes * LANES : 0);
    std::vector<float> tail(views * classes * LANES);
    int64_t bad_pixels = 0;
    for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; x += LANES) {
            const int64_t n = lanes_left(x, width);
            Block block{logits + y * row_stride + x, plane_stride, views, classes,
                        inverse_temperature};
            if (n < LANES) {
                for (int64_t p = 0; p < views * classes; ++p)
                    for (int64_t i = 0; i < LANES; ++i)
                        tail[p * LANES + i] = i < n ? block.logits[p * plane_stride + i] : 0.0f;
                block.logits = tail.data();
                block.plane_stride = LANES;
            }
            int32_t argbest[LANES];
            int32_t bad[LANES] = {};
            float best_probability[LANES] = {};
            classify_lanes(block, want_probs, want_confidence, probs.data(), argbest,
                           best_probability, bad);
            const uint8_t *ok = valid == nullptr ? nullptr : valid + y * valid_row_stride + x;
            for (int64_t i = 0; i < n; ++i)
                bad_pixels += bad[i] != 0 && (ok == nullptr || ok[i] != 0);
            store(*out, y, x, n, classes, ids, ok, argbest, best_probability, probs.data());
        }
    }
    return bad_pixels;
}

}  // namespace GEOSEG_NAMESPACE
