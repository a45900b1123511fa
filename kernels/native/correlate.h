// The one inner loop of all three directions:
//
//     out(a, b) += sum over t, s of  kernel(s, t) * image(a + s - ph, b + t - pw),   the image being zero outside
//
//     forward, input gradient:  out = y,            kernel = weights (or turned by 180 degrees)
//     weight gradient:          out = the weights,  kernel = y's gradient, summed over the images
//
// Lanes are channels: every element above is a vector of L channels, so every load is aligned, no lane is ever idle at
// a map's edge, and a kernel vector serves a whole tile of outputs. A tile is 2 rows x COLUMNS, held in registers; the
// loop runs down a column t of the kernel:
//
//        . t . . .          kernel(s, t) meets image row s for the tile's row 0 and image row s + 1 for its row 1:
//        . | . . .          row s + 1 is loaded once, stays in registers, and is row s of the next step.
//        . v . . .          per step 1 + COLUMNS loads, 2 * COLUMNS multiply-adds; the tile's columns are neighbours in
//        . . . . .          memory, at fixed distances from one pointer
//
// Rows and columns of the tile that kernel(s, t) would take from outside the image are left out: exactly the useful
// multiply-adds are done, and no infinite weight is ever multiplied by a padded zero. The order of summation is (t, s)
// for every output, whatever tile it falls in: results do not depend on tiling.
#pragma once

#include "vector.h"

namespace lkspace {
namespace {

struct Correlation {
    const float* image;  // of row 0, also if only some rows are there
    int64_t image_pitch;  // floats from row to row; columns are neighbours
    int64_t image_step;  // floats from one summed image to the next
    int image_h, image_w;
    const float* kernel;  // kernel_w columns of kernel_h vectors
    int64_t kernel_step;  // floats from the kernel of one summed image to that of the next
    int kernel_h, kernel_w;
    int ph, pw;
    int summed;  // images
    float* out;
    int64_t out_pitch, out_column;  // floats from row to row, from column to column
    const float* start;  // one vector that sums start from, or null
    bool add;  // to what `out` holds
};

// One tile at (a, b). The first kernel row that all its rows can take is `from`; with two rows, the second alone can
// take the one before if there is an `upper`, the first alone the one after all `steps` if there is a `lower`.
template <int L, int ROWS, int COLUMNS>
struct Tile {
    Vector<L> sum[ROWS][COLUMNS];
    const float* image;  // row a + from - ph, column b - pw
    const float* kernel;  // row `from` of column 0
    int64_t pitch, kernel_pitch;
    int steps, kernel_w;
    bool upper, lower;

    // Kernel column t for the tile's columns FROM .. TO - 1.
    template <int FROM, int TO>
    LKSPACE_INLINE void column(int t) {
        const float* x = image + t * L;
        const float* k = kernel + t * kernel_pitch;
        if constexpr (ROWS == 1) {
            for (int step = 0; step < steps; ++step, k += L, x += pitch) {
                const Vector<L> w = load<L>(k);
                LKSPACE_UNROLL for (int j = FROM; j < TO; ++j) multiply_add<L>(sum[0][j], w, x + j * L);
            }
        } else {
            Vector<L> row[COLUMNS];
            LKSPACE_UNROLL for (int j = FROM; j < TO; ++j) row[j] = load<L>(x + j * L);
            if (upper) {
                const Vector<L> w = load<L>(k - L);
                LKSPACE_UNROLL for (int j = FROM; j < TO; ++j) multiply_add<L>(sum[1][j], w, row[j]);
            }
            for (int step = 0; step < steps; ++step, k += L) {
                const Vector<L> w = load<L>(k);
                x += pitch;
                LKSPACE_UNROLL for (int j = FROM; j < TO; ++j) {
                    multiply_add<L>(sum[0][j], w, row[j]);
                    row[j] = load<L>(x + j * L);
                    multiply_add<L>(sum[1][j], w, row[j]);
                }
            }
            if (lower) {
                const Vector<L> w = load<L>(k);
                LKSPACE_UNROLL for (int j = FROM; j < TO; ++j) multiply_add<L>(sum[0][j], w, row[j]);
            }
        }
    }
    // Kernel columns that only the tile's columns FROM .. COLUMNS - 1 can take, left of the image for the others.
    template <int FROM>
    LKSPACE_INLINE void left(int first) {
        if constexpr (FROM > 0) {
            const int t = first - FROM;
            if (t >= 0 && t < kernel_w) column<FROM, COLUMNS>(t);
            left<FROM - 1>(first);
        }
    }
    // Kernel columns that only the tile's columns 0 .. TO - 1 can take, right of the image for the others.
    template <int TO>
    LKSPACE_INLINE void right(int last) {
        if constexpr (TO > 0) {
            const int t = last - TO;
            if (t >= 0 && t < kernel_w) column<0, TO>(t);
            right<TO - 1>(last);
        }
    }
};

// Tiles of ROWS x COLUMNS from (a, b) downward, as many as fit above row `end`; returns the row after the last.
// ROWS <= image_h, COLUMNS <= image_w. One function for a whole strip: with a small kernel a tile takes no longer than a call.
template <int L, int ROWS, int COLUMNS>
__attribute__((noinline)) int correlate_strip(const Correlation& q, int a, int end, int b) {
    const int first = q.pw - b, last = q.image_w + q.pw - b;  // the t that column b can take
    const int all_from = first > 0 ? first : 0;  // the t that all columns of the tile can take
    const int all_to = last - (COLUMNS - 1) < q.kernel_w ? last - (COLUMNS - 1) : q.kernel_w;
    const Vector<L> start = q.start ? load<L>(q.start) : Vector<L>{};
    for (; a + ROWS <= end; a += ROWS) {
        const int top = q.ph - a, bottom = q.image_h + q.ph - a - (ROWS - 1);  // the s that all rows can take
        const int from = top > 0 ? top : 0, to = bottom < q.kernel_h ? bottom : q.kernel_h;
        Tile<L, ROWS, COLUMNS> tile;
        tile.image = q.image + (a + from - q.ph) * q.image_pitch + int64_t{b - q.pw} * L;
        tile.kernel = q.kernel + int64_t{from} * L;
        tile.pitch = q.image_pitch;
        tile.kernel_pitch = int64_t{q.kernel_h} * L;
        tile.steps = to - from;
        tile.kernel_w = q.kernel_w;
        tile.upper = top > 0 && top <= q.kernel_h;
        tile.lower = bottom < q.kernel_h;
        LKSPACE_UNROLL for (int i = 0; i < ROWS; ++i)
            LKSPACE_UNROLL for (int j = 0; j < COLUMNS; ++j) tile.sum[i][j] = start;
        for (int n = 0; n < q.summed; ++n) {
            tile.template left<COLUMNS - 1>(first);
            for (int t = all_from; t < all_to; ++t) tile.template column<0, COLUMNS>(t);
            tile.template right<COLUMNS - 1>(last);
            tile.image += q.image_step;
            tile.kernel += q.kernel_step;
        }
        float* out = q.out + a * q.out_pitch + b * q.out_column;
        LKSPACE_UNROLL for (int i = 0; i < ROWS; ++i)
            LKSPACE_UNROLL for (int j = 0; j < COLUMNS; ++j) {
                float* place = out + i * q.out_pitch + j * q.out_column;
                store<L>(place, q.add ? load<L>(place) + tile.sum[i][j] : tile.sum[i][j]);
            }
    }
    return a;
}

// Output rows a .. end - 1 of COLUMNS columns from b.
template <int L, int COLUMNS>
void correlate_columns(const Correlation& q, int a, int end, int b) {
    if (q.image_h > 1) a = correlate_strip<L, 2, COLUMNS>(q, a, end, b);
    correlate_strip<L, 1, COLUMNS>(q, a, end, b);
}

// Outputs rows a .. end - 1, columns 0 .. width - 1, in tiles of nearly equal width: a narrow last tile would have too
// few sums in flight to hide the latency of a multiply-add.
template <int L>
void correlate(const Correlation& q, int a, int end, int width) {
    const int widest = q.image_w < TILE_COLUMNS ? q.image_w : TILE_COLUMNS;
    int b = 0;
    for (int tiles = (width + widest - 1) / widest; tiles > 0; --tiles) {
        const int columns = (width - b + tiles - 1) / tiles;
        switch (columns) {
            case 1: correlate_columns<L, 1>(q, a, end, b); break;
            case 2: correlate_columns<L, 2>(q, a, end, b); break;
            case 3: correlate_columns<L, 3>(q, a, end, b); break;
            case 4: correlate_columns<L, 4>(q, a, end, b); break;
#if LKSPACE_TILE_COLUMNS > 4
            case 5: correlate_columns<L, 5>(q, a, end, b); break;
#endif
#if LKSPACE_TILE_COLUMNS > 5
            case 6: correlate_columns<L, 6>(q, a, end, b); break;
            case 7: correlate_columns<L, 7>(q, a, end, b); break;
            case 8: correlate_columns<L, 8>(q, a, end, b); break;
#endif
        }
        b += columns;
    }
}

}  // namespace
}  // namespace lkspace
