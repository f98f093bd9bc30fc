// exp(x) for x <= 0, the only case a softmax needs once the greatest logit is subtracted.
#ifndef GEOSEG_EXP_H
#define GEOSEG_EXP_H

#include <cstdint>
#include <cstring>

// exp(x) = 2^n * 2^f with n = round(x / ln 2) and |f| <= 1/2; 2^f by a degree-6 Taylor polynomial.
// Relative error below 2e-7. Branch-free, so that a loop over it becomes vector code.
static inline float geoseg_exp_negative(float x) {
    const float log2e = 1.44269504088896341f;
    float t = x * log2e;
    t = t < -126.0f ? -126.0f : t;  // below, the result is 0 for every purpose here
    const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const float n = (t + shift) - shift;
    const float f = t - n;
    float p = 1.5403530e-4f;  // ln(2)^i / i!
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

#endif
