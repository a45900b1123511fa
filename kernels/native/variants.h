// direct.cpp, frequency.cpp and norm.cpp, once per instruction set.
#pragma once

#include "interface.h"

#define LKSPACE_DECLARE(variant)                 \
    namespace variant {                          \
    void convolve(const Call& call);             \
    void weight_gradient(const Call& call);      \
    void frequency_convolve(const Call& call);   \
    void frequency_gradients(const Call& call);  \
    void batch_norm(const Norm& call);           \
    void batch_norm_gradients(const Norm& call); \
    int64_t transform_points(int64_t least);     \
    double transform_cost(int64_t points);       \
    double multiply_adds(int64_t threads);       \
    }

namespace lkspace {

LKSPACE_DECLARE(portable)
LKSPACE_DECLARE(avx2)
LKSPACE_DECLARE(avx512)

}  // namespace lkspace
