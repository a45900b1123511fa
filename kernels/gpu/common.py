"""Device code that paths share: the product, bias and activation, and the exact sum that answers NaN and infinity.

The matrix products multiply pixels by zeros of the Toeplitz operand, and 0 x inf is NaN where the kernel does not
reach. They cannot hide it, though: a value that is not finite makes every sum it enters not finite. So a tile whose
sums are all finite met finite values only and is right; any other tile, rare, is summed again tap by tap, here:

    y[e] = sum over taps (u, v) inside the map of w[u, v] x[i + u - Kh/2, j + v - Kw/2],   e = output number e

A value outside the map is no value: it is left out, not multiplied by zero.
"""

import triton
import triton.language as tl

# Outputs that are summed at a time. Few, so that the addresses of this rare path do not take registers from the other.
EXACT = tl.constexpr(128)


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """total + a b, summed in float32. PRECISION: as Triton names it for float32 factors, or "widened".

    "widened" is for Triton's interpreter, which multiplies bfloat16 by its bit patterns: the factors are made float32,
    whose products are those of the tensor cores.
    """
    if PRECISION == "widened":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    else:
        return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def finish(total, bias_ptr, c, HAS_BIAS: tl.constexpr, ACTIVATION: tl.constexpr):
    """What follows the sum, in float32: the channel's bias, then "", "relu" or "gelu" (exact, by erf)."""
    if HAS_BIAS:
        total += tl.load(bias_ptr + c).to(tl.float32)
    if ACTIVATION == "relu":
        total = tl.where(total < 0, 0.0, total)  # keeps NaN
    if ACTIVATION == "gelu":
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    return total


@triton.jit
def not_finite(total):
    """How many values of a tile are NaN or infinite."""
    return tl.sum(tl.where(tl.abs(total) < float("inf"), 0, 1))


@triton.jit
def exact_sum(x_ptrs, w_ptr, i, j, valid, H, W, KH, KW, sxh, sxw, FLIP: tl.constexpr):
    """Sums for a vector of outputs: x_ptrs to pixel (0, 0) of each one's plane, w_ptr to the channel's kernel."""
    total = tl.zeros(i.shape, dtype=tl.float32)
    for u in range(KH):
        for v in range(KW):
            r = i + u - KH // 2
            s = j + v - KW // 2
            inside = valid & (r >= 0) & (r < H) & (s >= 0) & (s < W)
            if FLIP:
                weight = tl.load(w_ptr + (KH - 1 - u) * KW + (KW - 1 - v))
            else:
                weight = tl.load(w_ptr + u * KW + v)
            x = tl.load(x_ptrs + r * sxh + s * sxw, mask=inside, other=0.0)
            total += tl.where(inside, x.to(tl.float32) * weight.to(tl.float32), 0.0)
    return total
