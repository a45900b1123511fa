// The gradient of kernels and biases: x correlated with y's gradient, summed over all images.
//
// Every sum is over pixels of a few images, then over those sums, in an order that no number of threads changes.
#pragma once

#include "correlate.h"
#include "groups.h"
#include "scratch.h"
#include "weight_gradient_in_place.h"

namespace lkspace {
namespace {

// Images whose gradients are summed in one go: as many as leave the L2 cache room (floats, image and gradient).
constexpr int64_t SUMMED_FLOATS = 48 * 1024;

// One piece of work: channel groups and rows of the reachable kernel, each from .. to - 1; biases with the first rows.
template <class T>
struct WeightGradientPiece {
    const Call& q;
    const Geometry& g;
    int group_from, group_to, row_from, row_to;

    bool with_bias() const { return row_from == 0 && q.bias.data; }

    void run() const {
        const int64_t groups = group_to - group_from, taps = int64_t{row_to - row_from} * g.kw * WIDE;
        const int64_t image_floats = g.h * g.pitch * WIDE, map_floats = int64_t{g.h} * g.w * WIDE;
        const int summed = static_cast<int>(least(g.n, 1 + SUMMED_FLOATS / (image_floats + map_floats)));
        float* const outs = scratch(groups * (taps + WIDE) + summed * (image_floats + map_floats));
        float* const biases = outs + groups * taps;
        float* const images = biases + groups * WIDE;
        for (int64_t k = 0; k < groups * WIDE; ++k) biases[k] = 0.0f;
        for (int n = 0; n < g.n; n += summed)
            for (int k = 0; k < groups; ++k)
                add_images(n, static_cast<int>(least(summed, g.n - n)), group_at(q.c, group_from + k), outs + k * taps,
                           biases + k * WIDE, images, images + summed * image_floats);
        for (int k = 0; k < groups; ++k) unpack_group(group_at(q.c, group_from + k), outs + k * taps, biases + k * WIDE);
    }

    // Adds the gradient of images n .. n + count - 1 to `out` (sets it if n is 0) and `bias`.
    void add_images(int n, int count, const Group& group, float* out, float* bias, float* images, float* maps) const {
        in_width(group, [&](auto width) {
            constexpr int L = decltype(width)::L;
            Correlation c = {};
            c.image = images;
            c.image_pitch = g.pitch * L;
            c.image_step = g.h * c.image_pitch;
            c.image_h = g.h;
            c.image_w = g.w;
            c.kernel = maps;
            c.kernel_step = int64_t{g.h} * g.w * L;
            c.kernel_h = g.h;
            c.kernel_w = g.w;
            c.ph = g.kh / 2;
            c.pw = g.kw / 2;
            c.summed = count;
            c.out_pitch = int64_t{g.kw} * L;
            c.out_column = L;
            c.out = out - row_from * c.out_pitch;
            c.add = n > 0;
            for (int k = 0; k < count; ++k) {
                float* const map = maps + k * c.kernel_step;
                pack<L>(picture<const T>(q.image, n + k, group, 0, g.h, g.w),
                        {images + k * c.image_step, c.image_pitch, L});
                pack<L>(picture<const T>(q.map, n + k, group, 0, g.h, g.w), {map, L, int64_t{g.h} * L});
                if (with_bias()) add_up<L>(map, int64_t{g.h} * g.w, bias);
            }
            correlate<L>(c, row_from, row_to, g.kw);
        });
    }

    void unpack_group(const Group& group, float* out, float* bias) const {
        in_width(group, [&](auto width) {
            constexpr int L = decltype(width)::L;
            unpack<L>({out, int64_t{g.kw} * L, L}, kernel_picture<T>(q.kernel, g, group, row_from, row_to - row_from));
            if (with_bias()) unpack<L>({bias, 0, 0}, picture<T>(q.bias, 0, group, 0, 1, 1));
        });
    }
};

template <class T>
void weight_gradient(const Call& q) {
    const Geometry g(q);
    const int64_t in_place = groups_in_place<T>(q, g), packed = g.groups - in_place;
    if (in_place > 0) InPlace(q, g, in_place).run();
    if (packed == 0) return;
    // Every piece packs its images anew, so kernels are cut only if there are too few groups for the threads.
    const int64_t spans = ceil_divide(packed, least(g.together, most(1, packed / g.threads)));
    const int64_t cuts = spans % g.threads == 0 || spans >= PIECES * g.threads
                             ? 1
                             : least(ceil_divide(PIECES * g.threads, spans), ceil_divide(g.kh, 2));
    share(spans * cuts, g.threads, [&](int64_t piece) {
        const int64_t cut = piece % cuts, span = piece / cuts;
        WeightGradientPiece<T>{q, g,
                               static_cast<int>(in_place) + begin_of(span, spans, packed),
                               static_cast<int>(in_place) + begin_of(span + 1, spans, packed),
                               begin_of(cut, cuts, g.kh), begin_of(cut + 1, cuts, g.kh)}
            .run();
    });
}

}  // namespace
}  // namespace lkspace
