// Direct convolution and weight gradient, compiled once per instruction set (LKSPACE_VARIANT names the namespace).
//
// Channels are cut into groups of L lanes; a group of one image is packed into vectors, correlated (correlate.h), and
// unpacked. Everything here has internal linkage: code compiled for one instruction set must not be merged by the linker
// with the same template compiled for another.
#include <cstdint>

#include "correlate.h"
#include "interface.h"
#include "pack.h"
#include "scratch.h"
#include "variants.h"

namespace lkspace {
namespace {

// Vector widths to cut the channels into, widest first.
#if defined(__AVX512F__)
constexpr int WIDE = 16, NARROW = 8;
#elif defined(__AVX2__)
constexpr int WIDE = 8, NARROW = 4;
#else
constexpr int WIDE = 4, NARROW = 4;
#endif

// Below this many multiply-adds a second thread costs more than it brings (some 10 microseconds).
constexpr int64_t WORTH_SHARING = 200000;
// Pieces of work per thread, so that one slow core does not hold up the others.
constexpr int64_t PIECES = 4;
// Images whose gradients are summed in one go: as many as leave the L2 cache room (floats, image and gradient).
constexpr int64_t SUMMED_FLOATS = 48 * 1024;

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Group {
    int64_t channel;
    int lanes;
    bool wide;
};

inline int64_t group_count(int64_t channels) {
    const int64_t rest = channels % WIDE;
    return channels / WIDE + (rest > 0);
}

inline Group group_at(int64_t channels, int64_t index) {
    const int64_t channel = index * WIDE, rest = channels - channel;
    return {channel, static_cast<int>(least(rest, WIDE)), rest > NARROW};
}

// Maps of at most this many pixels are packed without gaps.
constexpr int64_t SMALL_MAP = 100;

// The part of the kernel that can reach the map, and vectors from row to row of a packed image: an odd number on larger
// maps, because an even one (often a power of two) would put a tile's rows into few sets of the cache.
struct Geometry {
    int n, h, w, kh, kw;
    int64_t top, left;  // of the reachable part
    int64_t pitch;
    int64_t threads;

    explicit Geometry(const Call& q)
        : n(static_cast<int>(q.n)),
          h(static_cast<int>(q.h)),
          w(static_cast<int>(q.w)),
          kh(static_cast<int>(least(q.kh, 2 * q.h - 1))),
          kw(static_cast<int>(least(q.kw, 2 * q.w - 1))),
          top((q.kh - kh) / 2),
          left((q.kw - kw) / 2),
          pitch(q.h * q.w <= SMALL_MAP ? q.w : q.w | 1),
          threads(q.n * q.c * q.h * q.w * kh * kw < WORTH_SHARING ? 1 : q.threads) {}
};

template <class T>
Picture<T> picture(const View& view, int64_t n, const Group& group, int64_t row, int rows, int columns) {
    return {reinterpret_cast<T*>(view.data) + n * view.n + group.channel * view.c + row * view.h,
            view.c, view.h, view.w, group.lanes, rows, columns};
}

template <class T>
Picture<T> kernel_picture(const View& view, const Geometry& g, const Group& group, int row, int rows) {
    Picture<T> part = picture<T>(view, 0, group, g.top + row, rows, g.kw);
    part.data += g.left * view.w;
    return part;
}

// What one piece of work of a convolution covers: images and output rows, each from .. to - 1, of one channel group.
struct Part {
    Group group;
    int image_from, image_to, row_from, row_to;
};

template <int L, class T>
void convolve_part(const Call& q, const Geometry& g, const Part& part) {
    const int ph = g.kh / 2, from = part.row_from, to = part.row_to;
    const int first = from > ph ? from - ph : 0, last = static_cast<int>(least(g.h, to + ph));  // image rows needed
    const int64_t kernel_floats = int64_t{g.kh} * g.kw * L, image_floats = (last - first) * g.pitch * L;
    const int64_t out_floats = int64_t{to - from} * g.w * L;
    float *kernel = scratch(kernel_floats + image_floats + out_floats + L), *image = kernel + kernel_floats;
    float *out = image + image_floats, *bias = out + out_floats;

    const int64_t column = int64_t{g.kh} * L;
    const Vectors upright = {kernel, L, column}, turned = {kernel + kernel_floats - L, -L, -column};
    pack<L>(kernel_picture<const T>(q.kernel, g, part.group, 0, g.kh), q.flip ? turned : upright);
    if (q.bias.data) pack<L>(picture<const T>(q.bias, 0, part.group, 0, 1, 1), {bias, 0, 0});

    Correlation c = {};
    c.image = image - first * g.pitch * L;
    c.image_pitch = g.pitch * L;
    c.image_h = g.h;
    c.image_w = g.w;
    c.kernel = kernel;
    c.kernel_h = g.kh;
    c.kernel_w = g.kw;
    c.ph = ph;
    c.pw = g.kw / 2;
    c.summed = 1;
    c.start = q.bias.data ? bias : nullptr;
    for (int n = part.image_from; n < part.image_to; ++n) {
        pack<L>(picture<const T>(q.image, n, part.group, first, last - first, g.w), {image, c.image_pitch, L});
        const Picture<T> y = picture<T>(q.map, n, part.group, from, to - from, g.w);
        if (sizeof(T) == sizeof(float) && y.lane == 1 && y.lanes == L) {  // channels_last: tiles go to their place
            c.out_pitch = y.row;
            c.out_column = y.column;
            c.out = reinterpret_cast<float*>(y.data) - from * y.row;
            correlate<L>(c, from, to, g.w);
        } else {
            c.out_pitch = int64_t{g.w} * L;
            c.out_column = L;
            c.out = out - from * c.out_pitch;
            correlate<L>(c, from, to, g.w);
            unpack<L>({out, c.out_pitch, L}, y);
        }
    }
}

template <class T>
void convolve(const Call& q) {
    const Geometry g(q);
    const int64_t groups = group_count(q.c), wanted = ceil_divide(g.threads > 1 ? PIECES * g.threads : 1, groups);
    // Runs of images, which share a packed kernel; rows of a map too if there are too few images for the threads.
    const int64_t runs = least(g.n, wanted), bands = least(ceil_divide(wanted, runs), ceil_divide(g.h, 2));
    share(groups * runs * bands, g.threads, [&](int64_t piece) {
        const int64_t run = piece / bands % runs, band = piece % bands;
        const Part part = {group_at(q.c, piece / bands / runs), static_cast<int>(g.n * run / runs),
                           static_cast<int>(g.n * (run + 1) / runs), static_cast<int>(g.h * band / bands),
                           static_cast<int>(g.h * (band + 1) / bands)};
        if (part.group.wide)
            convolve_part<WIDE, T>(q, g, part);
        else
            convolve_part<NARROW, T>(q, g, part);
    });
}

template <int L>
void add_up(const float* vectors, int64_t count, float* sum) {
    Vector<L> total = {};
    for (int64_t k = 0; k < count; ++k) total += load<L>(vectors + k * L);
    store<L>(sum, load<L>(sum) + total);
}

// Rows `from` .. `to` - 1 of the reachable kernel's gradient for one channel group; the bias's with the first rows.
template <int L, class T>
void weight_gradient_piece(const Call& q, const Geometry& g, const Group& group, int from, int to) {
    const int64_t image_floats = g.h * g.pitch * L, map_floats = int64_t{g.h} * g.w * L;
    const int together = static_cast<int>(least(g.n, 1 + SUMMED_FLOATS / (image_floats + map_floats)));
    const int64_t taps = int64_t{to - from} * g.kw * L;
    float* memory = scratch(together * (image_floats + map_floats) + taps + L);
    float *image = memory, *map = image + together * image_floats, *out = map + together * map_floats;
    float* bias = out + taps;
    for (int l = 0; l < L; ++l) bias[l] = 0.0f;

    Correlation c = {};
    c.image = image;
    c.image_pitch = g.pitch * L;
    c.image_step = image_floats;
    c.image_h = g.h;
    c.image_w = g.w;
    c.kernel = map;
    c.kernel_step = map_floats;
    c.kernel_h = g.h;
    c.kernel_w = g.w;
    c.ph = g.kh / 2;
    c.pw = g.kw / 2;
    c.out_pitch = int64_t{g.kw} * L;
    c.out_column = L;
    c.out = out - from * c.out_pitch;
    for (int n = 0; n < g.n; n += together) {
        c.summed = static_cast<int>(least(together, g.n - n));
        for (int k = 0; k < c.summed; ++k) {
            pack<L>(picture<const T>(q.image, n + k, group, 0, g.h, g.w), {image + k * image_floats, g.pitch * L, L});
            pack<L>(picture<const T>(q.map, n + k, group, 0, g.h, g.w),
                    {map + k * map_floats, L, int64_t{g.h} * L});
            if (from == 0 && q.bias.data) add_up<L>(map + k * map_floats, int64_t{g.h} * g.w, bias);
        }
        c.add = n > 0;
        correlate<L>(c, from, to, g.kw);
    }
    unpack<L>({out, c.out_pitch, L}, kernel_picture<T>(q.kernel, g, group, from, to - from));
    if (from == 0 && q.bias.data) unpack<L>({bias, 0, 0}, picture<T>(q.bias, 0, group, 0, 1, 1));
}

template <class T>
void weight_gradient(const Call& q) {
    const Geometry g(q);
    const int64_t groups = group_count(q.c);
    // Every piece packs its images anew, so kernels are cut only if there are too few groups for the threads.
    const int64_t cuts = groups % g.threads == 0 || groups >= PIECES * g.threads
                             ? 1
                             : least(ceil_divide(PIECES * g.threads, groups), ceil_divide(g.kh, 2));
    share(groups * cuts, g.threads, [&](int64_t piece) {
        const Group group = group_at(q.c, piece / cuts);
        const int64_t cut = piece % cuts;
        const int from = static_cast<int>(g.kh * cut / cuts), to = static_cast<int>(g.kh * (cut + 1) / cuts);
        if (group.wide)
            weight_gradient_piece<WIDE, T>(q, g, group, from, to);
        else
            weight_gradient_piece<NARROW, T>(q, g, group, from, to);
    });
}

}  // namespace

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

}  // namespace LKSPACE_VARIANT
}  // namespace lkspace
