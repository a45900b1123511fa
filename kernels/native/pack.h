// Between tensors in memory (any strides; float32, bfloat16, float16) and rows of vectors of L channels (float32).
#pragma once

#include <cstdint>
#include <cstring>

#include "vector.h"

namespace lkspace {
namespace {

struct Bfloat16 {
    uint16_t bits;
};
struct Float16 {
    uint16_t bits;
};

inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float widen(float value) { return value; }
inline float widen(Bfloat16 value) { return float_of(uint32_t{value.bits} << 16); }
inline float widen(Float16 value) {
    const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16, rest = uint32_t{value.bits & 0x7fffu} << 13;
    if (rest >= 0x0f800000u) return float_of(sign | 0x70000000u | rest);  // infinity, NaN: exponent 143 + 112 = 255
    // Denormals are numbers here even where float32's are flushed: from 2^-14 (1 + f) to 2^-14 f, exact.
    if (rest < 0x00800000u) return float_of(sign | bits_of(float_of(0x38800000u | rest) - 6.103515625e-05f));
    // Rebias the exponent by a product, exact. 2^112
    return float_of(sign | bits_of(float_of(rest) * 5192296858534827628530496329220096.0f));
}

inline void narrow(float value, float& to) { to = value; }
inline void narrow(float value, Bfloat16& to) {
    const uint32_t bits = bits_of(value);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;  // rounding could carry it to zero
    to.bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline void narrow(float value, Float16& to) {
    const uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
    uint32_t half;
    if (size > 0x7f800000u) {
        half = 0x7e00u;
    } else if (size >= 0x477ff000u) {  // 65520 and beyond round to infinity
        half = 0x7c00u;
    } else if (size < 0x38800000u) {  // below 2^-14: denormal; adding 0.5 leaves its bits, rounded, at the end
        half = bits_of(float_of(size) + 0.5f) - 0x3f000000u;
    } else {
        half = (size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13;
    }
    to.bits = static_cast<uint16_t>(sign | half);
}

// A picture of rows x columns of `lanes` channels inside a tensor: strides in elements.
template <class T>
struct Picture {
    T* data;
    int64_t lane, row, column;
    int lanes, rows, columns;
};

// Vectors: `pitch` floats from row to row, `step` from column to column (negative ones turn the picture around).
struct Vectors {
    float* data;
    int64_t pitch, step;
};

// Whether 4 x 4 blocks can be turned: neighbours in a row of the picture are neighbours in memory.
template <class T>
bool turnable(const Picture<T>& picture) {
    return sizeof(T) == sizeof(float) && picture.column == 1;
}

// Rows that follow each other without a gap on both sides are one long row.
template <class T>
void flatten(Picture<T>& picture, const Vectors& vectors) {
    if (picture.row != picture.columns * picture.column || vectors.pitch != picture.columns * vectors.step) return;
    picture.columns *= picture.rows;
    picture.rows = 1;
}

// LANES rows of floats, four columns at a time, into vectors and back.
template <int LANES>
void turn_in(const float* from, int64_t lane, int columns, float* to, int64_t step) {
    int c = 0;
    for (; c + 4 <= columns; c += 4) {
        Vector<LANES> block[4];
        for (int k = 0; k < 4; ++k) {
            const float* const place = from + k * lane + c;
#if defined(__AVX__)
            if constexpr (LANES == 8) block[k] = halves(load<4>(place), load<4>(place + 4 * lane));
#endif
            if constexpr (LANES == 4) block[k] = load<4>(place);
        }
        transpose(block);
        for (int k = 0; k < 4; ++k) store<LANES>(to + (c + k) * step, block[k]);
    }
    for (; c < columns; ++c)
        for (int k = 0; k < LANES; ++k) to[c * step + k] = from[k * lane + c];
}

template <int LANES>
void turn_out(const float* from, int64_t step, int columns, float* to, int64_t lane) {
    int c = 0;
    for (; c + 4 <= columns; c += 4) {
        Vector<LANES> block[4];
        for (int k = 0; k < 4; ++k) block[k] = load<LANES>(from + (c + k) * step);
        transpose(block);
        for (int k = 0; k < 4; ++k) {
            float* const place = to + k * lane + c;
#if defined(__AVX__)
            if constexpr (LANES == 8) store<4>(place, low_half(block[k])), store<4>(place + 4 * lane, high_half(block[k]));
#endif
            if constexpr (LANES == 4) store<4>(place, block[k]);
        }
    }
    for (; c < columns; ++c)
        for (int k = 0; k < LANES; ++k) to[k * lane + c] = from[c * step + k];
}

#if defined(__AVX__)
constexpr int TURNED = 8;
#else
constexpr int TURNED = 4;
#endif

// Lanes beyond the picture's become zero. Rows of contiguous tensors go a few lanes at a time along the whole row: planes
// often lie a power of two apart, and more than eight such rows would evict each other from the cache.
template <int L, class T>
void pack(Picture<const T> from, const Vectors& to) {
    flatten(from, to);
    for (int r = 0; r < from.rows; ++r) {
        const T* source = from.data + r * from.row;
        float* target = to.data + r * to.pitch;
        if (from.lane == 1 && from.lanes == L) {
            for (int c = 0; c < from.columns; ++c)
                for (int l = 0; l < L; ++l) target[c * to.step + l] = widen(source[c * from.column + l]);
            continue;
        }
        int l = 0;
        if (turnable(from)) {
            const float* const floats = reinterpret_cast<const float*>(source);
            for (; l + TURNED <= from.lanes; l += TURNED)
                turn_in<TURNED>(floats + l * from.lane, from.lane, from.columns, target + l, to.step);
            for (; l + 4 <= from.lanes; l += 4)
                turn_in<4>(floats + l * from.lane, from.lane, from.columns, target + l, to.step);
        }
        for (; l < L; ++l)
            for (int c = 0; c < from.columns; ++c)
                target[c * to.step + l] = l < from.lanes ? widen(source[l * from.lane + c * from.column]) : 0.0f;
    }
}

// Lanes beyond the picture's are left out.
template <int L, class T>
void unpack(const Vectors& from, Picture<T> to) {
    flatten(to, from);
    for (int r = 0; r < to.rows; ++r) {
        const float* source = from.data + r * from.pitch;
        T* target = to.data + r * to.row;
        if (to.lane == 1 && to.lanes == L) {
            for (int c = 0; c < to.columns; ++c)
                for (int l = 0; l < L; ++l) narrow(source[c * from.step + l], target[c * to.column + l]);
            continue;
        }
        int l = 0;
        if (turnable(to)) {
            float* const floats = reinterpret_cast<float*>(target);
            for (; l + TURNED <= to.lanes; l += TURNED)
                turn_out<TURNED>(source + l, from.step, to.columns, floats + l * to.lane, to.lane);
            for (; l + 4 <= to.lanes; l += 4)
                turn_out<4>(source + l, from.step, to.columns, floats + l * to.lane, to.lane);
        }
        for (; l < to.lanes; ++l)
            for (int c = 0; c < to.columns; ++c)
                narrow(source[c * from.step + l], target[l * to.lane + c * to.column]);
    }
}

// sum += all of `count` vectors
template <int L>
void add_up(const float* vectors, int64_t count, float* sum) {
    Vector<L> total = {};
    for (int64_t k = 0; k < count; ++k) total += load<L>(vectors + k * L);
    store<L>(sum, load<L>(sum) + total);
}

}  // namespace
}  // namespace lkspace
