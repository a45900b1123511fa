"""Small planes (14 x 14, 7 x 7) as one dense product: the whole plane is the Toeplitz matrix's side.

    Y[n, p] = sum over p' of X[n, p'] T[p', p],    T[p', p] = w[r' - r + Kh/2, s' - s + Kw/2]

    n = image, p = (r, s) and p' = (r', s') pixels counted through the plane: 14 x 14 is 196 on both sides, not 16 x 16.
    If K >= 2 S - 1 the kernel covers the plane from every pixel: T has no zeros, the convolution is global.

At this size making T costs more than multiplying by it, so T is read straight from the kernel, which the L1 cache
holds: the address is (r' Kw + s') - (r Kw + s) + constant, a sum of one number a row and one a column. Rows of p' that
no pixel of the tile reaches are skipped.
"""

import triton
import triton.language as tl
from torch import Tensor

from lkspace.kernels.gpu.choice import Choice
from lkspace.kernels.gpu.common import EXACT, exact_sum, finish, not_finite, product
from lkspace.kernels.gpu.problem import Problem, alignment


@triton.jit(do_not_specialize=["N", "C", "H", "W", "KH", "KW"])
def convolve_plane(
    x_ptr, y_ptr, w_ptr, bias_ptr,
    N, C, H, W, KH, KW,
    sxn, sxc, sxh, sxw, syn, syc, syh, syw,
    BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
    ALIGN: tl.constexpr, ROWS_TOUCH: tl.constexpr, COVERS: tl.constexpr, FLIP: tl.constexpr,
    CHANNELS_FIRST: tl.constexpr, HAS_BIAS: tl.constexpr, ACTIVATION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile: BN images x BM pixels of one channel. ALIGN: elements, a power of two that divides the
    pixels of x's plane and the strides of its images and channels. ROWS_TOUCH: x's rows lie end to end. COVERS:
    K >= 2 S - 1.
    """
    pixels = H * W // ALIGN * ALIGN
    m_tiles = tl.cdiv(pixels, BM)
    pid = tl.program_id(0)
    if CHANNELS_FIRST:
        c = pid % C
        pid = pid // C
    else:
        c = pid // (m_tiles * tl.cdiv(N, BN))
    m0 = pid % m_tiles * BM
    n0 = pid // m_tiles % tl.cdiv(N, BN) * BN
    sxn = (sxn // ALIGN) * ALIGN
    sxc = (sxc // ALIGN) * ALIGN

    n = n0 + tl.arange(0, BN)
    m = m0 + tl.arange(0, BM)
    i = m // W
    j = m % W
    x_plane = x_ptr + c.to(tl.int64) * sxc
    x_images = x_plane + n.to(tl.int64) * sxn
    w_plane = w_ptr + c.to(tl.int64) * KH * KW
    first = tl.maximum(0, m0 // W - KH // 2) * W // ALIGN * ALIGN
    last = tl.minimum(H, (tl.minimum(m0 + BM, pixels) - 1) // W + KH // 2 + 1) * W
    total = tl.zeros((BN, BM), dtype=tl.float32)
    for k0 in range(first, last, BK):
        k = k0 + tl.arange(0, BK)
        r = k // W
        s = k % W
        if ROWS_TOUCH:
            x_ptrs = x_images[:, None] + (k * sxw)[None, :]
        else:
            x_ptrs = x_images[:, None] + (r * sxh + s * sxw)[None, :]
        x = tl.load(x_ptrs, mask=(n < N)[:, None] & (k < pixels)[None, :], other=0.0)
        tap = (r * KW + s)[:, None] - (i * KW + j)[None, :]
        if FLIP:
            w_ptrs = w_plane + (KH // 2 * KW + KW // 2 - tap)
        else:
            w_ptrs = w_plane + (KH // 2 * KW + KW // 2 + tap)
        known = (k < pixels)[:, None] & (m < pixels)[None, :]
        if not COVERS:
            u = r[:, None] - i[None, :] + KH // 2
            v = s[:, None] - j[None, :] + KW // 2
            known = known & (u >= 0) & (u < KH) & (v >= 0) & (v < KW)
        total = product(x, tl.load(w_ptrs, mask=known, other=0.0), total, PRECISION)

    y_plane = y_ptr + c.to(tl.int64) * syc
    if not_finite(total) == 0:
        total = finish(total, bias_ptr, c, HAS_BIAS, ACTIVATION)
        y_ptrs = y_plane + (n.to(tl.int64) * syn)[:, None] + (i * syh + j * syw)[None, :]
        tl.store(y_ptrs, total.to(y_ptr.dtype.element_ty), mask=(n < N)[:, None] & (m < pixels)[None, :])
    else:
        for start in range(0, BN * BM, EXACT):
            e = start + tl.arange(0, EXACT)
            ne = (n0 + e // BM).to(tl.int64)
            me = m0 + e % BM
            ie = me // W
            je = me % W
            inside = (ne < N) & (me < pixels)
            exact = exact_sum(x_plane + ne * sxn, w_plane, ie, je, inside, H, W, KH, KW, sxh, sxw, FLIP)
            exact = finish(exact, bias_ptr, c, HAS_BIAS, ACTIVATION)
            tl.store(y_plane + ne * syn + ie * syh + je * syw, exact.to(y_ptr.dtype.element_ty), mask=inside)


LARGEST = 256  # pixels of a plane; beyond, `toeplitz` skips enough of the product to win
# BN images x BM pixels of output, BK of input; warps, stages. T is made anew for every BN images: as many as there are.
_TILES = ((64, 128, 32, 4, 3), (64, 64, 64, 4, 3), (128, 128, 32, 8, 3), (16, 128, 64, 4, 3), (32, 64, 64, 4, 3))
_EXACT_TILE = (32, 64, 16, 4, 2)  # "ieee" products run on the FP32 units, from registers: small


def choices(problem: Problem) -> list[Choice]:
    """Two tiles whose images are filled best, none for a plane that is too large."""
    if problem.h * problem.w > LARGEST:
        return []
    tiles = _TILES if problem.precision != "ieee" else (_EXACT_TILE,)
    idle = {tile: -problem.n % tile[0] / problem.n for tile in tiles}
    best = sorted(tiles, key=lambda tile: (idle[tile], -tile[0]))[:2]
    return [Choice("dense", (("BN", bn), ("BM", bm), ("BK", bk)), warps, stages) for bn, bm, bk, warps, stages in best]


def run(
    choice: Choice,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    flip: bool,
    activation: str,
    precision: str,
) -> None:
    """y = activation(x * weight + bias), with weight turned by 180 degrees if `flip`."""
    (n, c, h, w), (kh, kw), sizes = x.shape, weight.shape[2:], choice.sizes
    rows_touch = x.stride(2) == w * x.stride(3)
    grid = (triton.cdiv(h * w, sizes["BM"]) * triton.cdiv(n, sizes["BN"]) * c,)
    convolve_plane[grid](
        x, y, weight, x if bias is None else bias, n, c, h, w, kh, kw, *x.stride(), *y.stride(),
        **sizes, ALIGN=alignment(x, flat=rows_touch), ROWS_TOUCH=rows_touch, COVERS=kh >= 2 * h - 1 and kw >= 2 * w - 1,
        FLIP=flip, CHANNELS_FIRST=x.stride(1) == 1, HAS_BIAS=bias is not None, ACTIVATION=activation,
        PRECISION=precision, **choice.launch,
    )  # fmt: skip
