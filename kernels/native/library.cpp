// The exported functions: which instruction sets are there, and the operations handed to one of them.
#include <new>

#include "interface.h"
#include "variants.h"

using namespace lkspace;

LKSPACE_API int64_t lkspace_abi() { return LKSPACE_ABI; }

// Whether the library was built for this instruction set and this processor has it.
LKSPACE_API int64_t lkspace_has(int64_t isa) {
    switch (isa) {
        case PORTABLE: return 1;
#if defined(LKSPACE_X86)
        case AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                          __builtin_cpu_supports("f16c");
        case AVX512: return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                            lkspace_has(AVX2);
#endif
        default: return 0;
    }
}

namespace {

// 0, or 1 if memory ran out: an exception must not leave a plain C function.
template <class Work>
int64_t guarded(const Work& work) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

#if defined(LKSPACE_X86)
#define LKSPACE_CHOOSE(call, function)                           \
    switch ((call).isa) {                                        \
        case AVX512: return avx512::function(call);              \
        case AVX2: return avx2::function(call);                  \
        default: return portable::function(call);                \
    }
#else
#define LKSPACE_CHOOSE(call, function) return portable::function(call)
#endif

}  // namespace

// For the cost model and the benchmark: sizes and costs of transforms, and how fast this processor multiplies and adds.
LKSPACE_API int64_t lkspace_transform_points(int64_t least) { return portable::transform_points(least); }
LKSPACE_API double lkspace_transform_cost(int64_t points) { return portable::transform_cost(points); }
LKSPACE_API double lkspace_multiply_adds(int64_t isa, int64_t threads) {
    switch (isa) {
#if defined(LKSPACE_X86)
        case AVX512: return avx512::multiply_adds(threads);
        case AVX2: return avx2::multiply_adds(threads);
#endif
        default: return portable::multiply_adds(threads);
    }
}

LKSPACE_API int64_t lkspace_convolve(const Call* call) {
    return guarded([&] {
        if (call->scheme == FREQUENCY) LKSPACE_CHOOSE(*call, frequency_convolve);
        LKSPACE_CHOOSE(*call, convolve);
    });
}

LKSPACE_API int64_t lkspace_weight_gradient(const Call* call) {
    return guarded([&] { LKSPACE_CHOOSE(*call, weight_gradient); });
}

LKSPACE_API int64_t lkspace_frequency_gradients(const Call* call) {
    return guarded([&] { LKSPACE_CHOOSE(*call, frequency_gradients); });
}

LKSPACE_API int64_t lkspace_batch_norm(const Norm* call) {
    return guarded([&] { LKSPACE_CHOOSE(*call, batch_norm); });
}

LKSPACE_API int64_t lkspace_batch_norm_gradients(const Norm* call) {
    return guarded([&] { LKSPACE_CHOOSE(*call, batch_norm_gradients); });
}
