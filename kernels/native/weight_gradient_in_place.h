// The weight gradient of a channels_last float32 call with a small kernel: shared among threads, by row_gradient.h.
//
// Runs of images are summed by themselves, then the runs in order. How many runs there are depends on the shape alone, so
// no number of threads changes a bit; channel groups may be cut anywhere.
#pragma once

#include "groups.h"
#include "row_gradient.h"
#include "scratch.h"

namespace lkspace {
namespace {

// Runs of images: enough for a few threads to end at the same time, few enough that adding them up costs nothing.
constexpr int64_t RUNS = 8;

// How many whole groups, from the first on, are read in place: of kernels 3 wide. Wider ones have more rows of the image in
// use than the first-level cache holds in place, a row's pixels being a few lines of it apart: they are packed.
template <class T>
int64_t groups_in_place(const Call& q, const Geometry& g) {
    if (sizeof(T) != sizeof(float) || q.image.c != 1 || q.map.c != 1 || g.kw != 3) return 0;
    return q.c / WIDE;
}

struct InPlace {
    const Call& q;
    const Geometry& g;
    int64_t groups, runs;
    int64_t kernel_floats, run_floats;
    Memory sums;  // runs, each: groups of kernels, then groups of biases

    InPlace(const Call& call, const Geometry& geometry, int64_t whole_groups)
        : q(call),
          g(geometry),
          groups(whole_groups),
          runs(least(g.n, RUNS)),
          kernel_floats(int64_t{g.kh} * g.kw * WIDE),
          run_floats(groups * (kernel_floats + WIDE)),
          sums(static_cast<size_t>(runs * run_floats)) {
        for (int64_t k = 0; k < runs * run_floats; ++k) sums.data[k] = 0.0f;
    }

    void run() {
        const int64_t spans = g.threads > 1 ? least(groups, ceil_divide(PIECES * g.threads, runs)) : 1;
        share(runs * spans, g.threads, [&](int64_t piece) {
            const int64_t run = piece / spans, span = piece % spans;
            add_images(run, begin_of(span, spans, groups), begin_of(span + 1, spans, groups));
        });
        for (int64_t run = 1; run < runs; ++run)
            for (int64_t k = 0; k < run_floats; ++k) sums.data[k] += sums.data[run * run_floats + k];
        for (int64_t k = 0; k < groups; ++k) {
            const Group group = group_at(q.c, k);
            unpack<WIDE>({sums.data + k * kernel_floats, int64_t{g.kw} * WIDE, WIDE},
                         kernel_picture<float>(q.kernel, g, group, 0, g.kh));
            if (q.bias.data)
                unpack<WIDE>({sums.data + groups * kernel_floats + k * WIDE, 0, 0},
                             picture<float>(q.bias, 0, group, 0, 1, 1));
        }
    }

    void add_images(int64_t run, int group_from, int group_to) {
        float* const own = sums.data + run * run_floats;
        RowGradient r = {};
        r.image_pitch = q.image.h;
        r.image_column = q.image.w;
        r.map_pitch = q.map.h;
        r.map_column = q.map.w;
        r.h = g.h;
        r.w = g.w;
        r.kernel_h = g.kh;
        r.groups = group_to - group_from;
        r.out = own + group_from * kernel_floats;
        r.bias = q.bias.data ? own + groups * kernel_floats + group_from * WIDE : nullptr;
        const Group group = group_at(q.c, group_from);
        for (int64_t n = begin_of(run, runs, g.n); n < begin_of(run + 1, runs, g.n); ++n) {
            r.image = picture<const float>(q.image, n, group, 0, 1, 1).data;
            r.map = picture<const float>(q.map, n, group, 0, 1, 1).data;
            gradient_by_rows<WIDE>(r);
        }
    }
};

}  // namespace
}  // namespace lkspace
