// The plain C interface of the library: one struct of 64-bit numbers per call, no torch, no Python.
//
// Raise LKSPACE_ABI, here and in library.py, with every change of a struct or of a function's meaning.
#pragma once

#include <cstdint>

#define LKSPACE_ABI 3

#if defined(_WIN32)
#define LKSPACE_API extern "C" __declspec(dllexport)
#else
#define LKSPACE_API extern "C" __attribute__((visibility("default")))
#endif

namespace lkspace {

enum Type : int64_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };
enum Scheme : int64_t { DIRECT = 0, FREQUENCY = 1 };
enum Activation : int64_t { NONE = 0, RELU = 1, GELU = 2 };
enum Isa : int64_t { PORTABLE = 0, AVX2 = 1, AVX512 = 2 };

// A tensor (n, c, h, w): address and strides in elements. A kernel is (c, 1, h, w), a bias has only `c`.
struct View {
    int64_t data;
    int64_t n, c, h, w;
};

// What all functions need. `image` is x. `map` is y (written by the convolution) or y's gradient (read by the others).
// `kernel` and `bias` are read by the convolution and written by the weight gradient; bias.data may be 0. The gradients in
// the frequency domain read `kernel`, write `bias`, `image_gradient` and `kernel_gradient`; the data of each may be 0.
struct Call {
    int64_t isa, type, threads;
    int64_t n, c, h, w, kh, kw;
    int64_t flip;  // convolution only: turn the kernel by 180 degrees, which makes it the input gradient
    int64_t scheme, activation;  // convolution only
    View image, map, kernel, bias, image_gradient, kernel_gradient;
};

// Batch norm in training of `rows` x `channels` floats, and the activation behind it. All but numbers are addresses of
// floats; x, y and into_x are maps, the others have a number per channel. Forward writes y, the mean of x, the inverse of
// its standard deviation, and moves the running statistics; the gradients read y's gradient at `y`, and write the `into_`.
struct Norm {
    int64_t isa, threads;
    int64_t rows, channels, activation;
    double eps, momentum;
    int64_t x, y, weight, bias, mean, inverse, running_mean, running_variance, into_x, into_weight, into_bias;
};

}  // namespace lkspace
