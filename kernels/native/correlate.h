// The one inner loop of all three directions:
//
//     out(a, b) += sum over s, t of  kernel(s, t) * image(a + s - ph, b + t - pw),   the image being zero outside
//
//     forward, input gradient:  out = y,            kernel = weights (or turned by 180 degrees)
//     weight gradient:          out = the weights,  kernel = y's gradient, summed over the images
//
// Lanes are channels: every element above is a vector of L channels, so every load is aligned, no lane is ever idle at
// a map's edge, and a kernel vector serves a whole tile of outputs:
//
//          t ->                     a tile of ROWS x 2 outputs, in registers
//     s  . . . . .     per (s, t):  1 load of the kernel, ROWS * 2 multiply-adds with a memory operand
//     |  . w . . .
//     v  . . . . .     rows and columns of the tile that (s, t) would take from outside the image are left out:
//                      exactly the useful multiply-adds are done, and no inf is ever multiplied by a padded zero
//
// The order of summation is (s, t) for every output, whatever tile it falls in: results do not depend on tiling.
#pragma once

#include "vector.h"

namespace lkspace {
namespace {

struct Correlation {
    const float* image;  // of row 0, also if only some rows are there
    int64_t image_pitch;  // floats from row to row
    int64_t image_step;  // floats from one summed image to the next
    int image_h, image_w;
    const float* kernel;  // rows of kernel_w vectors
    int64_t kernel_step;  // floats from the kernel of one summed image to that of the next
    int kernel_h, kernel_w;
    int ph, pw;
    int summed;  // images
    float* out;
    int64_t out_pitch, out_column;  // floats from row to row, from column to column
    int out_w;
    const float* start;  // one vector that sums start from, or null
    bool add;  // to what `out` holds
};

#define LKSPACE_INLINE inline __attribute__((always_inline))

// Tile rows FROM .. TO - 1 take part in kernel row s; `image` and `kernel` point at its element t = 0.
template <int L, int COLUMNS, int FROM, int TO, int ROWS>
LKSPACE_INLINE void kernel_row(Vector<L> (&sum)[ROWS][COLUMNS], const float* image, int64_t pitch, const float* kernel,
                               int from, int to, bool left, bool right) {
    if (COLUMNS == 2 && left) {
        const Vector<L> w = load<L>(kernel + (from - 1) * L);
#pragma GCC unroll 8
        for (int i = FROM; i < TO; ++i) sum[i][COLUMNS - 1] += w * load<L>(image + i * pitch + from * L);
    }
    for (int t = from; t < to; ++t) {
        const Vector<L> w = load<L>(kernel + t * L);
#pragma GCC unroll 8
        for (int i = FROM; i < TO; ++i)
#pragma GCC unroll 2
            for (int j = 0; j < COLUMNS; ++j) sum[i][j] += w * load<L>(image + i * pitch + (t + j) * L);
    }
    if (COLUMNS == 2 && right) {
        const Vector<L> w = load<L>(kernel + to * L);
#pragma GCC unroll 8
        for (int i = FROM; i < TO; ++i) sum[i][0] += w * load<L>(image + i * pitch + to * L);
    }
}

// What one tile's rows of kernel taps have in common.
template <int L, int ROWS, int COLUMNS>
struct Tile {
    const Correlation& q;
    const float* image;  // row a - ph, column b - pw of the tile's first output (a, b)
    const float* kernel;
    int from, to;  // t that all columns of the tile can take
    bool left, right;  // whether from - 1 (second column only), to (first column only) exist
    Vector<L> sum[ROWS][COLUMNS];

    template <int FROM, int TO>
    LKSPACE_INLINE void row(int s) {
        kernel_row<L, COLUMNS, FROM, TO, ROWS>(sum, image + s * q.image_pitch, q.image_pitch,
                                               kernel + int64_t{s} * q.kernel_w * L, from, to, left, right);
    }
    // Kernel rows that only tile rows FROM .. ROWS - 1 can take: those above the image for the others.
    template <int FROM>
    LKSPACE_INLINE void above(int first) {
        if constexpr (FROM > 0) {
            const int s = first - FROM;
            if (s >= 0 && s < q.kernel_h) row<FROM, ROWS>(s);
            above<FROM - 1>(first);
        }
    }
    // Kernel rows that only tile rows 0 .. TO - 1 can take: those below the image for the others.
    template <int TO>
    LKSPACE_INLINE void below(int last) {
        if constexpr (TO > 0) {
            const int s = last - TO;
            if (s >= 0 && s < q.kernel_h) row<0, TO>(s);
            below<TO - 1>(last);
        }
    }
};

// Outputs (a .. a + ROWS - 1, b .. b + COLUMNS - 1); ROWS <= image_h, COLUMNS <= image_w.
template <int L, int ROWS, int COLUMNS>
__attribute__((noinline)) void correlate_tile(const Correlation& q, int a, int b) {
    const int first = q.ph - a, last = q.image_h + q.ph - a;  // the s that row a can take, before clipping to kernel_h
    const int left = q.pw - b, right = q.image_w + q.pw - b - (COLUMNS - 1);
    Tile<L, ROWS, COLUMNS> tile{q, q.image + (a - q.ph) * q.image_pitch + int64_t{b - q.pw} * L,
                                q.kernel,
                                left > 0 ? left : 0,
                                right < q.kernel_w ? right : q.kernel_w,
                                left > 0 && left <= q.kernel_w,
                                right >= 0 && right < q.kernel_w,
                                {}};
    const Vector<L> start = q.start ? load<L>(q.start) : Vector<L>{};
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < COLUMNS; ++j) tile.sum[i][j] = start;
    const int from = first > 0 ? first : 0;
    const int to = last - (ROWS - 1) < q.kernel_h ? last - (ROWS - 1) : q.kernel_h;
    for (int n = 0; n < q.summed; ++n) {
        tile.template above<ROWS - 1>(first);
        for (int s = from; s < to; ++s) tile.template row<0, ROWS>(s);
        tile.template below<ROWS - 1>(last);
        tile.image += q.image_step;
        tile.kernel += q.kernel_step;
    }
    float* out = q.out + a * q.out_pitch + b * q.out_column;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < COLUMNS; ++j) {
            float* place = out + i * q.out_pitch + j * q.out_column;
            store<L>(place, q.add ? load<L>(place) + tile.sum[i][j] : tile.sum[i][j]);
        }
}

template <int L, int ROWS>
void correlate_rows(const Correlation& q, int a) {
    int b = 0;
    if (q.image_w > 1)
        for (; b + 2 <= q.out_w; b += 2) correlate_tile<L, ROWS, 2>(q, a, b);
    for (; b < q.out_w; ++b) correlate_tile<L, ROWS, 1>(q, a, b);
}

// Output rows a .. end - 1, in tiles of nearly equal height: a low last tile would have too few sums in flight.
template <int L>
void correlate(const Correlation& q, int a, int end) {
    const int highest = q.image_h < TILE_ROWS ? q.image_h : TILE_ROWS;
    for (int tiles = (end - a + highest - 1) / highest; tiles > 0; --tiles) {
        const int rows = (end - a + tiles - 1) / tiles;
        switch (rows) {
            case 1: correlate_rows<L, 1>(q, a); break;
            case 2: correlate_rows<L, 2>(q, a); break;
            case 3: correlate_rows<L, 3>(q, a); break;
            case 4: correlate_rows<L, 4>(q, a); break;
            case 5: correlate_rows<L, 5>(q, a); break;
            case 6: correlate_rows<L, 6>(q, a); break;
#if LKSPACE_TILE_ROWS > 6
            case 7: correlate_rows<L, 7>(q, a); break;
#endif
#if LKSPACE_TILE_ROWS > 7
            case 8: correlate_rows<L, 8>(q, a); break;
#endif
        }
        a += rows;
    }
}

}  // namespace
}  // namespace lkspace
