// Vectors of L floats by the compiler's own extension (gcc, clang), and what each instruction set wants of them.
#pragma once

#include <cstdint>

#if defined(__AVX__)
#include <immintrin.h>
#endif

// Columns of a tile: two sums and one image vector each, beside one kernel vector, fill the registers: 16, or 32 with
// AVX-512 (and on ARM).
#if defined(__AVX512F__)
#define LKSPACE_TILE_COLUMNS 8
#elif defined(__AVX2__)
#define LKSPACE_TILE_COLUMNS 5
#elif defined(__aarch64__)
#define LKSPACE_TILE_COLUMNS 8
#else
#define LKSPACE_TILE_COLUMNS 4
#endif

#define LKSPACE_INLINE inline __attribute__((always_inline))
#define LKSPACE_UNROLL _Pragma("GCC unroll 16")

namespace lkspace {
namespace {

constexpr int TILE_COLUMNS = LKSPACE_TILE_COLUMNS;

template <int L>
struct Floats;
template <>
struct Floats<4> {
    typedef float Type __attribute__((vector_size(16)));
    typedef float Loose __attribute__((vector_size(16), aligned(4), may_alias));
};
template <>
struct Floats<8> {
    typedef float Type __attribute__((vector_size(32)));
    typedef float Loose __attribute__((vector_size(32), aligned(4), may_alias));
};
template <>
struct Floats<16> {
    typedef float Type __attribute__((vector_size(64)));
    typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));
};

template <int L>
using Vector = typename Floats<L>::Type;

template <int L>
inline Vector<L> load(const float* from) {
    return *reinterpret_cast<const typename Floats<L>::Loose*>(from);
}

template <int L>
inline void store(float* to, Vector<L> value) {
    *reinterpret_cast<typename Floats<L>::Loose*>(to) = value;
}

// sum += w * x, x in a register or in memory, rounded once where the instruction set can. Written out, because which sums a
// compiler fuses may differ from tile to tile, and so would the bits; and because gcc loads all operands of a tile first,
// and then has no registers left for the sums.
template <int L>
inline __attribute__((always_inline)) void multiply_add(Vector<L>& sum, Vector<L> w, Vector<L> x) {
#if defined(__FMA__)
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
#else
    sum += w * x;
#endif
}
template <int L>
inline __attribute__((always_inline)) void multiply_add(Vector<L>& sum, Vector<L> w, const float* x) {
#if defined(__FMA__)
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(w), "m"(*reinterpret_cast<const typename Floats<L>::Loose*>(x)));
#else
    sum += w * load<L>(x);
#endif
}

// a * b + c and c - a * b, rounded once where the instruction set can. In frequency.cpp nothing else is fused, so that no
// two copies of a loop that a compiler makes can differ in their bits.
template <int L>
inline __attribute__((always_inline)) Vector<L> fused(Vector<L> a, Vector<L> b, Vector<L> c) {
#if defined(__AVX512F__)
    if constexpr (L == 16) return (Vector<L>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#endif
#if defined(__FMA__)
    if constexpr (L == 8) return (Vector<L>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
    if constexpr (L == 4) return (Vector<L>)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
#endif
    return a * b + c;
}
template <int L>
inline __attribute__((always_inline)) Vector<L> fused_minus(Vector<L> a, Vector<L> b, Vector<L> c) {
    return fused<L>(-a, b, c);
}

#if defined(__clang__)
#define LKSPACE_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t Order __attribute__((vector_size(16)));
#define LKSPACE_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Order{__VA_ARGS__})
#endif

// Rows become columns.
inline void transpose(Vector<4> (&m)[4]) {
    const Vector<4> a = LKSPACE_SHUFFLE(m[0], m[1], 0, 4, 1, 5), b = LKSPACE_SHUFFLE(m[0], m[1], 2, 6, 3, 7);
    const Vector<4> c = LKSPACE_SHUFFLE(m[2], m[3], 0, 4, 1, 5), d = LKSPACE_SHUFFLE(m[2], m[3], 2, 6, 3, 7);
    m[0] = LKSPACE_SHUFFLE(a, c, 0, 1, 4, 5);
    m[1] = LKSPACE_SHUFFLE(a, c, 2, 3, 6, 7);
    m[2] = LKSPACE_SHUFFLE(b, d, 0, 1, 4, 5);
    m[3] = LKSPACE_SHUFFLE(b, d, 2, 3, 6, 7);
}

#if defined(__AVX__)
// The same of both halves at once: rows k of four lanes in the lower half, of the next four in the upper.
inline void transpose(Vector<8> (&m)[4]) {
    const __m256 a = _mm256_unpacklo_ps((__m256)m[0], (__m256)m[1]), b = _mm256_unpackhi_ps((__m256)m[0], (__m256)m[1]);
    const __m256 c = _mm256_unpacklo_ps((__m256)m[2], (__m256)m[3]), d = _mm256_unpackhi_ps((__m256)m[2], (__m256)m[3]);
    m[0] = (Vector<8>)_mm256_shuffle_ps(a, c, 0x44);
    m[1] = (Vector<8>)_mm256_shuffle_ps(a, c, 0xee);
    m[2] = (Vector<8>)_mm256_shuffle_ps(b, d, 0x44);
    m[3] = (Vector<8>)_mm256_shuffle_ps(b, d, 0xee);
}
inline Vector<8> halves(Vector<4> low, Vector<4> high) {
    return (Vector<8>)_mm256_insertf128_ps(_mm256_castps128_ps256((__m128)low), (__m128)high, 1);
}
inline Vector<4> low_half(Vector<8> both) { return (Vector<4>)_mm256_castps256_ps128((__m256)both); }
inline Vector<4> high_half(Vector<8> both) { return (Vector<4>)_mm256_extractf128_ps((__m256)both, 1); }
#endif

}  // namespace
}  // namespace lkspace
