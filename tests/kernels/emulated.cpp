// What mma.cu needs of a GPU, one thread of the processor a lane: so that its arithmetic is checked where there is none.
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)

struct Index {
    int x, y;
};
thread_local Index threadIdx, blockIdx;
static Index gridDim;
typedef uintptr_t address;
alignas(16) static unsigned char memory[1 << 18];
#define SHARED unsigned char* const shared = memory;

struct Warp {
    std::barrier<> barrier{32};
    address rows[32];
    uint32_t words[32][6];
};
static std::unique_ptr<std::barrier<>> block;
static std::vector<std::unique_ptr<Warp>> warps;

static Warp& own() { return *warps[threadIdx.x / 32]; }
static void __syncwarp() { own().barrier.arrive_and_wait(); }
static void __syncthreads() { block->arrive_and_wait(); }
static address address_of(void* pointer) { return (address)pointer; }

static uint32_t load_word(address from) {
    uint32_t word;
    std::memcpy(&word, (const void*)from, 4);
    return word;
}

static void load_words(uint32_t& first, uint32_t& second, address from) {
    first = load_word(from), second = load_word(from + 4);
}

static void store_words(uint16_t* to, uint32_t first, uint32_t second) {
    if ((uintptr_t)to % 8) std::terminate();  // a GPU faults
    std::memcpy(to, &first, 4), std::memcpy(to + 2, &second, 4);
}

static uint32_t exchange(uint32_t value) {
    Warp& warp = own();
    const int lane = threadIdx.x % 32;
    warp.words[lane][0] = value;
    warp.barrier.arrive_and_wait();
    const uint32_t other = warp.words[lane ^ 1][0];
    warp.barrier.arrive_and_wait();
    return other;
}

static bool for_any_lane(bool here) {
    Warp& warp = own();
    warp.words[threadIdx.x % 32][0] = here;
    warp.barrier.arrive_and_wait();
    bool some = false;
    for (const auto& words : warp.words) some |= words[0];
    warp.barrier.arrive_and_wait();
    return some;
}

static void load_blocks(uint32_t (&a)[4], address from) {
    Warp& warp = own();
    const int lane = threadIdx.x % 32;
    warp.rows[lane] = from;
    warp.barrier.arrive_and_wait();
    for (int b = 0; b < 4; ++b) a[b] = load_word(warp.rows[8 * b + lane / 4] + lane % 4 * 4);
    warp.barrier.arrive_and_wait();
}

static void load_blocks_transposed(uint32_t (&a)[4], address from) {
    Warp& warp = own();
    const int lane = threadIdx.x % 32;
    warp.rows[lane] = from;
    warp.barrier.arrive_and_wait();
    for (int b = 0; b < 4; ++b) {
        uint16_t pair[2];
        for (int i = 0; i < 2; ++i) std::memcpy(&pair[i], (const void*)(warp.rows[8 * b + lane % 4 * 2 + i] + lane / 4 * 2), 2);
        std::memcpy(&a[b], pair, 4);
    }
    warp.barrier.arrive_and_wait();
}

static float widen(uint16_t bits) {
#if HALF
    _Float16 value;
    std::memcpy(&value, &bits, 2);
    return (float)value;
#else
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
#endif
}

static uint16_t narrow(float value) {
#if HALF
    const _Float16 half = (_Float16)value;
    uint16_t bits;
    std::memcpy(&bits, &half, 2);
    return bits;
#else
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return 0x7fff;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}

static uint32_t pack(float low, float high) { return narrow(low) | (uint32_t)narrow(high) << 16; }

// PTX, "Matrix Fragments for mma.m16n8k16": where row, column and k of each operand lie.
static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Warp& warp = own();
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; ++i) warp.words[lane][i] = a[i];
    warp.words[lane][4] = b0, warp.words[lane][5] = b1;
    warp.barrier.arrive_and_wait();
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; ++k) {
            const uint32_t left = warp.words[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
            const uint32_t right = warp.words[column * 4 + k % 8 / 2][4 + k / 8];
            d[i] += widen((uint16_t)(left >> k % 2 * 16)) * widen((uint16_t)(right >> k % 2 * 16));
        }
    }
    warp.barrier.arrive_and_wait();
}

template <int BYTES>
static void copy_ahead(address to, const void* from) {
    if (to % BYTES || (uintptr_t)from % BYTES) std::terminate();  // a GPU faults
    std::memcpy((void*)to, from, BYTES);
}
template <int BYTES>
static void move(void* to, const void* from) {
    if ((uintptr_t)to % BYTES || (uintptr_t)from % BYTES) std::terminate();
    std::memcpy(to, from, BYTES);
}
static void end_of_copies() {}
template <int LATER>
static void wait_for_copies() {}

#include "mma.cu"

template <class Kernel>
static void launch(int grid_x, int grid_y, int count, const Kernel& kernel) {
    gridDim = {grid_x, grid_y};
    for (int by = 0; by < grid_y; ++by)
        for (int bx = 0; bx < grid_x; ++bx) {
            std::memset(memory, 0xff, sizeof memory);  // NaN: nothing may be read that was not written
            block = std::make_unique<std::barrier<>>(count);
            warps.clear();
            for (int i = 0; i < (count + 31) / 32; ++i) warps.push_back(std::make_unique<Warp>());
            std::vector<std::thread> threads;
            for (int t = 0; t < count; ++t)
                threads.emplace_back([=, &kernel] {
                    threadIdx = {t, 0};
                    blockIdx = {bx, by};
                    kernel();
                    block->arrive_and_drop();
                });
            for (auto& thread : threads) thread.join();
        }
}

#ifdef GRADIENT
extern "C" void emulate(int grid_x, int grid_y, const u16* x, const u16* g, float* parts, u16* dw, int images, int channels,
                        long long image, long long channel, int row, int column, long long g_image, long long g_channel,
                        int g_row, int g_column) {
    launch(grid_x, grid_y, THREADS, [=] {
        correlate(x, g, parts, images, channels, image, channel, row, column, g_image, g_channel, g_row, g_column);
    });
    launch((channels * KH * KW + 255) / 256, 1, 256, [=] {
        finish(x, g, parts, dw, images, channels, grid_y, image, channel, row, column, g_image, g_channel, g_row, g_column);
    });
}
#else
extern "C" void emulate(int grid_x, int grid_y, const u16* x, u16* y, const u16* w, const u16* bias, int images,
                        int channels, long long image, long long channel, int row, int column) {
    launch(grid_x, grid_y, THREADS,
           [=] { convolve(x, y, w, bias, images, channels, image, channel, row, column); });
}
#endif
