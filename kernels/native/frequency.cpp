// Convolution and gradients in the frequency domain, compiled once per instruction set like direct.cpp.
//
// NaN, infinities and overflow: a transform spreads them over the whole plane, which is how they are noticed (one result
// of a plane tells). Such planes are computed again by the direct scheme, so that a NaN reaches what its kernel reaches.
#include "frequency.h"

#include "epilogue.h"
#include "scratch.h"
#include "variants.h"

namespace lkspace {
namespace {

// Pieces of work below which images are shared too: each run of images transforms its kernels anew.
constexpr int64_t FEW_PIECES = 2;
// Runs that the weight gradient of few groups is cut into; they depend on the shape alone.
constexpr int64_t LEAST_RUNS = 8;

template <class T>
View moved(const View& view, int64_t n, const Group& group) {
    View part = view;
    if (view.data) part.data += (n * view.n + group.channel * view.c) * static_cast<int64_t>(sizeof(T));
    return part;
}

// The same call for `count` images from n on and the channels of one group, on one thread.
template <class T>
Call part_of(const Call& q, int64_t n, int64_t count, const Group& group) {
    Call part = q;
    part.threads = 1;
    part.n = count;
    part.c = group.lanes;
    View* const images[] = {&part.image, &part.map, &part.image_gradient};
    View* const kernels[] = {&part.kernel, &part.bias, &part.kernel_gradient};
    for (View* view : images) *view = moved<T>(*view, n, group);
    for (View* view : kernels) *view = moved<T>(*view, 0, group);
    return part;
}

template <class T>
struct Convolution {
    const Call& q;
    const Geometry& g;
    const Frequencies& f;
    float* const spoiled;  // per image and group: whether it must be computed directly

    template <int L>
    void run(int64_t index, int image_from, int image_to) const {
        const Group group = group_at(q.c, index);
        float* const spectrum = scratch(f.spectrum(L) + f.plane(L) + f.image(L) + Transforms<L>::LINES * f.line(L) + L);
        float* const plane = spectrum + f.spectrum(L);
        float* const image = plane + f.plane(L);
        float* const bias = image + f.image(L);
        const Transforms<L> t = {f, bias + L};
        pack<L>(kernel_picture<const T>(q.kernel, g, group, 0, g.kh), {image, int64_t{g.kw} * L, L});
        t.kernel_to_spectrum(image, plane, spectrum);
        if (q.bias.data) pack<L>(picture<const T>(q.bias, 0, group, 0, 1, 1), {bias, 0, 0});
        const Vectors packed = {image, int64_t{g.w} * L, L};
        for (int n = image_from; n < image_to; ++n) {
            pack<L>(picture<const T>(q.image, n, group, 0, g.h, g.w), packed);
            t.rows_to_bins(image, plane);
            for (int k = 0; k < f.bins; ++k) {
                t.down(plane, k, t.line(2));
                const float* const w = spectrum + int64_t{k} * f.down.n * 2 * L;
                if (q.flip)
                    t.template multiply<true>(t.line(2), w, f.down.n);
                else
                    t.template multiply<false>(t.line(2), w, f.down.n);
                t.up(t.line(2), plane, k);
            }
            const Picture<T> y = picture<T>(q.map, n, group, 0, g.h, g.w);
            const bool placed = sizeof(T) == sizeof(float) && y.lane == 1 && y.lanes == L;
            const Vectors out = placed ? Vectors{reinterpret_cast<float*>(y.data), y.row, y.column} : packed;
            t.bins_to_rows(plane, out);
            spoiled[n * g.groups + index] = t.finite(out.data) ? 0.0f : 1.0f;
            finish<L>(out, g.h, g.w, q.bias.data ? bias : nullptr, q.activation);
            if (!placed) unpack<L>(out, y);
        }
    }
};

template <class T>
void convolve_by_frequencies(const Call& q) {
    const Geometry g(q);
    const Frequencies f(g);
    const Memory spoiled(static_cast<size_t>(g.n * g.groups));
    const Convolution<T> all = {q, g, f, spoiled.data};
    const int64_t runs = least(g.n, g.threads > 1 ? ceil_divide(FEW_PIECES * g.threads, g.groups) : 1);
    share(g.groups * runs, g.threads, [&](int64_t piece) {
        const int64_t index = piece / runs, run = piece % runs;
        in_width(group_at(q.c, index), [&](auto width) {
            all.template run<decltype(width)::L>(index, begin_of(run, runs, g.n), begin_of(run + 1, runs, g.n));
        });
    });
    for (int64_t n = 0; n < g.n; ++n)
        for (int64_t k = 0; k < g.groups; ++k)
            if (spoiled.data[n * g.groups + k] != 0.0f)
                LKSPACE_VARIANT::convolve(part_of<T>(q, n, 1, group_at(q.c, k)));
}

template <class T>
struct Gradients {
    const Call& q;
    const Geometry& g;
    const Frequencies& f;
    const int64_t runs;
    float* const spoiled;  // per image and group: its input gradient must be computed directly
    float* const lost;  // per group: its weight gradient must be
    float* const sums;  // per group and run, if there are several runs: spectrum and bias gradient
    const int64_t sum_floats;

    float* sum(int64_t index, int64_t run) const { return sums + (index * runs + run) * sum_floats; }

    template <int L>
    void run(int64_t index, int64_t part) const {
        const bool weights = q.kernel_gradient.data, inputs = q.image_gradient.data;
        const Group group = group_at(q.c, index);
        float* const spectrum =
            scratch(f.spectrum(L) + 2 * f.plane(L) + f.image(L) + Transforms<L>::LINES * f.line(L) + sum_floats);
        float* const x_plane = spectrum + f.spectrum(L);
        float* const g_plane = x_plane + f.plane(L);
        float* const image = g_plane + f.plane(L);
        const Transforms<L> t = {f, image + f.image(L)};
        float* const gradient = runs > 1 ? sum(index, part) : t.line(Transforms<L>::LINES);
        const int64_t points = int64_t{f.down.n} * 2 * L;
        if (inputs) {
            pack<L>(kernel_picture<const T>(q.kernel, g, group, 0, g.kh), {image, int64_t{g.kw} * L, L});
            t.kernel_to_spectrum(image, x_plane, spectrum);
        }
        if (weights)
            for (int64_t k = 0; k < sum_floats; ++k) gradient[k] = 0.0f;
        const Vectors packed = {image, int64_t{g.w} * L, L};
        for (int n = begin_of(part, runs, g.n); n < begin_of(part + 1, runs, g.n); ++n) {
            if (weights) {
                pack<L>(picture<const T>(q.image, n, group, 0, g.h, g.w), packed);
                t.rows_to_bins(image, x_plane);
            }
            pack<L>(picture<const T>(q.map, n, group, 0, g.h, g.w), packed);
            t.rows_to_bins(image, g_plane);
            for (int k = 0; k < f.bins; ++k) {
                t.down(g_plane, k, t.line(2));
                if (weights) {
                    t.down(x_plane, k, t.line(4));
                    t.add_product(t.line(2), t.line(4), gradient + k * points, f.down.n);
                    if (k == 0) add_up<L>(t.line(2), 1, gradient + f.spectrum(L));
                }
                if (inputs) {
                    t.template multiply<true>(t.line(2), spectrum + k * points, f.down.n);
                    t.up(t.line(2), g_plane, k);
                }
            }
            if (inputs) place_input_gradient<L>(t, n, index, g_plane, packed);
        }
        if (weights && runs == 1) place_weights<L>(t, index, gradient, x_plane, image);
    }

    template <int L>
    void place_input_gradient(const Transforms<L>& t, int n, int64_t index, float* plane, const Vectors& packed) const {
        const Picture<T> to = picture<T>(q.image_gradient, n, group_at(q.c, index), 0, g.h, g.w);
        const bool placed = sizeof(T) == sizeof(float) && to.lane == 1 && to.lanes == L;
        const Vectors out = placed ? Vectors{reinterpret_cast<float*>(to.data), to.row, to.column} : packed;
        t.bins_to_rows(plane, out);
        spoiled[n * g.groups + index] = t.finite(out.data) ? 0.0f : 1.0f;
        if (!placed) unpack<L>(out, to);
    }

    // Adds the runs up, in order.
    template <int L>
    void weights_of(int64_t index) const {
        float* const total = sum(index, 0);
        for (int64_t part = 1; part < runs; ++part)
            for (int64_t k = 0; k < sum_floats; ++k) total[k] += sum(index, part)[k];
        float* const plane = scratch(f.plane(L) + f.image(L) + Transforms<L>::LINES * f.line(L));
        float* const taps = plane + f.plane(L);
        place_weights<L>({f, taps + f.image(L)}, index, total, plane, taps);
    }

    // Transforms back; `plane` and `taps` are working memory.
    template <int L>
    void place_weights(const Transforms<L>& t, int64_t index, float* total, float* plane, float* taps) const {
        const Group group = group_at(q.c, index);
        t.spectrum_to_kernel(total, plane, taps);
        lost[index] = t.finite(taps) ? 0.0f : 1.0f;
        if (lost[index] != 0.0f) return;
        unpack<L>({taps, int64_t{g.kw} * L, L}, kernel_picture<T>(q.kernel_gradient, g, group, 0, g.kh));
        if (q.bias.data) {
            float* const bias = total + f.spectrum(L);
            store<L>(bias, 0.5f * load<L>(bias));  // rows were transformed in pairs
            unpack<L>({bias, 0, 0}, picture<T>(q.bias, 0, group, 0, 1, 1));
        }
    }
};

template <class T>
void gradients_by_frequencies(const Call& q) {
    const Geometry g(q);
    const Frequencies f(g);
    const Memory spoiled(static_cast<size_t>(g.n * g.groups));
    for (int64_t k = 0; k < g.n * g.groups; ++k) spoiled.data[k] = 0.0f;
    const int64_t runs = least(g.n, ceil_divide(LEAST_RUNS, g.groups)), sum_floats = f.spectrum(WIDE) + WIDE;
    const Memory lost(static_cast<size_t>(g.groups));
    const Memory sums(static_cast<size_t>(q.kernel_gradient.data && runs > 1 ? g.groups * runs * sum_floats : 0));
    const Gradients<T> all = {q, g, f, runs, spoiled.data, lost.data, sums.data, sum_floats};
    share(g.groups * runs, g.threads, [&](int64_t piece) {
        in_width(group_at(q.c, piece / runs), [&](auto width) {
            all.template run<decltype(width)::L>(piece / runs, piece % runs);
        });
    });
    if (q.kernel_gradient.data && runs > 1)
        share(g.groups, g.threads, [&](int64_t index) {
            in_width(group_at(q.c, index), [&](auto width) { all.template weights_of<decltype(width)::L>(index); });
        });
    for (int64_t k = 0; k < g.groups; ++k) {
        const Group group = group_at(q.c, k);
        if (q.kernel_gradient.data && lost.data[k] != 0.0f) {
            Call part = part_of<T>(q, 0, q.n, group);
            part.kernel = part.kernel_gradient;
            LKSPACE_VARIANT::weight_gradient(part);
        }
        for (int64_t n = 0; q.image_gradient.data && n < g.n; ++n) {
            if (spoiled.data[n * g.groups + k] == 0.0f) continue;
            Call part = part_of<T>(q, n, 1, group);
            part.image = part.map;
            part.map = part.image_gradient;
            part.bias.data = 0;
            part.flip = 1;
            LKSPACE_VARIANT::convolve(part);
        }
    }
}

}  // namespace

namespace LKSPACE_VARIANT {

void frequency_convolve(const Call& q) {
    switch (q.type) {
        case FLOAT32: return convolve_by_frequencies<float>(q);
        case BFLOAT16: return convolve_by_frequencies<Bfloat16>(q);
        default: return convolve_by_frequencies<Float16>(q);
    }
}

void frequency_gradients(const Call& q) {
    switch (q.type) {
        case FLOAT32: return gradients_by_frequencies<float>(q);
        case BFLOAT16: return gradients_by_frequencies<Bfloat16>(q);
        default: return gradients_by_frequencies<Float16>(q);
    }
}

int64_t transform_points(int64_t least) { return Fourier::size_for(static_cast<int>(least)); }
double transform_cost(int64_t points) { return Fourier::cost(static_cast<int>(points)); }

}  // namespace LKSPACE_VARIANT
}  // namespace lkspace
