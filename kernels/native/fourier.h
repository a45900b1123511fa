// Discrete Fourier transforms of lines of vectors: every lane is a line of its own, so a butterfly is a few plain vector
// operations and nothing is ever shuffled. Mixed radix 2, 3, 4, 5, Stockham's order (no bit reversal):
//
//        in  x(0) .. x(n-1)          pass with radix P of what is left of n, s lines done:
//         |  first pass, s = 1         z(i) = x[q + s (j + m i)],  i < P, m = n / P
//         |  ...                       y[q + s (P j + i)] = (P-point transform of z)(i) * w^(i j)
//        out last pass, m = 1        for q < s, j < m;  then n = m, s = s P
//
// The first pass knows how many of its inputs are there (the rest is the zero padding: not loaded, not multiplied), the last
// how many of its outputs are wanted. The inverse is the same with real and imaginary parts changing places, unscaled.
#pragma once

#include <cmath>

#include "scratch.h"
#include "vector.h"

namespace lkspace {
namespace {

constexpr int RADICES[] = {4, 5, 3, 2};  // in this order

#define LKSPACE_FLAT inline __attribute__((always_inline))
#define LKSPACE_ALL _Pragma("GCC unroll 16")

template <int L>
LKSPACE_FLAT Vector<L> spread(float value) {
    return Vector<L>{} + value;
}

// Where the vectors of a line lie: real and imaginary parts may lie apart. Steps in floats.
struct Source {
    const float *re, *im;
    int64_t re_step, im_step;
};
struct Target {
    float *re, *im;
    int64_t re_step, im_step;
};

// A line of n complex vectors, real part first, and the same with its parts changing places.
template <int L>
Target line_at(float* place, int64_t step = 2 * L) {
    return {place, place + L, step, step};
}
inline Source source(const Target& line) { return {line.re, line.im, line.re_step, line.im_step}; }
inline Source turned(const Source& line) { return {line.im, line.re, line.im_step, line.re_step}; }
inline Target turned(const Target& line) { return {line.im, line.re, line.im_step, line.re_step}; }

template <int L, int P>
struct Butterfly {
    Vector<L> re[P], im[P];

    LKSPACE_FLAT void transform() {
        if constexpr (P == 2) two();
        if constexpr (P == 3) three();
        if constexpr (P == 4) four();
        if constexpr (P == 5) five();
    }

    LKSPACE_FLAT void two() {
        const Vector<L> r = re[0] - re[1], i = im[0] - im[1];
        re[0] += re[1], im[0] += im[1], re[1] = r, im[1] = i;
    }

    LKSPACE_FLAT void three() {
        constexpr float S = 0.866025403784438647f;  // sin 60
        const Vector<L> sr = re[1] + re[2], si = im[1] + im[2], dr = re[1] - re[2], di = im[1] - im[2];
        const Vector<L> half = spread<L>(0.5f), s = spread<L>(S);
        const Vector<L> cr = fused_minus<L>(half, sr, re[0]), ci = fused_minus<L>(half, si, im[0]);
        re[0] += sr, im[0] += si;
        re[1] = fused<L>(s, di, cr), im[1] = fused_minus<L>(s, dr, ci);
        re[2] = fused_minus<L>(s, di, cr), im[2] = fused<L>(s, dr, ci);
    }

    LKSPACE_FLAT void four() {
        const Vector<L> ar = re[0] + re[2], ai = im[0] + im[2], br = re[0] - re[2], bi = im[0] - im[2];
        const Vector<L> cr = re[1] + re[3], ci = im[1] + im[3], dr = re[1] - re[3], di = im[1] - im[3];
        re[0] = ar + cr, im[0] = ai + ci;
        re[1] = br + di, im[1] = bi - dr;
        re[2] = ar - cr, im[2] = ai - ci;
        re[3] = br - di, im[3] = bi + dr;
    }

    LKSPACE_FLAT void five() {
        constexpr float C1 = 0.309016994374947424f, C2 = -0.809016994374947424f;  // cos 72, cos 144
        constexpr float S1 = 0.951056516295153572f, S2 = 0.587785252292473129f;   // sin 72, sin 144
        const Vector<L> ar = re[1] + re[4], ai = im[1] + im[4], br = re[2] + re[3], bi = im[2] + im[3];
        const Vector<L> cr = re[1] - re[4], ci = im[1] - im[4], dr = re[2] - re[3], di = im[2] - im[3];
        const Vector<L> c1 = spread<L>(C1), c2 = spread<L>(C2), s1 = spread<L>(S1), s2 = spread<L>(S2);
        const Vector<L> er = fused<L>(c2, br, fused<L>(c1, ar, re[0])), ei = fused<L>(c2, bi, fused<L>(c1, ai, im[0]));
        const Vector<L> fr = fused<L>(c1, br, fused<L>(c2, ar, re[0])), fi = fused<L>(c1, bi, fused<L>(c2, ai, im[0]));
        const Vector<L> gr = fused<L>(s2, dr, s1 * cr), gi = fused<L>(s2, di, s1 * ci);
        const Vector<L> hr = fused_minus<L>(s1, dr, s2 * cr), hi = fused_minus<L>(s1, di, s2 * ci);
        re[0] += ar + br, im[0] += ai + bi;
        re[1] = er + gi, im[1] = ei - gr;
        re[4] = er - gi, im[4] = ei + gr;
        re[2] = fr + hi, im[2] = fi - hr;
        re[3] = fr - hi, im[3] = fi + hr;
    }
};

// `count` butterflies side by side: IN of P inputs are there, OUT of P outputs wanted, turned by P - 1 factors if TURN.
template <int L, int P, int IN, int OUT, bool TURN>
LKSPACE_FLAT void butterflies(const Source& in, int64_t from, int64_t in_gap, const Target& out, int64_t to,
                              int64_t out_gap, const float* factors, int count) {
    for (int q = 0; q < count; ++q) {
        Butterfly<L, P> b;
        LKSPACE_ALL for (int i = 0; i < P; ++i) {
            b.re[i] = i < IN ? load<L>(in.re + (from + q + i * in_gap) * in.re_step) : Vector<L>{};
            b.im[i] = i < IN ? load<L>(in.im + (from + q + i * in_gap) * in.im_step) : Vector<L>{};
        }
        b.transform();
        LKSPACE_ALL for (int i = 0; i < OUT; ++i) {
            Vector<L> re = b.re[i], im = b.im[i];
            if (TURN && i > 0) {
                const Vector<L> wr = spread<L>(factors[2 * i - 2]), wi = spread<L>(factors[2 * i - 1]);
                const Vector<L> r = fused_minus<L>(im, wi, re * wr);
                im = fused<L>(re, wi, im * wr);
                re = r;
            }
            store<L>(out.re + (to + q + i * out_gap) * out.re_step, re);
            store<L>(out.im + (to + q + i * out_gap) * out.im_step, im);
        }
    }
}

// First pass: s = 1, `there` inputs. Butterflies that have IN inputs, then those that have fewer.
template <int L, int P, int IN>
LKSPACE_FLAT void first_pass(const Source& in, const Target& out, int m, int there, const float* factors, int j) {
    const int end = IN == 0 || there - m * (IN - 1) > m ? m : there - m * (IN - 1);
    for (; j < end; ++j)
        butterflies<L, P, IN, P, true>(in, j, m, out, int64_t{P} * j, 1, factors + j * 2 * (P - 1), 1);
    if constexpr (IN > 0) first_pass<L, P, IN - 1>(in, out, m, there, factors, j);
}

template <int L, int P>
void middle_pass(const Source& in, const Target& out, int m, int s, const float* factors) {
    butterflies<L, P, P, P, false>(in, 0, int64_t{s} * m, out, 0, s, nullptr, s);
    for (int j = 1; j < m; ++j)
        butterflies<L, P, P, P, true>(in, int64_t{s} * j, int64_t{s} * m, out, int64_t{s} * P * j, s,
                                      factors + j * 2 * (P - 1), s);
}

// Last pass: m = 1, `wanted` outputs. Butterflies of which OUT outputs are wanted, then those of fewer.
template <int L, int P, int OUT>
LKSPACE_FLAT void last_pass(const Source& in, const Target& out, int s, int wanted, int q) {
    if constexpr (OUT > 0) {
        const int end = wanted - s * (OUT - 1) > s ? s : wanted - s * (OUT - 1);
        if (end > q) {
            butterflies<L, P, P, OUT, false>(in, q, s, out, q, s, nullptr, end - q);
            q = end;
        }
        last_pass<L, P, OUT - 1>(in, out, s, wanted, q);
    }
}

// A transform of n points: at least two passes. The lines of working memory are 2 L n floats each.
class Fourier {
   public:
    explicit Fourier(int points) : n(points), factors(4 * static_cast<size_t>(points)) {
        int left = n;
        for (const int p : RADICES)
            for (; left % p == 0; left /= p) radices[passes++] = p;
        left = n;
        float* factor = factors.data;
        for (int k = 0; k < passes; ++k) {
            offsets[k] = factor - factors.data;
            const int p = radices[k], m = left / p;
            for (int j = 0; j < m; ++j)
                for (int i = 1; i < p; ++i) {
                    const double angle = -6.283185307179586477 * i * j / left;
                    *factor++ = static_cast<float>(std::cos(angle));
                    *factor++ = static_cast<float>(std::sin(angle));
                }
            left = m;
        }
    }

    // `there` of n inputs, `wanted` of n outputs, both from 0 on. `out` may be `in` but neither of the two lines.
    template <int L>
    void run(Source in, int there, const Target& out, int wanted, float* line, float* other) const {
        first<L>(in, line_at<L>(line), there);
        int m = n / radices[0], s = radices[0];
        for (int k = 1; k + 1 < passes; ++k) {
            m /= radices[k];
            middle<L>(k, source(line_at<L>(line)), line_at<L>(other), m, s);
            s *= radices[k];
            float* const swapped = line;
            line = other, other = swapped;
        }
        last<L>(source(line_at<L>(line)), out, s, wanted);
    }

    // What a transform of n points takes, in arbitrary units; 0 if it cannot be done.
    static double cost(int n) {
        double per_point = 0;
        int left = n, passes = 0;
        for (const int p : RADICES)
            for (; left % p == 0; left /= p, ++passes) per_point += p == 2 ? 2.6 : p == 5 ? 5.0 : 3.6;
        return left == 1 && passes > 1 ? n * per_point : 0;
    }

    // The cheapest size of at least `points`.
    static int size_for(int points) {
        int best = 0;
        for (int n = points; n <= 2 * points + 8; ++n)
            if (cost(n) > 0 && (best == 0 || cost(n) < cost(best))) best = n;
        return best;
    }

    const int n;

   private:
    static constexpr int MOST = 32;
    int radices[MOST], passes = 0;
    int64_t offsets[MOST];
    Memory factors;  // (P - 1) m per pass, real and imaginary: less than 2 n in all

    template <int L>
    void first(const Source& in, const Target& out, int there) const {
        switch (radices[0]) {
            case 2: return first_pass<L, 2, 2>(in, out, n / 2, there, factors.data, 0);
            case 3: return first_pass<L, 3, 3>(in, out, n / 3, there, factors.data, 0);
            case 4: return first_pass<L, 4, 4>(in, out, n / 4, there, factors.data, 0);
            default: return first_pass<L, 5, 5>(in, out, n / 5, there, factors.data, 0);
        }
    }

    template <int L>
    void middle(int k, const Source& in, const Target& out, int m, int s) const {
        const float* const w = factors.data + offsets[k];
        switch (radices[k]) {
            case 2: return middle_pass<L, 2>(in, out, m, s, w);
            case 3: return middle_pass<L, 3>(in, out, m, s, w);
            case 4: return middle_pass<L, 4>(in, out, m, s, w);
            default: return middle_pass<L, 5>(in, out, m, s, w);
        }
    }

    template <int L>
    void last(const Source& in, const Target& out, int s, int wanted) const {
        switch (radices[passes - 1]) {
            case 2: return last_pass<L, 2, 2>(in, out, s, wanted, 0);
            case 3: return last_pass<L, 3, 3>(in, out, s, wanted, 0);
            case 4: return last_pass<L, 4, 4>(in, out, s, wanted, 0);
            default: return last_pass<L, 5, 5>(in, out, s, wanted, 0);
        }
    }
};

}  // namespace
}  // namespace lkspace
