// The convolution, which is also the input gradient: y = x correlated with the kernels, upright or turned.
#pragma once

#include "correlate.h"
#include "groups.h"
#include "scratch.h"

namespace lkspace {
namespace {

// One piece of work: channel groups, images and rows of y, each from .. to - 1. Kernels are packed once for all images.
template <class T>
struct ConvolvePiece {
    const Call& q;
    const Geometry& g;
    int group_from, group_to, image_from, image_to, row_from, row_to;

    void run() const {
        const int reach = g.kh / 2;
        const int first = row_from > reach ? row_from - reach : 0;  // row of x needed
        const int last = static_cast<int>(least(g.h, row_to + reach));
        const int64_t kernel_floats = int64_t{g.kh} * g.kw * WIDE, groups = group_to - group_from;
        const int64_t image_floats = (last - first) * g.pitch * WIDE;
        const int64_t out_floats = int64_t{row_to - row_from} * g.w * WIDE;
        float* const kernels = scratch(groups * (kernel_floats + WIDE) + image_floats + out_floats);
        float* const biases = kernels + groups * kernel_floats;
        float* const image = biases + groups * WIDE;
        for (int k = 0; k < groups; ++k)
            pack_kernel(group_at(q.c, group_from + k), kernels + k * kernel_floats, biases + k * WIDE);
        for (int n = image_from; n < image_to; ++n)
            for (int k = 0; k < groups; ++k)
                image_of_group(n, group_at(q.c, group_from + k), first, last, kernels + k * kernel_floats,
                               biases + k * WIDE, image, image + image_floats);
    }

    void pack_kernel(const Group& group, float* kernel, float* bias) const {
        in_width(group, [&](auto width) {
            constexpr int L = decltype(width)::L;
            const int64_t column = int64_t{g.kh} * L;
            const Vectors upright = {kernel, L, column};
            const Vectors turned = {kernel + (g.kw * column - L), -L, -column};
            pack<L>(kernel_picture<const T>(q.kernel, g, group, 0, g.kh), q.flip ? turned : upright);
            if (q.bias.data) pack<L>(picture<const T>(q.bias, 0, group, 0, 1, 1), {bias, 0, 0});
        });
    }

    void image_of_group(int n, const Group& group, int first, int last, const float* kernel, const float* bias,
                        float* image, float* out) const {
        in_width(group, [&](auto width) {
            constexpr int L = decltype(width)::L;
            Correlation c = {};
            c.image_pitch = g.pitch * L;
            c.image = image - first * c.image_pitch;
            c.image_h = g.h;
            c.image_w = g.w;
            c.kernel = kernel;
            c.kernel_h = g.kh;
            c.kernel_w = g.kw;
            c.ph = g.kh / 2;
            c.pw = g.kw / 2;
            c.summed = 1;
            c.start = q.bias.data ? bias : nullptr;
            pack<L>(picture<const T>(q.image, n, group, first, last - first, g.w), {image, c.image_pitch, L});
            const Picture<T> y = picture<T>(q.map, n, group, row_from, row_to - row_from, g.w);
            if (sizeof(T) == sizeof(float) && y.lane == 1 && y.lanes == L) {  // channels_last: tiles go to their place
                c.out_pitch = y.row;
                c.out_column = y.column;
                c.out = reinterpret_cast<float*>(y.data) - row_from * y.row;
                correlate<L>(c, row_from, row_to, g.w);
            } else {
                c.out_pitch = int64_t{g.w} * L;
                c.out_column = L;
                c.out = out - row_from * c.out_pitch;
                correlate<L>(c, row_from, row_to, g.w);
                unpack<L>({out, c.out_pitch, L}, y);
            }
        });
    }
};

template <class T>
void convolve(const Call& q) {
    const Geometry g(q);
    const int64_t spans = ceil_divide(g.groups, g.together);
    const int64_t wanted = ceil_divide(g.threads > 1 ? PIECES * g.threads : 1, spans);
    // Runs of images; rows of a map too if there are too few images for the threads.
    const int64_t runs = least(g.n, wanted), bands = least(ceil_divide(wanted, runs), ceil_divide(g.h, 2));
    share(spans * runs * bands, g.threads, [&](int64_t piece) {
        const int64_t band = piece % bands, run = piece / bands % runs, span = piece / bands / runs;
        ConvolvePiece<T>{q, g,
                         begin_of(span, spans, g.groups), begin_of(span + 1, spans, g.groups),
                         begin_of(run, runs, g.n), begin_of(run + 1, runs, g.n),
                         begin_of(band, bands, g.h), begin_of(band + 1, bands, g.h)}
            .run();
    });
}

}  // namespace
}  // namespace lkspace
