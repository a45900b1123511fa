// Direct convolution and weight gradient, compiled once per instruction set (LKSPACE_VARIANT names the namespace).
//
// Channels are cut into groups (groups.h); a group of one image is packed into vectors (pack.h), correlated
// (correlate.h) and unpacked. Everything included here has internal linkage: code compiled for one instruction set must
// not be merged by the linker with the same template compiled for another.
#include "convolve.h"
#include "variants.h"
#include "weight_gradient.h"

namespace lkspace {
namespace LKSPACE_VARIANT {

void convolve(const Call& q) {
    switch (q.type) {
        case FLOAT32: return lkspace::convolve<float>(q);
        case BFLOAT16: return lkspace::convolve<Bfloat16>(q);
        default: return lkspace::convolve<Float16>(q);
    }
}

void weight_gradient(const Call& q) {
    switch (q.type) {
        case FLOAT32: return lkspace::weight_gradient<float>(q);
        case BFLOAT16: return lkspace::weight_gradient<Bfloat16>(q);
        default: return lkspace::weight_gradient<Float16>(q);
    }
}

// The peak that a benchmark compares with: independent sums in registers, enough to hide a multiply-add's latency.
double multiply_adds(int64_t threads) {
    constexpr int SUMS = 12;
    constexpr int64_t ROUNDS = 200000;
    float sink[64] = {};
    share(threads, threads, [&](int64_t piece) {
        Vector<WIDE> sum[SUMS] = {};
        const Vector<WIDE> w = Vector<WIDE>{} + 0.999f, x = Vector<WIDE>{} + 0.5f;
        for (int64_t round = 0; round < ROUNDS; ++round)
            LKSPACE_UNROLL for (int k = 0; k < SUMS; ++k) multiply_add<WIDE>(sum[k], w, x);
        Vector<WIDE> total = {};
        LKSPACE_UNROLL for (int k = 0; k < SUMS; ++k) total += sum[k];
        sink[piece % 64] = total[0];
    });
    return sink[0] != 0.0f ? static_cast<double>(threads * ROUNDS * SUMS * WIDE) : 0.0;
}

}  // namespace LKSPACE_VARIANT
}  // namespace lkspace
