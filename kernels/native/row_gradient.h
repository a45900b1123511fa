// Kernels 3 wide, the weight gradient of channels_last tensors, read in place as in rows.h:
//
//     out(s, t) += sum over a, b of  map(a, b) * image(a + s - ph, b + t - pw),   map being y's gradient
//
// For one row a of the map and ROWS kernel rows s, ROWS * KW sums stay in registers while b runs along the row:
//
//        g0 g1 g2 ..  ->        one load of the map per pixel, each product's image vector a memory operand
//        x . . .   row a + s - ph         sum(s, 0) += g(b) x(b - pw), sum(s, 1) += g(b) x(b - pw + 1), ...
//        x . . .   row a + s + 1 - ph
//
// Then the sums go back to memory, and the next group follows: neighbouring groups lie in the same cache lines.
#pragma once

#include "correlate.h"

namespace lkspace {
namespace {

struct RowGradient {
    const float *image, *map;  // of row 0
    int64_t image_pitch, image_column, map_pitch, map_column;  // groups are L apart
    int h, w, kernel_h;
    float* out;  // kernel_h rows of KW vectors per group
    float* bias;  // a vector per group, or null
    int groups;
};

// Kernel rows at a time: nine sums, enough to hide the latency of a multiply-add.
constexpr int GRADIENT_ROWS = 3;

template <int L, int KW, int ROWS>
struct GradientSums {
    Vector<L> sum[ROWS][KW];

    // The map's column b; the taps FROM .. TO - 1 of those lie inside the image if EDGE.
    template <bool EDGE>
    LKSPACE_INLINE void add(const RowGradient& q, const float* g, const float* x, int b) {
        constexpr int pw = KW / 2;
        const Vector<L> value = load<L>(g + b * q.map_column);
        const float* first = x + (b - pw) * q.image_column;
        LKSPACE_UNROLL for (int s = 0; s < ROWS; ++s) {
            const float* place = first + s * q.image_pitch;
            LKSPACE_UNROLL for (int t = 0; t < KW; ++t, place += q.image_column)
                if (!EDGE || (b + t >= pw && b + t - pw < q.w)) multiply_add<L>(sum[s][t], value, place);
        }
    }
};

// Kernel rows s .. s + ROWS - 1 of one group, with row a of the map.
template <int L, int KW, int ROWS>
__attribute__((noinline)) void gradient_rows(const RowGradient& q, const float* g, const float* x, float* out) {
    constexpr int pw = KW / 2;
    GradientSums<L, KW, ROWS> sums;
    LKSPACE_UNROLL for (int k = 0; k < ROWS * KW; ++k) sums.sum[k / KW][k % KW] = load<L>(out + k * L);
    int b = 0;
    for (; b < pw && b < q.w; ++b) sums.template add<true>(q, g, x, b);
    for (; b + pw < q.w; ++b) sums.template add<false>(q, g, x, b);
    for (; b < q.w; ++b) sums.template add<true>(q, g, x, b);
    LKSPACE_UNROLL for (int k = 0; k < ROWS * KW; ++k) store<L>(out + k * L, sums.sum[k / KW][k % KW]);
}

template <int L, int KW>
void gradient_of_width(const RowGradient& q) {
    constexpr int ROWS = GRADIENT_ROWS;
    const int ph = q.kernel_h / 2;
    for (int a = 0; a < q.h; ++a) {
        const int from = a < ph ? ph - a : 0;
        const int to = q.kernel_h < q.h + ph - a ? q.kernel_h : q.h + ph - a;
        for (int k = 0; k < q.groups; ++k) {
            const float* g = q.map + a * q.map_pitch + k * L;
            const float* x = q.image + (a - ph) * q.image_pitch + k * L;
            float* out = q.out + int64_t{k} * q.kernel_h * KW * L;
            int s = from;
            for (; s + ROWS <= to; s += ROWS)
                gradient_rows<L, KW, ROWS>(q, g, x + s * q.image_pitch, out + s * KW * L);
            for (; s < to; ++s) gradient_rows<L, KW, 1>(q, g, x + s * q.image_pitch, out + s * KW * L);
            if (!q.bias) continue;
            Vector<L> sum = load<L>(q.bias + k * L);
            for (int b = 0; b < q.w; ++b) sum += load<L>(g + b * q.map_column);
            store<L>(q.bias + k * L, sum);
        }
    }
}

template <int L>
void gradient_by_rows(const RowGradient& q) {
    gradient_of_width<L, 3>(q);
}

}  // namespace
}  // namespace lkspace
