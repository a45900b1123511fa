// How a call is cut: channels into groups of vector width, the kernel to what can reach the map, both into tensors' parts.
#pragma once

#include "interface.h"
#include "pack.h"

namespace lkspace {
namespace {

// Vector widths to cut the channels into; the last group may be narrow.
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
// Channel groups are worked on together as long as their kernels take no more than this (floats; a part of the L2
// cache): in channels_last a vector is part of a cache line, or one line of several that are fetched together.
constexpr int64_t KERNELS_FLOATS = 16 * 1024;
// Maps of at most this many pixels are packed without gaps.
constexpr int64_t SMALL_MAP = 100;

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
// Where part `index` of `parts` nearly equal parts of 0 .. whole - 1 begins.
inline int begin_of(int64_t index, int64_t parts, int64_t whole) { return static_cast<int>(whole * index / parts); }

struct Group {
    int64_t channel;
    int lanes;  // channels in it
    bool wide;
};

inline int64_t group_count(int64_t channels) { return ceil_divide(channels, WIDE); }

inline Group group_at(int64_t channels, int64_t index) {
    const int64_t channel = index * WIDE, rest = channels - channel;
    return {channel, static_cast<int>(least(rest, WIDE)), rest > NARROW};
}

template <int LANES>
struct Width {
    static constexpr int L = LANES;
};

// work(Width<L>) for the group's vector width L.
template <class Work>
inline void in_width(const Group& group, const Work& work) {
    if (group.wide)
        work(Width<WIDE>());
    else
        work(Width<NARROW>());
}

// The part of the kernel that can reach the map, and vectors from row to row of a packed image: an odd number on larger
// maps, because an even one (often a power of two) would put a tile's rows into few sets of the cache.
struct Geometry {
    int n, h, w, kh, kw;
    int64_t top, left;  // of the reachable part
    int64_t pitch;
    int64_t groups, together;  // channel groups: all, those worked on together
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
          groups(group_count(q.c)),
          together(least(groups, most(1, KERNELS_FLOATS / (int64_t{kh} * kw * WIDE)))),
          threads(q.n * q.c * q.h * q.w * kh * kw < WORTH_SHARING ? 1 : q.threads) {}
};

// `rows` x `columns` of one image and channel group, from row `row` on.
template <class T>
Picture<T> picture(const View& view, int64_t n, const Group& group, int64_t row, int rows, int columns) {
    return {reinterpret_cast<T*>(view.data) + n * view.n + group.channel * view.c + row * view.h,
            view.c, view.h, view.w, group.lanes, rows, columns};
}

// `rows` of the reachable kernel from its row `row` on.
template <class T>
Picture<T> kernel_picture(const View& view, const Geometry& g, const Group& group, int row, int rows) {
    Picture<T> part = picture<T>(view, 0, group, g.top + row, rows, g.kw);
    part.data += g.left * view.w;
    return part;
}

}  // namespace
}  // namespace lkspace
