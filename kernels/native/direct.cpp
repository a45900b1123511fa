// Direct convolution and weight gradient, compiled once per instruction set (LKSPACE_VARIANT names the namespace).
//
// Channels are cut into groups (groups.h); a group of one image is packed into vectors (pack.h), correlated
// (correlate.h) and unpacked. Everything included here has internal linkage: code compiled for one instruction set must
// not be merged by the linker with the same template compiled for another.
#include "convolve.h"
#include "variants.h"
#include "weight_gradient.h"

namespace lkspace {
namespace LKSPACE_VARIANT {

void convolve(const Call& q) {
    switch (q.type) {
        case FLOAT32: return lkspace::convolve<float>(q);
        case BFLOAT16: return lkspace::convolve<Bfloat16>(q);
        default: return lkspace::convolve<Float16>(q);
    }
}

void weight_gradient(const Call& q) {
    switch (q.type) {
        case FLOAT32: return lkspace::weight_gradient<float>(q);
        case BFLOAT16: return lkspace::weight_gradient<Bfloat16>(q);
        default: return lkspace::weight_gradient<Float16>(q);
    }
}

}  // namespace LKSPACE_VARIANT
}  // namespace lkspace
