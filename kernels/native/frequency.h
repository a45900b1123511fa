// Large kernels on large maps, in the frequency domain: a convolution is a product of transforms.
//
//     forward  Y = X W        input gradient  dX = G conj(W)        weight gradient  dW = sum over images of conj(G) X
//
//     image        two real rows at a time as one complex line      one column of bins at a time
//     h x w        re | im  --n_w points-->  h x (n_w / 2 + 1)      h of n_h points are there: transformed, multiplied,
//     +----+       +----+                     +---+                 transformed back, h of n_h points are wanted; a line
//     |    |       |    | 0 0 0               |   |                 never leaves the first-level cache
//     +----+       +----+                     +---+
//
// n >= R + K/2 points are enough for R pixels: what wraps around lands in outputs that nobody asks for. Lanes are
// channels, so the transforms of eight planes are plain vector operations (fourier.h). Kernels have their middle at 0.
//
// Transforms are shared: the kernel's by all images of a piece of work; in a backward call y's gradient's by both
// gradients, and the weight gradient is summed over images as frequencies and transformed back once.
#pragma once

#include "fourier.h"
#include "groups.h"

namespace lkspace {
namespace {

// Sizes of a call's transforms, and the memory its parts need (floats).
struct Frequencies {
    const Geometry& g;
    const Fourier down, along;
    const int bins;
    const int64_t pitch;  // bins from row to row of a plane: odd, so that a column's rows spread over the cache

    explicit Frequencies(const Geometry& geometry)
        : g(geometry),
          down(Fourier::size_for(g.h + g.kh / 2)),
          along(Fourier::size_for(g.w + g.kw / 2)),
          bins(along.n / 2 + 1),
          pitch(bins | 1) {}

    int64_t line(int L) const { return int64_t{most_points()} * 2 * L; }
    int64_t plane(int L) const { return (most(g.h, g.kh) + 1) * pitch * 2 * L; }
    int64_t spectrum(int L) const { return int64_t{bins} * down.n * 2 * L; }
    int64_t image(int L) const { return most(int64_t{g.h} * g.w, int64_t{g.kh} * g.kw) * L; }
    int most_points() const { return down.n > along.n ? down.n : along.n; }
    // Both transforms of a product are of pairs of rows, which doubles them; the inverse is not scaled.
    float scale() const { return 0.25f / (static_cast<float>(down.n) * static_cast<float>(along.n)); }
};

// One thread's transforms of groups of L channels.
template <int L>
struct Transforms {
    const Frequencies& f;
    float* const lines;  // LINES lines
    static constexpr int LINES = 6;

    float* line(int index) const { return lines + index * f.line(L); }

    // Bins of two rows that were transformed as one line.
    void untangle(const float* z, float* first, float* second) const {
        const int n = f.along.n;
        for (int k = 0; k < f.bins; ++k) {
            const float* const a = z + int64_t{k} * 2 * L;
            const float* const b = z + int64_t{k == 0 ? 0 : n - k} * 2 * L;
            const Vector<L> ar = load<L>(a), ai = load<L>(a + L), br = load<L>(b), bi = load<L>(b + L);
            float* const one = first + int64_t{k} * 2 * L;
            float* const two = second + int64_t{k} * 2 * L;
            store<L>(one, ar + br), store<L>(one + L, ai - bi);
            store<L>(two, ai + bi), store<L>(two + L, br - ar);
        }
    }

    void tangle(const float* first, const float* second, float* z) const {
        const int n = f.along.n;
        for (int k = 0; k < f.bins; ++k) {
            const float* const one = first + int64_t{k} * 2 * L;
            const float* const two = second + int64_t{k} * 2 * L;
            const Vector<L> ar = load<L>(one), ai = load<L>(one + L), br = load<L>(two), bi = load<L>(two + L);
            float* const a = z + int64_t{k} * 2 * L;
            float* const b = z + int64_t{k == 0 ? 0 : n - k} * 2 * L;
            store<L>(b, ar + bi), store<L>(b + L, br - ai);
            store<L>(a, ar - bi), store<L>(a + L, ai + br);
        }
    }

    // Rows of the packed image -> plane.
    void rows_to_bins(const float* image, float* plane) const {
        const int64_t row = int64_t{f.g.w} * L, bins = f.pitch * 2 * L;
        float* const zeros = line(3);
        for (int64_t k = 0; k < row; ++k) zeros[k] = 0.0f;
        for (int r = 0; r < f.g.h; r += 2) {
            const float* const second = r + 1 < f.g.h ? image + (r + 1) * row : zeros;
            f.along.run<L>({image + r * row, second, L, L}, f.g.w, line_at<L>(line(2)), f.along.n, line(0), line(1));
            untangle(line(2), plane + r * bins, plane + (r + 1) * bins);
        }
    }

    // Plane -> rows of the result.
    void bins_to_rows(float* plane, const Vectors& out) const {
        const int64_t bins = f.pitch * 2 * L;
        if (f.g.h % 2) clear(plane + f.g.h * bins, f.bins);  // the last row has no other to go with
        for (int r = 0; r < f.g.h; r += 2) {
            tangle(plane + r * bins, plane + (r + 1) * bins, line(2));
            const bool two = r + 1 < f.g.h;
            const Target rows = {out.data + r * out.pitch, two ? out.data + (r + 1) * out.pitch : line(3), out.step,
                                 two ? out.step : L};
            f.along.run<L>(turned(source(line_at<L>(line(2)))), f.along.n, turned(rows), f.g.w, line(0), line(1));
        }
    }

    Target column(float* plane, int bin) const { return line_at<L>(plane + int64_t{bin} * 2 * L, f.pitch * 2 * L); }

    void down(float* plane, int bin, float* to) const {
        f.down.run<L>(source(column(plane, bin)), f.g.h, line_at<L>(to), f.down.n, line(0), line(1));
    }
    void up(const float* from, float* plane, int bin) const {
        const Source line_from = {from + L, from, 2 * L, 2 * L};  // turned
        f.down.run<L>(line_from, f.down.n, turned(column(plane, bin)), f.g.h, line(0), line(1));
    }

    // Packed kernel rows -> its spectrum, scaled.
    void kernel_to_spectrum(const float* kernel, float* plane, float* spectrum) const {
        const int ph = f.g.kh / 2, pw = f.g.kw / 2, nh = f.down.n, nw = f.along.n;
        const int64_t bins = f.pitch * 2 * L;
        const Vector<L> scale = spread<L>(f.scale());
        for (int s = 0; s < f.g.kh; s += 2) {
            clear(line(2), nw);
            for (int row = 0; row < 2 && s + row < f.g.kh; ++row)
                for (int t = 0; t < f.g.kw; ++t)
                    store<L>(line(2) + int64_t{wrapped(pw - t, nw)} * 2 * L + row * L,
                             load<L>(kernel + (int64_t{s + row} * f.g.kw + t) * L) * scale);
            f.along.run<L>(source(line_at<L>(line(2))), nw, line_at<L>(line(3)), nw, line(0), line(1));
            untangle(line(3), plane + s * bins, plane + (s + 1) * bins);
        }
        for (int k = 0; k < f.bins; ++k) {
            clear(line(2), nh);
            for (int s = 0; s < f.g.kh; ++s)
                copy(plane + s * bins + int64_t{k} * 2 * L, line(2) + int64_t{wrapped(ph - s, nh)} * 2 * L);
            f.down.run<L>(source(line_at<L>(line(2))), nh, line_at<L>(spectrum + int64_t{k} * nh * 2 * L), nh, line(0),
                          line(1));
        }
    }

    // A weight gradient's spectrum -> packed kernel rows.
    void spectrum_to_kernel(const float* spectrum, float* plane, float* kernel) const {
        const int ph = f.g.kh / 2, pw = f.g.kw / 2, nh = f.down.n, nw = f.along.n;
        const int64_t bins = f.pitch * 2 * L;
        for (int k = 0; k < f.bins; ++k) {
            float* const from = const_cast<float*>(spectrum) + int64_t{k} * nh * 2 * L;
            f.down.run<L>(turned(source(line_at<L>(from))), nh, turned(line_at<L>(line(2))), nh, line(0), line(1));
            for (int s = 0; s < f.g.kh; ++s)
                copy(line(2) + int64_t{wrapped(s - ph, nh)} * 2 * L, plane + s * bins + int64_t{k} * 2 * L);
        }
        const Vector<L> scale = spread<L>(f.scale());
        clear(plane + f.g.kh * bins, f.bins);  // the last row has no other to go with
        for (int s = 0; s < f.g.kh; s += 2) {
            tangle(plane + s * bins, plane + (s + 1) * bins, line(2));
            f.along.run<L>(turned(source(line_at<L>(line(2)))), nw, turned(line_at<L>(line(3))), nw, line(0), line(1));
            for (int row = 0; row < 2 && s + row < f.g.kh; ++row)
                for (int t = 0; t < f.g.kw; ++t)
                    store<L>(kernel + (int64_t{s + row} * f.g.kw + t) * L,
                             load<L>(line(3) + int64_t{wrapped(t - pw, nw)} * 2 * L + row * L) * scale);
        }
    }

    static int wrapped(int index, int n) { return index < 0 ? index + n : index; }
    static void clear(float* line, int n) {
        for (int k = 0; k < 2 * n; ++k) store<L>(line + k * L, Vector<L>{});
    }
    static void copy(const float* from, float* to) {
        store<L>(to, load<L>(from)), store<L>(to + L, load<L>(from + L));
    }

    // z *= w, or the conjugate of w.
    template <bool CONJUGATE>
    static void multiply(float* z, const float* w, int n) {
        for (int k = 0; k < n; ++k, z += 2 * L, w += 2 * L) {
            const Vector<L> zr = load<L>(z), zi = load<L>(z + L), wr = load<L>(w), wi = load<L>(w + L);
            store<L>(z, CONJUGATE ? fused<L>(zi, wi, zr * wr) : fused_minus<L>(zi, wi, zr * wr));
            store<L>(z + L, CONJUGATE ? fused_minus<L>(zr, wi, zi * wr) : fused<L>(zr, wi, zi * wr));
        }
    }
    // sum += conjugate of g times x
    static void add_product(const float* g, const float* x, float* sum, int n) {
        for (int k = 0; k < n; ++k, g += 2 * L, x += 2 * L, sum += 2 * L) {
            const Vector<L> gr = load<L>(g), gi = load<L>(g + L), xr = load<L>(x), xi = load<L>(x + L);
            store<L>(sum, fused<L>(gi, xi, fused<L>(gr, xr, load<L>(sum))));
            store<L>(sum + L, fused_minus<L>(gi, xr, fused<L>(gr, xi, load<L>(sum + L))));
        }
    }
    static bool finite(const float* vector) {
        for (int l = 0; l < L; ++l)
            if (!(vector[l] - vector[l] == 0.0f)) return false;
        return true;
    }
};

}  // namespace
}  // namespace lkspace
