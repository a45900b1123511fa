// Between tensors in memory (any strides; float32, bfloat16, float16) and rows of vectors of L channels (float32).
#pragma once

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
    // Rebias the exponent by a product: exact, and right for denormals too. 2^112
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

// Lanes beyond the picture's become zero.
template <int L, class T>
void pack(const Picture<const T>& from, const Vectors& to) {
    for (int r = 0; r < from.rows; ++r) {
        const T* source = from.data + r * from.row;
        float* target = to.data + r * to.pitch;
        int c = 0;
        if (from.lane == 1 && from.lanes == L) {
            for (; c < from.columns; ++c)
                for (int l = 0; l < L; ++l) target[c * to.step + l] = widen(source[c * from.column + l]);
            continue;
        }
        if (sizeof(T) == sizeof(float) && from.column == 1 && from.lanes == L) {
            for (; c + 4 <= from.columns; c += 4)
                for (int l = 0; l < L; l += 4) {
                    Vector<4> block[4];
                    for (int k = 0; k < 4; ++k)
                        block[k] = load<4>(reinterpret_cast<const float*>(source + (l + k) * from.lane + c));
                    transpose(block);
                    for (int k = 0; k < 4; ++k) store<4>(target + (c + k) * to.step + l, block[k]);
                }
        }
        for (; c < from.columns; ++c) {
            for (int l = 0; l < from.lanes; ++l)
                target[c * to.step + l] = widen(source[l * from.lane + c * from.column]);
            for (int l = from.lanes; l < L; ++l) target[c * to.step + l] = 0.0f;
        }
    }
}

template <int L, class T>
void unpack(const Vectors& from, const Picture<T>& to) {
    for (int r = 0; r < to.rows; ++r) {
        const float* source = from.data + r * from.pitch;
        T* target = to.data + r * to.row;
        int c = 0;
        if (sizeof(T) == sizeof(float) && to.column == 1 && to.lanes == L) {
            for (; c + 4 <= to.columns; c += 4)
                for (int l = 0; l < L; l += 4) {
                    Vector<4> block[4];
                    for (int k = 0; k < 4; ++k) block[k] = load<4>(source + (c + k) * from.step + l);
                    transpose(block);
                    for (int k = 0; k < 4; ++k)
                        store<4>(reinterpret_cast<float*>(target + (l + k) * to.lane + c), block[k]);
                }
        }
        for (; c < to.columns; ++c)
            for (int l = 0; l < to.lanes; ++l)
                narrow(source[c * from.step + l], target[l * to.lane + c * to.column]);
    }
}

}  // namespace
}  // namespace lkspace
