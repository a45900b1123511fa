// What follows the sums while they are still in a register or the first-level cache: bias and activation.
//
// ReLU keeps NaN, as torch's does. GELU is the exact one, x (1 + erf(x / sqrt 2)) / 2, with erf by Abramowitz and Stegun
// 7.1.26 (absolute error 1.5e-7) and exp by a polynomial on [-ln 2 / 2, ln 2 / 2].
#pragma once

#include "interface.h"
#include "pack.h"

namespace lkspace {
namespace {

template <int L>
struct Ints;
template <>
struct Ints<4> {
    typedef int32_t Type __attribute__((vector_size(16)));
};
template <>
struct Ints<8> {
    typedef int32_t Type __attribute__((vector_size(32)));
};
template <>
struct Ints<16> {
    typedef int32_t Type __attribute__((vector_size(64)));
};

// exp(x) for x <= 0; below -87 that of -87, which is next to nothing.
template <int L>
inline Vector<L> exponential(Vector<L> x) {
    typedef typename Ints<L>::Type Int;
    const Vector<L> least = Vector<L>{} - 87.0f;
    x = x < least ? least : x;
    const Vector<L> scaled = x * 1.44269504088896341f - 0.5f;
    const Int power = __builtin_convertvector(scaled, Int);  // towards zero: x / ln 2 rounded, as x <= 0
    const Vector<L> whole = __builtin_convertvector(power, Vector<L>);
    const Vector<L> r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln 2 in two parts
    const Vector<L> p =
        1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
    return p * (Vector<L>)((power + 127) << 23);
}

// erf(x / sqrt 2); `bell` becomes exp(-x^2 / 2).
template <int L>
inline Vector<L> error_function(Vector<L> x, Vector<L>& bell) {
    const Vector<L> zero = {}, z = x * 0.707106781186547524f, size = z < zero ? -z : z;
    const Vector<L> t = 1.0f / (1.0f + 0.3275911f * size);
    const Vector<L> p =
        t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    bell = exponential<L>(-size * size);
    const Vector<L> tail = p * bell;  // 1 - erf(size)
    return z < zero ? tail - 1.0f : 1.0f - tail;
}

template <int L>
inline Vector<L> gelu(Vector<L> x) {
    Vector<L> bell;
    const Vector<L> y = 0.5f * x * (1.0f + error_function<L>(x, bell));
    const Vector<L> zero = {}, infinity = zero + __builtin_inff();
    return x == -infinity ? zero * x : x == infinity ? x : x != x ? x : y;  // -inf: NaN, as torch gives
}

// The derivative of gelu.
template <int L>
inline Vector<L> gelu_slope(Vector<L> x) {
    Vector<L> bell;
    const Vector<L> below = 0.5f + 0.5f * error_function<L>(x, bell);
    return below + 0.398942280401432678f * x * bell;
}

template <int L>
inline Vector<L> activated(Vector<L> x, int64_t activation) {
    const Vector<L> zero = {};
    if (activation == RELU) return x < zero ? zero : x;
    if (activation == GELU) return gelu<L>(x);
    return x;
}

// rows x columns of vectors: plus bias, if there is one, then activated. Not inlined: it would cost a tile its registers.
template <int L>
__attribute__((noinline)) void finish(const Vectors& out, int rows, int columns, const float* bias, int64_t activation) {
    if (!bias && activation == NONE) return;
    const Vector<L> plus = bias ? load<L>(bias) : Vector<L>{};
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c) {
            float* const place = out.data + r * out.pitch + c * out.step;
            store<L>(place, activated<L>(load<L>(place) + plus, activation));
        }
}

}  // namespace
}  // namespace lkspace
