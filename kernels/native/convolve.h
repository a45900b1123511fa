// The convolution, which is also the input gradient: y = x correlated with the kernels, upright or turned.
#pragma once

#include "correlate.h"
#include "groups.h"
#include "rows.h"
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
        const int in_place = groups_in_place();
        for (int n = image_from; n < image_to; ++n) {
            if (in_place > 0) rows_in_place(n, in_place, kernels, biases);
            for (int k = in_place; k < groups; ++k)
                image_of_group(n, group_at(q.c, group_from + k), first, last, kernels + k * kernel_floats,
                               biases + k * WIDE, image, image + image_floats);
        }
    }

    template <int L>
    bool by_rows() const {
        return L == WIDE && in_rows(g.kw);
    }

    // Whole groups of a channels_last float32 call with a small kernel: nothing of it need be packed.
    int groups_in_place() const {
        if (sizeof(T) != sizeof(float) || q.image.c != 1 || q.map.c != 1 || !by_rows<WIDE>()) return 0;
        return static_cast<int>(most(0, least(group_to, q.c / WIDE) - group_from));
    }

    void rows_in_place(int n, int groups, const float* kernels, const float* biases) const {
        const Group group = group_at(q.c, group_from);
        Rows r = rows_of(kernels, biases);
        r.image = reinterpret_cast<const float*>(picture<const T>(q.image, n, group, 0, 1, 1).data);
        r.image_pitch = q.image.h;
        r.image_column = q.image.w;
        r.image_group = r.out_group = WIDE;
        r.out = reinterpret_cast<float*>(picture<T>(q.map, n, group, 0, 1, 1).data);
        r.out_pitch = q.map.h;
        r.out_column = q.map.w;
        r.groups = groups;
        r.ahead = true;
        rows<WIDE>(r, g.kw, row_from, row_to);
    }

    Rows rows_of(const float* kernel, const float* bias) const {
        Rows r = {};
        r.image_h = g.h;
        r.image_w = g.w;
        r.kernel = kernel;
        r.kernel_h = g.kh;
        r.start = q.bias.data ? bias : nullptr;
        r.groups = 1;
        r.activation = q.activation;
        return r;
    }

    // Rows of vectors for rows.h, columns of vectors for correlate.h.
    void pack_kernel(const Group& group, float* kernel, float* bias) const {
        in_width(group, [&](auto width) {
            constexpr int L = decltype(width)::L;
            const bool flat = by_rows<L>();
            const int64_t row = flat ? int64_t{g.kw} * L : L, column = flat ? L : int64_t{g.kh} * L;
            const Vectors upright = {kernel, row, column};
            const Vectors turned = {kernel + (int64_t{g.kh} * g.kw - 1) * L, -row, -column};
            pack<L>(kernel_picture<const T>(q.kernel, g, group, 0, g.kh), q.flip ? turned : upright);
            if (q.bias.data) pack<L>(picture<const T>(q.bias, 0, group, 0, 1, 1), {bias, 0, 0});
        });
    }

    void image_of_group(int n, const Group& group, int first, int last, const float* kernel, const float* bias,
                        float* image, float* out) const {
        in_width(group, [&](auto width) {
            constexpr int L = decltype(width)::L;
            const int64_t pitch = g.pitch * L;
            pack<L>(picture<const T>(q.image, n, group, first, last - first, g.w), {image, pitch, L});
            const Picture<T> y = picture<T>(q.map, n, group, row_from, row_to - row_from, g.w);
            // channels_last: tiles go to their place
            const bool placed = sizeof(T) == sizeof(float) && y.lane == 1 && y.lanes == L;
            const Vectors target = placed ? Vectors{reinterpret_cast<float*>(y.data), y.row, y.column}
                                          : Vectors{out, int64_t{g.w} * L, L};
            if (by_rows<L>())
                by_rows_of_vectors<L>(kernel, bias, image - first * pitch, target);
            else
                by_tiles<L>(kernel, bias, image - first * pitch, target);
            if (!placed) unpack<L>(target, y);
        });
    }

    template <int L>
    void by_rows_of_vectors(const float* kernel, const float* bias, const float* image, const Vectors& out) const {
        if constexpr (L == WIDE) {
            Rows r = rows_of(kernel, bias);
            r.image = image;
            r.image_pitch = g.pitch * L;
            r.image_column = L;
            r.out = out.data - row_from * out.pitch;
            r.out_pitch = out.pitch;
            r.out_column = out.step;
            rows<L>(r, g.kw, row_from, row_to);
        }
    }

    template <int L>
    void by_tiles(const float* kernel, const float* bias, const float* image, const Vectors& out) const {
        Correlation c = {};
        c.image = image;
        c.image_pitch = g.pitch * L;
        c.image_h = g.h;
        c.image_w = g.w;
        c.kernel = kernel;
        c.kernel_h = g.kh;
        c.kernel_w = g.kw;
        c.ph = g.kh / 2;
        c.pw = g.kw / 2;
        c.summed = 1;
        c.start = q.bias.data ? bias : nullptr;
        c.out = out.data - row_from * out.pitch;
        c.out_pitch = out.pitch;
        c.out_column = out.step;
        correlate<L>(c, row_from, row_to, g.w);
        finish<L>(out, row_to - row_from, g.w, nullptr, q.activation);
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
