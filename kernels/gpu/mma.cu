// Depthwise convolution of one channel as products of 8 x 8 blocks on tensor cores, both operands in shared memory.
//
// For one kernel row u, an output row i needs the input row i + u - Kh/2, times a band of a Toeplitz matrix. Cut into
// blocks of 8 columns, that band is made of few different blocks, whatever the width of the map:
//
//               jb       block(o)[k, n] = w[u, 8 o + k - n + Kw/2],  o = kb - jb,  0 outside the kernel
//         [ 0  -1  -2  .  ]
//     kb  [ 1   0  -1 -2  ]        Kw = 31: o = -2 .. 2: five blocks, five registers a thread, for all of the map
//         [ 2   1   0 -1  ]
//         [ .   2   1  0  ]
//
// One mma.m16n8k16 takes 16 positions x (8 columns x 2 kernel rows) by the blocks of these two kernel rows:
//
//     y[position, 8 jb + n] += sum over k of x[row + u, 8 kb + k] block(u, o)[k, n] + x[row + u + 1, 8 kb + k] block(u + 1, o)[k, n]
//
// `rows`: positions are rows of output, counted through the images of a step. A program has one channel; while one step
// is computed, the planes of the next one arrive (cp.async). `images`, for small maps: positions are images, each warp
// has a share of the output rows, and rows that meet no row of the kernel cost nothing.
//
// Planes lie in shared memory in rows of 16-byte units at an odd pitch, so that the 8 rows of a block are in 8 groups of
// banks. Sums are float32; bias and activation are applied to them. 0 x inf is NaN where the kernel does not reach, so
// a sum that is not finite is summed again tap by tap.
//
// Constants by the compiler's command line: H, W, KH, KW; FLIP; HALF (float16, else bfloat16); ACTIVATION (0 none,
// 1 ReLU, 2 GELU); VECTOR, elements a copy; IMAGES a step; WARPS; RESIDENT, programs that a multiprocessor is to hold; TALL,
// tiles a warp of `rows`; TILES, of 16 images, and ROWS, of output, a warp of `images`; GRADIENT for the weight gradient.

typedef unsigned int u32;
typedef unsigned short u16;

#ifdef __CUDACC__
typedef u32 address;
#define SHARED extern __shared__ __align__(16) unsigned char shared[];

__device__ __forceinline__ address address_of(void* pointer) { return (address)__cvta_generic_to_shared(pointer); }

__device__ __forceinline__ u32 load_word(address from) {
    u32 word;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(from));
    return word;
}

__device__ __forceinline__ void load_words(u32& first, u32& second, address from) {
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(first), "=r"(second) : "r"(from));
}

__device__ __forceinline__ void store_words(u16* to, u32 first, u32 second) { *(uint2*)to = make_uint2(first, second); }

// The neighbour's value: of lane 1 for lane 0, and so on.
__device__ __forceinline__ u32 exchange(u32 value) { return __shfl_xor_sync(0xffffffff, value, 1); }

// Whether it is so for some lane of the warp; what they have written before, all of them see.
__device__ __forceinline__ bool for_any_lane(bool here) {
    const bool some = __any_sync(0xffffffff, here);
    __syncwarp();
    return some;
}

// Four 8 x 8 blocks; lane l holds the address of row l % 8 of block l / 8.
__device__ __forceinline__ void load_blocks(u32 (&a)[4], address from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(from));
}

// The same, each block transposed.
__device__ __forceinline__ void load_blocks_transposed(u32 (&a)[4], address from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(from));
}

__device__ __forceinline__ void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if HALF
#define LK_TYPES "f32.f16.f16.f32"
#else
#define LK_TYPES "f32.bf16.bf16.f32"
#endif
    asm volatile("mma.sync.aligned.m16n8k16.row.col." LK_TYPES
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <int BYTES>
__device__ __forceinline__ void copy_ahead(address to, const void* from) {
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    else if constexpr (BYTES >= 4)
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(BYTES) : "memory");
    else
        asm volatile("st.shared.b16 [%0], %1;" ::"r"(to), "h"(*(const u16*)from) : "memory");
}

template <int BYTES>
__device__ __forceinline__ void move(void* to, const void* from) {
    if constexpr (BYTES == 16)
        *(uint4*)to = *(const uint4*)from;
    else if constexpr (BYTES == 8)
        *(uint2*)to = *(const uint2*)from;
    else if constexpr (BYTES == 4)
        *(u32*)to = *(const u32*)from;
    else
        *(u16*)to = *(const u16*)from;
}

__device__ __forceinline__ void end_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int LATER>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
}

__device__ __forceinline__ u32 pack(float low, float high) {
    u32 both;
#if HALF
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#else
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#endif
    return both;
}

__device__ __forceinline__ float widen(u16 bits) {
    float value;
#if HALF
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
#else
    value = __uint_as_float((u32)bits << 16);
#endif
    return value;
}
#endif  // else: the file that includes this one defines the same of an emulated warp

namespace {

__host__ __device__ constexpr int at_least(int a, int b) { return a > b ? a : b; }
__host__ __device__ constexpr int at_most(int a, int b) { return a < b ? a : b; }

constexpr int UNIT = 16, COLUMNS = (W + 7) / 8;  // bytes and number of the 8 columns of a block
constexpr int UP = KH / 2, LEFT = KW / 2;
constexpr int OFFSETS = at_most((LEFT + 7) / 8, COLUMNS - 1), BLOCKS = 2 * OFFSETS + 1;
constexpr int BLOCK_BYTES = 32 * 4;
constexpr int THREADS = 32 * WARPS;

struct Map {
    const u16* x;
    u16* y;
    const u16* w;
    const u16* bias;  // of the channel, or none
    long long image, output_image;
    int row, column;  // strides of x; y's planes are contiguous
};

__device__ __forceinline__ bool finite(float value) { return fabsf(value) <= 3.402823466e38f; }

__device__ __forceinline__ float finished(float total, const u16* bias) {
    if (bias) total += widen(*bias);
#if ACTIVATION == 1
    total = total < 0 ? 0 : total;  // keeps NaN
#elif ACTIVATION == 2
    total = 0.5f * total * (1 + erff(total * 0.7071067811865476f));
#endif
    return total;
}

// Output row i of one image, all of it, by a warp, tap by tap: what lies outside the map is left out. Takes numbers, not
// a Map, so that the registers of the products need no address.
__device__ __noinline__ void repair(const u16* x, u16* y, const u16* w, const u16* bias, int i, int row, int column) {
    for (int j = threadIdx.x % 32; j < W; j += 32) {
        float total = 0;
        for (int u = at_least(0, UP - i); u < at_most(KH, H + UP - i); ++u)
            for (int v = at_least(0, LEFT - j); v < at_most(KW, W + LEFT - j); ++v)
                total += widen(x[(long long)(i + u - UP) * row + (long long)(j + v - LEFT) * column]) *
                         widen(w[FLIP ? KH * KW - 1 - (u * KW + v) : u * KW + v]);
        y[j] = (u16)pack(finished(total, bias), 0);
    }
}

// Row i of image n again, if some lane of the warp found a sum of this tile that is not finite.
__device__ __forceinline__ void repair_row(const Map& map, int n, int i) {
    repair(map.x + n * map.image, map.y + n * map.output_image + i * W, map.w, map.bias, i, map.row, map.column);
}

// A row of sums as the lanes of a product hold them, COLUMNS blocks of which lane l has columns 2 (l % 4) and the next.
// Where rows allow it, two neighbouring lanes exchange: each then has 4 columns of one of two blocks.
__device__ __forceinline__ void store_row(const Map& map, int n, int i, bool inside, const u32 (&both)[COLUMNS]) {
    const int lane = threadIdx.x % 32, j = 2 * (lane % 4);
    u16* const to = map.y + n * map.output_image + i * W;
    constexpr int EXCHANGED = W % 4 == 0 ? COLUMNS / 2 * 2 : 0;
#pragma unroll
    for (int k = 0; k < EXCHANGED; k += 2) {
        const u32 other = exchange(lane % 2 ? both[k] : both[k + 1]);
        const int column = 8 * (k + lane % 2) + j - 2 * (lane % 2);
        if (inside && column < W) store_words(to + column, lane % 2 ? other : both[k], lane % 2 ? both[k + 1] : other);
    }
#pragma unroll
    for (int k = EXCHANGED; k < COLUMNS; ++k) {
        if (!inside || 8 * k + j >= W) continue;
        if constexpr (W % 2 == 0) {
            *(u32*)(to + 8 * k + j) = both[k];
        } else {
            to[8 * k + j] = (u16)both[k];
            if (8 * k + j + 1 < W) to[8 * k + j + 1] = (u16)(both[k] >> 16);
        }
    }
}

// Stores half 0 or 1 of a tile, lane l has its row l / 4 + 8 half; whether some sum of it is not finite.
template <int HALF_TILE>
__device__ __forceinline__ bool store_sums(const Map& map, int n, int i, bool inside, const float (&total)[COLUMNS][4]) {
    u32 both[COLUMNS];
    bool bad = false;
#pragma unroll
    for (int k = 0; k < COLUMNS; ++k) {
        const float first = total[k][2 * HALF_TILE], second = total[k][2 * HALF_TILE + 1];
        bad |= !finite(first) || !finite(second);
        both[k] = pack(finished(first, map.bias), finished(second, map.bias));
    }
    store_row(map, n, i, inside, both);
    return bad && inside;
}

// The kernel as it lies, to be read many times.
__device__ __forceinline__ void load_kernel(u16* to, const u16* w) {
    for (int e = threadIdx.x; e < KH * KW; e += THREADS) to[e] = w[e];
}

// The blocks of kernel rows first .. first + count - 1, zero where there is none, as the lanes of a product hold them:
// lane l has k = 2 (l % 4) and k + 1 of column n = l / 4. PAIRED: rows 2 i and 2 i + 1 beside each other.
template <bool PAIRED>
__device__ __forceinline__ void make_blocks(u32* to, const u16* w, int first, int count) {
    const int lane = threadIdx.x % 32, of_lane = 2 * (lane % 4) - lane / 4 + LEFT;
#pragma unroll 4
    for (int e = threadIdx.x / 32; e < count * BLOCKS; e += WARPS) {
        const int o = e % BLOCKS, t = e / BLOCKS, u = first + t, v = of_lane + 8 * (o - OFFSETS);
        const bool known = u >= 0 && u < KH;
        const int row = (FLIP ? KH - 1 - u : u) * KW, step = FLIP ? -1 : 1, at = row + (FLIP ? KW - 1 - v : v);
        const u32 low = known && v >= 0 && v < KW ? w[at] : 0;
        const u32 high = known && v >= -1 && v < KW - 1 ? w[at + step] : 0;
        to[PAIRED ? ((t / 2 * BLOCKS + o) * 32 + lane) * 2 + t % 2 : e * 32 + lane] = low | high << 16;
    }
}

// Planes of `count` images, each row in 16-byte units at the given pitches.
template <int ROW_PITCH, int IMAGE_PITCH>
__device__ __forceinline__ void load_planes(address to, const Map& map, int first, int count) {
    constexpr int COPIES = W / VECTOR;
    for (int e = threadIdx.x; e < count * H * COPIES; e += THREADS) {
        const int part = e % COPIES, r = e / COPIES % H, n = e / (COPIES * H);
        const u16* from = map.x + (first + n) * map.image + (long long)r * map.row;
        copy_ahead<2 * VECTOR>(to + (n * IMAGE_PITCH + r * ROW_PITCH) * UNIT + part * VECTOR * 2,
                               from + (VECTOR == 1 ? (long long)part * map.column : part * VECTOR));
    }
}

__device__ __forceinline__ void clear(unsigned char* to, int bytes) {
    for (int e = threadIdx.x; e < bytes / 4; e += THREADS) ((u32*)to)[e] = 0;
}

// Columns W .. UNITS x 8 - 1 of all rows: no copy writes there.
template <int UNITS, int ROW_PITCH, int IMAGE_PITCH>
__device__ __forceinline__ void clear_beside(unsigned char* planes, int count) {
    constexpr int BESIDE = 8 * UNITS - W;
    if constexpr (BESIDE > 0)
        for (int e = threadIdx.x; e < count * H * BESIDE; e += THREADS) {
            const int part = e % BESIDE, r = e / BESIDE % H, n = e / (BESIDE * H);
            ((u16*)(planes + (n * IMAGE_PITCH + r * ROW_PITCH) * UNIT))[W + part] = 0;
        }
}

__device__ __forceinline__ Map map_of(const u16* x, u16* y, const u16* w, const u16* bias, int c, long long image,
                                      long long channel, int row, int column, int channels) {
    return {x + c * channel, y + (long long)c * H * W, w + c * KH * KW, bias ? bias + c : bias,
            image, (long long)channels * H * W, row, column};
}

}  // namespace

#ifndef ROWS
#define ROWS 1
#endif
#ifndef TALL
#define TALL 1
#endif
#ifndef RESIDENT
#define RESIDENT 1
#endif

#define PARAMETERS                                                                                               \
    const u16 *x, u16 *y, const u16 *w, const u16 *bias, int images, int channels, long long image, long long channel, \
        int row, int column

#if TILES == 0 && !defined(GRADIENT)

// Grid: channels x shares of the images.
//
// TALL tiles of 16 rows of one image a warp, or, with TALL = 1, any 16 positions. With more, a window of 16 input rows
// is loaded once for all the tiles that it meets: it is kernel row u of one tile and u + 16 of the tile above.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) convolve(PARAMETERS) {
    SHARED
    constexpr int PITCH = COLUMNS | 1, PLANE = H * PITCH;
    constexpr int FIRST = at_least(0, UP - (H - 1)), LAST = at_most(KH, UP + H), PAIRS = (LAST - FIRST + 1) / 2;
    constexpr int AT_ONCE = 2, PHASES = (2 * PAIRS + 15) / 16, GROUPS = (H + 16 * TALL - 1) / (16 * TALL);
    const Map map = map_of(x, y, w, bias, blockIdx.x, image, channel, row, column, channels);
    const int share = (images + gridDim.y - 1) / gridDim.y;
    const int begin = blockIdx.y * share, end = at_most(images, begin + share);
    if (begin >= end) return;

    constexpr int BLOCKS_BYTES = 2 * PAIRS * BLOCKS * BLOCK_BYTES, STEP_BYTES = IMAGES * PLANE * UNIT;
    unsigned char *const of_zeros = shared + BLOCKS_BYTES, *const of_planes = of_zeros + PITCH * UNIT;
    u16* const kernel = (u16*)(of_planes + 2 * STEP_BYTES);
    const address blocks = address_of(shared), zeros = address_of(of_zeros), planes = address_of(of_planes);
    load_planes<PITCH, PLANE>(planes, map, begin, at_most(IMAGES, end - begin));
    end_of_copies();
    load_kernel(kernel, map.w);
    clear(of_zeros, PITCH * UNIT);
    clear_beside<COLUMNS, PITCH, PLANE>(of_planes, 2 * IMAGES);
    __syncthreads();
    make_blocks<true>((u32*)shared, kernel, FIRST, 2 * PAIRS);

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // The first position of the warp's tiles, the one whose rows this lane points to, and that one's image and row.
    const int base = TALL == 1 ? warp * 16 : warp / GROUPS * H + warp % GROUPS * 16 * TALL, own = base + lane % 16;
    const int own_image = TALL == 1 ? own / H : warp / GROUPS, own_row = own - own_image * H;
    int side = 0;
    for (int n = begin; n < end; n += IMAGES, side ^= 1) {
        if (n + IMAGES < end)
            load_planes<PITCH, PLANE>(planes + (side ^ 1) * STEP_BYTES, map, n + IMAGES, at_most(IMAGES, end - n - IMAGES));
        end_of_copies();
        wait_for_copies<1>();
        __syncthreads();
        const int positions = at_most(IMAGES, end - n) * H;
        if (base < positions) {
            float total[TALL][COLUMNS][4] = {};
            const int first = own_image * H < positions ? own_row + FIRST - UP + lane / 16 : -KH - 2 * H;
            const address rows = planes + side * STEP_BYTES + (own_image * H + first) * (PITCH * UNIT);
#pragma unroll
            for (int segment = 0; segment < (TALL == 1 ? 1 : TALL + PHASES - 1); ++segment) {
#pragma unroll AT_ONCE
                for (int pair = 0; pair < (TALL == 1 ? PAIRS : at_most(8, PAIRS)); ++pair) {
                    const int down = 16 * segment + 2 * pair, r = first + down;
                    const address from = r >= 0 && r < H ? rows + down * PITCH * UNIT : zeros;
                    constexpr int MOST = TALL == 1 ? 1 : PHASES;
                    u32 b[MOST][2][BLOCKS];
#pragma unroll
                    for (int phase = 0; phase < MOST; ++phase)
                        if (segment >= phase && segment - phase < TALL && 8 * phase + pair < PAIRS)
#pragma unroll
                            for (int o = 0; o < BLOCKS; ++o)
                                load_words(b[phase][0][o], b[phase][1][o],
                                           blocks + (((8 * phase + pair) * BLOCKS + o) * 32 + lane) * 8);
#pragma unroll
                    for (int k = 0; k < COLUMNS; ++k) {
                        u32 a[4];
                        load_blocks(a, from + k * UNIT);
#pragma unroll
                        for (int phase = 0; phase < MOST; ++phase)
                            if (segment >= phase && segment - phase < TALL && 8 * phase + pair < PAIRS)
#pragma unroll
                                for (int j = at_least(0, k - OFFSETS); j <= at_most(COLUMNS - 1, k + OFFSETS); ++j)
                                    multiply(total[TALL == 1 ? 0 : segment - phase][j], a, b[phase][0][k - j + OFFSETS],
                                             b[phase][1][k - j + OFFSETS]);
                    }
                }
            }
#pragma unroll
            for (int tile = 0; tile < TALL; ++tile) {
                const auto image_of = [&](int p) { return TALL == 1 ? p / H : own_image; };
                const auto inside = [&](int p) { return p < at_most(positions, TALL == 1 ? positions : own_image * H + H); };
                const int p = base + 16 * tile + lane / 4, m = image_of(p), m8 = image_of(p + 8);
                bool bad = store_sums<0>(map, n + m, p - m * H, inside(p), total[tile]);
                bad |= store_sums<1>(map, n + m8, p + 8 - m8 * H, inside(p + 8), total[tile]);
                if (for_any_lane(bad))
                    for (int r = base + 16 * tile; r < base + 16 * tile + 16 && inside(r); ++r)
                        repair_row(map, n + image_of(r), r - image_of(r) * H);
            }
        }
        __syncthreads();
    }
}

#elif defined(GRADIENT)

// The weight gradient, of one channel and one share of the images a program, ROWS kernel rows a warp:
//
//     dW[u, v] = sum over images n, rows r, columns j of  g[n, r - u + Kh/2, j] x[n, r, j + v - Kw/2]
//
//     D[j, l] = sum over n, r and column tiles t of  g[n, r - u + Kh/2, 16 t + j] x[n, r, 16 t + l],   dW = D's diagonals
//
// The long side of the product is k = (r, n), images fastest: where a step has 16 images or more, rows that do not meet
// are not multiplied. `parts`: (shares, C, KH, KW) float32, summed by `finish` in a fixed order.

constexpr int SPREAD = (COLUMNS + 1) / 2;  // tiles of 16 columns
constexpr int LOWEST = -at_most(OFFSETS, 2 * (SPREAD - 1)), HIGHEST = at_most(1 + OFFSETS, COLUMNS - 1);
constexpr int BAND = HIGHEST - LOWEST + 1;  // blocks of 8 columns l, from 8 LOWEST on

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    correlate(const u16* x, const u16* g, float* parts, int images, int channels, long long image, long long channel,
              int row, int column, long long g_image, long long g_channel, int g_row, int g_column) {
    SHARED
    constexpr int PITCH = (2 * SPREAD) | 1, SPACING = IMAGES >= 8 ? 1 : 8 / IMAGES;
    constexpr int PLANE = H * PITCH + (SPACING - H * PITCH % 8 + 8) % 8;
    constexpr int SIDE_BYTES = IMAGES * PLANE * UNIT;
    const Map from_x{x + blockIdx.x * channel, nullptr, nullptr, nullptr, image, 0, row, column};
    const Map from_g{g + blockIdx.x * g_channel, nullptr, nullptr, nullptr, g_image, 0, g_row, g_column};
    const int share = (images + gridDim.y - 1) / gridDim.y;
    const int begin = blockIdx.y * share, end = at_most(images, begin + share);

    const address zeros = address_of(shared), planes = zeros + PITCH * UNIT;
    clear(shared, PITCH * UNIT);
    clear_beside<2 * SPREAD, PITCH, PLANE>(shared + PITCH * UNIT, 4 * IMAGES);
    const auto load = [&](int n, int side) {
        if (n >= end) return;
        load_planes<PITCH, PLANE>(planes + 2 * side * SIDE_BYTES, from_x, n, at_most(IMAGES, end - n));
        load_planes<PITCH, PLANE>(planes + (2 * side + 1) * SIDE_BYTES, from_g, n, at_most(IMAGES, end - n));
    };
    load(begin, 0);
    end_of_copies();

    const int lane = threadIdx.x % 32, u = threadIdx.x / 32 * ROWS;
    float total[ROWS][BAND][4] = {};
    int side = 0;
    for (int n = begin; n < end; n += IMAGES, side ^= 1) {
        load(n + IMAGES, side ^ 1);
        end_of_copies();
        wait_for_copies<1>();
        __syncthreads();
        const int count = at_most(IMAGES, end - n);
        const address xs = planes + 2 * side * SIDE_BYTES, gs = xs + SIDE_BYTES;
        for (int k = 0; k < IMAGES * H; k += 16) {
            const int low = k / IMAGES, high = at_most(H - 1, (k + 15) / IMAGES);  // rows of x in this step
            // x: lane l points to row l % 16 of the step and block l / 16; g: to row l % 8 + 8 (l / 16), block l / 8 % 2.
            const int kx = k + lane % 16, kg = k + lane % 8 + lane / 16 * 8;
            const int rx = kx / IMAGES, nx = kx % IMAGES, rg = kg / IMAGES, ng = kg % IMAGES;
            const address of_x = rx < H && nx < count ? xs + (nx * PLANE + rx * PITCH) * UNIT : zeros;
            u32 b[SPREAD][4];
#pragma unroll
            for (int t = 0; t < SPREAD; ++t) load_blocks_transposed(b[t], of_x + (2 * t + lane / 16) * UNIT);
#pragma unroll
            for (int d = 0; d < ROWS; ++d) {
                const int shift = UP - u - d;  // row of g - row of x
                if (u + d >= KH || high + shift < 0 || low + shift >= H) continue;
                const int i = rg + shift;
                const bool met = i >= 0 && i < H && rg < H && ng < count;
                const address of_g = met ? gs + (ng * PLANE + i * PITCH) * UNIT : zeros;
#pragma unroll
                for (int t = 0; t < SPREAD; ++t) {
                    u32 a[4];
                    load_blocks_transposed(a, of_g + (2 * t + lane / 8 % 2) * UNIT);
#pragma unroll
                    for (int l = at_least(0, 2 * t + LOWEST); l <= at_most(COLUMNS - 1, 2 * t + HIGHEST); ++l)
                        multiply(total[d][l - 2 * t - LOWEST], a, b[l / 2][l % 2 * 2], b[l / 2][l % 2 * 2 + 1]);
                }
            }
        }
        __syncthreads();
    }

    // Every warp lays its D down, one kernel row after the other, and sums along diagonals. Odd pitch: other banks.
    constexpr int LENGTH = 8 * BAND | 1;
    float* const own = (float*)shared + threadIdx.x / 32 * 16 * LENGTH;
    for (int d = 0; d < ROWS && u + d < KH; ++d) {
#pragma unroll
        for (int q = 0; q < ROWS; ++q)
            if (q == d)
#pragma unroll
                for (int l = 0; l < BAND; ++l)
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        own[(lane / 4 + e / 2 * 8) * LENGTH + 8 * l + lane % 4 * 2 + e % 2] = total[q][l][e];
        __syncwarp();
        for (int v = lane; v < KW; v += 32) {
            float sum = 0;
            for (int j = 0; j < 16; ++j) {
                const int l = j + v - LEFT - 8 * LOWEST;
                if (l >= 0 && l < 8 * BAND) sum += own[j * LENGTH + l];
            }
            parts[(((long long)blockIdx.y * channels + blockIdx.x) * KH + u + d) * KW + v] = sum;
        }
        __syncwarp();
    }
}

// dW of the parts, one thread an element; a sum that is not finite is summed again over what is inside both maps.
extern "C" __global__ void finish(const u16* x, const u16* g, const float* parts, u16* dw, int images, int channels,
                                  int shares, long long image, long long channel, int row, int column,
                                  long long g_image, long long g_channel, int g_row, int g_column) {
    const int e = blockIdx.x * 256 + threadIdx.x, size = channels * KH * KW;
    if (e >= size) return;
    float sum = 0;
    for (int s = 0; s < shares; ++s) sum += parts[(long long)s * size + e];
    if (!finite(sum)) {
        const int v = e % KW - LEFT, u = e / KW % KH - UP;
        const u16 *own_x = x + e / (KH * KW) * channel, *own_g = g + e / (KH * KW) * g_channel;
        sum = 0;
        for (int n = 0; n < images; ++n)
            for (int i = at_least(0, -u); i < at_most(H, H - u); ++i)
                for (int j = at_least(0, -v); j < at_most(W, W - v); ++j)
                    sum += widen(own_g[n * g_image + (long long)i * g_row + (long long)j * g_column]) *
                           widen(own_x[n * image + (long long)(i + u) * row + (long long)(j + v) * column]);
    }
    dw[e] = (u16)pack(sum, 0);
}

#else

// Grid: channels x steps of the images.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) convolve(PARAMETERS) {
    SHARED
    constexpr int SHARES = (H + ROWS - 1) / ROWS, PLANE = (H * COLUMNS) | 1;
    constexpr int FIRST = 1 - SHARES * ROWS, KERNEL_ROWS = SHARES * ROWS + H + 1;  // input row - output row
    static_assert(IMAGES == WARPS / SHARES * TILES * 16, "a warp has TILES x 16 images and ROWS rows");
    const Map map = map_of(x, y, w, bias, blockIdx.x, image, channel, row, column, channels);
    const int begin = blockIdx.y * IMAGES, count = at_most(IMAGES, images - begin);

    constexpr int BLOCKS_BYTES = KERNEL_ROWS * BLOCKS * BLOCK_BYTES;
    unsigned char *const of_zeros = shared + BLOCKS_BYTES, *const of_planes = of_zeros + COLUMNS * UNIT;
    u16* const kernel = (u16*)(of_planes + IMAGES * PLANE * UNIT);
    const address blocks = address_of(shared), zeros = address_of(of_zeros), planes = address_of(of_planes);
    load_planes<COLUMNS, PLANE>(planes, map, begin, count);
    end_of_copies();
    load_kernel(kernel, map.w);
    clear(of_zeros, COLUMNS * UNIT);
    clear_beside<COLUMNS, COLUMNS, PLANE>(of_planes, IMAGES);
    __syncthreads();
    make_blocks<false>((u32*)shared, kernel, FIRST + UP, KERNEL_ROWS);
    wait_for_copies<0>();
    __syncthreads();

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int n = warp / SHARES * TILES * 16, i = warp % SHARES * ROWS;  // first image and output row
    float total[TILES][ROWS][COLUMNS][4] = {};
    const address rows = planes + ((n + lane % 16) * PLANE + lane / 16 * COLUMNS) * UNIT;
    // Kernel row of input row r and the last output row of this warp.
    address factors = blocks + (SHARES * ROWS - 1 - (i + ROWS - 1)) * (BLOCKS * BLOCK_BYTES) + lane * 4;
#pragma unroll 1
    for (int r = 0; r < (n < count ? H : 0); r += 2, factors += 2 * BLOCKS * BLOCK_BYTES) {
        u32 a[TILES][COLUMNS][4];
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            const address from = r + lane / 16 < H ? rows + (tile * 16 * PLANE + r * COLUMNS) * UNIT : zeros;
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k) load_blocks(a[tile][k], from + k * UNIT);
        }
        u32 b[ROWS + 1][BLOCKS];
#pragma unroll
        for (int d = 0; d <= ROWS; ++d)
#pragma unroll
            for (int o = 0; o < BLOCKS; ++o) b[d][o] = load_word(factors + (d * BLOCKS + o) * BLOCK_BYTES);
#pragma unroll
        for (int d = 0; d < ROWS; ++d)
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k)
#pragma unroll
                for (int j = at_least(0, k - OFFSETS); j <= at_most(COLUMNS - 1, k + OFFSETS); ++j)
#pragma unroll
                    for (int tile = 0; tile < TILES; ++tile)
                        multiply(total[tile][ROWS - 1 - d][j], a[tile][k], b[d][k - j + OFFSETS], b[d + 1][k - j + OFFSETS]);
    }
    // Results take the place of the planes, so that they go out in whole lines.
    __syncthreads();
    const Map staged{nullptr, (u16*)of_planes, nullptr, map.bias, 0, PLANE * UNIT / 2, 0, 0};
    u32 broken = 0;
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
        for (int d = 0; d < ROWS; ++d) {
            const int m = n + tile * 16 + lane / 4;
            bool bad = store_sums<0>(staged, m, i + d, m < count && i + d < H, total[tile][d]);
            bad |= store_sums<1>(staged, m + 8, i + d, m + 8 < count && i + d < H, total[tile][d]);
            broken |= (u32)bad << (tile * ROWS + d);
        }
    __syncthreads();
    constexpr int BYTES = H * W * 2, CHUNK = BYTES % 16 == 0 ? 16 : BYTES % 8 == 0 ? 8 : BYTES % 4 == 0 ? 4 : 2;
    for (int e = threadIdx.x; e < count * (BYTES / CHUNK); e += THREADS) {
        const int m = e / (BYTES / CHUNK), part = e % (BYTES / CHUNK) * CHUNK;
        move<CHUNK>((unsigned char*)(map.y + (begin + m) * map.output_image) + part, of_planes + m * PLANE * UNIT + part);
    }
    __syncthreads();
    for (int bit = 0; bit < TILES * ROWS; ++bit)
        if (for_any_lane(broken >> bit & 1))
            for (int m = n + bit / ROWS * 16; m < at_most(count, n + bit / ROWS * 16 + 16); ++m)
                repair_row(map, begin + m, i + bit % ROWS);
}

#endif
