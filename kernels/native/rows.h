// Small kernels, forward and input gradient: one row of outputs at a time, the kernel row in registers.
//
//     out(a, b) = sum over s, t of  kernel(s, t) * image(a + s - ph, b + t - pw),   the image being zero outside
//
// Lanes are channels, as in correlate.h, but neither the image nor the result need be packed: a vector is wherever eight
// channels are neighbours, so a channels_last tensor is read and written in place. Per kernel row s:
//
//        w0 w1 w2               the row's KW vectors stay in registers; every image vector is loaded once, meets up to
//        x0 x1 x2 x3 .. x9      KW sums, and is forgotten: KW + COLUMNS - 1 loads for KW * COLUMNS multiply-adds
//         \ | / \ | /
//          y0 .. y7             COLUMNS sums in registers
//
// correlate.h, whose tile must be two rows high to reuse what it loads, needs more loads, and its loop down a kernel
// column is too short to be worth beginning when that column has three rows. Order of summation: (s, t) for
// every output, whatever tile it falls in.
#pragma once

#include "correlate.h"
#include "epilogue.h"

namespace lkspace {
namespace {

struct Rows {
    const float* image;  // of row 0, also if only some rows are there
    int64_t image_pitch, image_column, image_group;  // floats from row to row, column to column, group to group
    int image_h, image_w;
    const float* kernel;  // kernel_h rows of KW vectors; groups follow each other
    int kernel_h;
    const float* start;  // one vector per group that sums start from, or null
    float* out;
    int64_t out_pitch, out_column, out_group;
    int groups;
    int64_t activation;
    bool ahead;  // fetch the next image row meanwhile: no processor expects it. Not that of results: new pages take long
};

// Kernel widths that have such loops.
inline bool in_rows(int64_t kernel_w) { return kernel_w == 3 || kernel_w == 5 || kernel_w == 7; }

// Sums of a tile, so that they, a kernel row and one image vector fill 16 registers. More than 12 would bring nothing: 8
// hide the latency of a multiply-add.
template <int KW>
constexpr int ROW_COLUMNS = 15 - KW;

// Groups in a cache line of 16 floats.
template <int L>
constexpr int LINE_GROUPS = 16 / L;

// Outputs (a, b) .. (a, b + COLUMNS - 1) of all groups. EDGE: some of the image vectors lie outside.
template <int L, int KW, int COLUMNS, bool EDGE>
__attribute__((noinline)) void row_tile(const Rows& q, int a, int b) {
    const int ph = q.kernel_h / 2, pw = KW / 2;
    const int from = a < ph ? ph - a : 0, to = q.kernel_h < q.image_h + ph - a ? q.kernel_h : q.image_h + ph - a;
    const int first = b < pw ? pw - b : 0, last = q.image_w + pw - b;  // of the image vectors
    const float* image = q.image + (a + from - ph) * q.image_pitch + (b - pw) * q.image_column;
    const float* kernel = q.kernel + int64_t{from} * KW * L;
    float* out = q.out + a * q.out_pitch + b * q.out_column;
    for (int g = 0; g < q.groups; ++g) {
        if (q.ahead && g % LINE_GROUPS<L> == 0)
            LKSPACE_UNROLL for (int j = 0; j < COLUMNS; ++j)
                __builtin_prefetch(image + (to - from) * q.image_pitch + (j + pw) * q.image_column);
        Vector<L> sum[COLUMNS];
        const Vector<L> start = q.start ? load<L>(q.start + g * L) : Vector<L>{};
        LKSPACE_UNROLL for (int j = 0; j < COLUMNS; ++j) sum[j] = start;
        const float* row = image;
        const float* k = kernel;
        for (int s = from; s < to; ++s, row += q.image_pitch, k += KW * L) {
            Vector<L> w[KW];
            LKSPACE_UNROLL for (int t = 0; t < KW; ++t) w[t] = load<L>(k + t * L);
            const float* x = row;
            LKSPACE_UNROLL for (int i = 0; i < COLUMNS + KW - 1; ++i, x += q.image_column) {
                if (EDGE && (i < first || i >= last)) continue;
                const Vector<L> value = load<L>(x);
                LKSPACE_UNROLL for (int t = 0; t < KW; ++t)
                    if (i >= t && i - t < COLUMNS) multiply_add<L>(sum[i - t], w[t], value);
            }
        }
        float* place = out;
        LKSPACE_UNROLL for (int j = 0; j < COLUMNS; ++j, place += q.out_column) store<L>(place, sum[j]);
        if (q.activation != NONE) finish<L>({out, 0, q.out_column}, 1, COLUMNS, nullptr, q.activation);
        image += q.image_group;
        kernel += int64_t{q.kernel_h} * KW * L;
        out += q.out_group;
    }
}

template <int L, int KW, int COLUMNS>
void row_tile_of(const Rows& q, int columns, int a, int b) {
    if constexpr (COLUMNS > 0) {
        if (columns < COLUMNS) return row_tile_of<L, KW, COLUMNS - 1>(q, columns, a, b);
        if (b < KW / 2 || b + COLUMNS + KW / 2 > q.image_w)
            row_tile<L, KW, COLUMNS, true>(q, a, b);
        else
            row_tile<L, KW, COLUMNS, false>(q, a, b);
    }
}

// Output rows a .. end - 1, in tiles of nearly equal width. A row's tiles before the next row: its image rows are then
// read from the cache, and neighbouring groups are neighbours in a cache line.
template <int L, int KW>
void rows_of_width(const Rows& q, int a, int end) {
    constexpr int WIDEST = ROW_COLUMNS<KW>;
    for (; a < end; ++a) {
        int b = 0;
        for (int tiles = (q.image_w + WIDEST - 1) / WIDEST; tiles > 0; --tiles) {
            const int columns = (q.image_w - b + tiles - 1) / tiles;
            row_tile_of<L, KW, WIDEST>(q, columns, a, b);
            b += columns;
        }
    }
}

template <int L>
void rows(const Rows& q, int kernel_w, int a, int end) {
    switch (kernel_w) {
        case 3: return rows_of_width<L, 3>(q, a, end);
        case 5: return rows_of_width<L, 5>(q, a, end);
        case 7: return rows_of_width<L, 7>(q, a, end);
    }
}

}  // namespace
}  // namespace lkspace
