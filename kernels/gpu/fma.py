"""Without tensor cores: small kernels, exact float32, and channels_last as it lies in memory.

    x row  q BI + s - Kh/2   ----o----o----o----        each value is loaded once per column v of the kernel and used by
                                 |                      the BI output rows of block q that need it:
    y rows q BI + d, d < BI      o                      y[d, p, c] += w[s - d, v, c] x[s, p + v - Kw/2, c]
                                 o
                                 o                      one multiply-add a term on the FP32 units, rounded at the end

A tile is BI rows x BP positions x BC channels; BC = 1 for contiguous tensors, whose lanes are columns, and a vector of
channels for channels_last, whose lanes are channels.
"""

import triton
import triton.language as tl
from torch import Tensor

from lkspace.kernels.gpu.choice import Choice
from lkspace.kernels.gpu.common import EXACT, exact_sum, finish, not_finite
from lkspace.kernels.gpu.problem import Problem


@triton.jit(do_not_specialize=["N", "C", "H", "W", "KH", "KW"])
def convolve_taps(
    x_ptr, y_ptr, w_ptr, bias_ptr,
    N, C, H, W, KH, KW,
    sxn, sxc, sxh, sxw, syn, syc, syh, syw,
    BI: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
    FLIP: tl.constexpr, HAS_BIAS: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """One tile of one image; positions p count (row block, column)."""
    positions = tl.cdiv(H, BI) * W
    p_tiles = tl.cdiv(positions, BP)
    c_tiles = tl.cdiv(C, BC)
    pid = tl.program_id(0)
    p0 = pid % p_tiles * BP
    c = pid // p_tiles % c_tiles * BC + tl.arange(0, BC)
    n = (pid // (p_tiles * c_tiles)).to(tl.int64)
    p = p0 + tl.arange(0, BP)
    i0 = p // W * BI
    j = p % W
    d = tl.arange(0, BI)
    s_first = tl.maximum(0, KH // 2 - (tl.minimum(p0 + BP, positions) - 1) // W * BI)
    s_last = tl.minimum(KH + BI - 1, H + KH // 2 - p0 // W * BI)

    c_inside = (c < C)[None, None, :]
    x_plane = x_ptr + n * sxn + c.to(tl.int64) * sxc
    x_ptrs = x_plane[None, None, :] + ((i0 - KH // 2) * sxh + (j - KW // 2) * sxw)[None, :, None]
    w_plane = w_ptr + c.to(tl.int64) * KH * KW
    total = tl.zeros((BI, BP, BC), dtype=tl.float32)
    for s in range(s_first, s_last):
        row = i0 - KH // 2 + s
        row_inside = (row >= 0) & (row < H) & (p < positions)
        u = s - d
        known = ((u >= 0) & (u < KH))[:, None, None] & c_inside
        for v in range(KW):
            column = j + v - KW // 2
            inside = (row_inside & (column >= 0) & (column < W))[None, :, None] & c_inside
            x = tl.load(x_ptrs + (s * sxh + v * sxw), mask=inside, other=0.0)
            if FLIP:
                tap = (KH - 1 - u) * KW + (KW - 1 - v)
            else:
                tap = u * KW + v
            weight = tl.load(w_plane[None, None, :] + tap[:, None, None], mask=known, other=0.0)
            total += x.to(tl.float32) * weight.to(tl.float32)

    i = i0[None, :] + d[:, None]
    y_plane = y_ptr + n * syn + c.to(tl.int64) * syc
    if not_finite(total) == 0:
        if HAS_BIAS:
            total += tl.load(bias_ptr + c, mask=c < C, other=0.0).to(tl.float32)[None, None, :]
        total = finish(total, bias_ptr, 0, False, ACTIVATION)
        y_ptrs = y_plane[None, None, :] + (i * syh + (j * syw)[None, :])[:, :, None]
        inside = ((i < H) & (p < positions)[None, :])[:, :, None] & c_inside
        tl.store(y_ptrs, total.to(y_ptr.dtype.element_ty), mask=inside)
    else:
        for e0 in range(0, BI * BP * BC, EXACT):
            e = e0 + tl.arange(0, EXACT)
            ce = pid // p_tiles % c_tiles * BC + e % BC
            pe = p0 + e // BC % BP
            ie = pe // W * BI + e // (BC * BP)
            je = pe % W
            valid = (e < BI * BP * BC) & (ce < C) & (ie < H) & (pe < positions)
            for lane in range(BC):  # a kernel each, so channel after channel
                ours = valid & (e % BC == lane)
                channel = tl.minimum(pid // p_tiles % c_tiles * BC + lane, C - 1).to(tl.int64)
                x_own = x_ptr + n * sxn + channel * sxc
                exact = exact_sum(
                    x_own + tl.zeros_like(e), w_ptr + channel * KH * KW, ie, je, ours, H, W, KH, KW, sxh, sxw, FLIP
                )
                exact = finish(exact, bias_ptr, channel, HAS_BIAS, ACTIVATION)
                y_own = y_ptr + n * syn + channel * syc + ie * syh + je * syw
                tl.store(y_own, exact.to(y_ptr.dtype.element_ty), mask=ours)


# BI rows x BP positions x BC channels; warps. Loads a multiply-add fall as 1 / BI and 1 / (positions a thread),
# the rows that are summed for nothing grow as BI / K.
_TILES = ((4, 256, 1, 4), (8, 256, 1, 4), (2, 256, 1, 4))
_CHANNELS_LAST_TILES = ((4, 8, 64, 4), (2, 4, 128, 4), (1, 16, 64, 4))
LARGEST = 81  # taps from which on half precision, which has tensor cores, leaves this path


def choices(problem: Problem) -> list[Choice]:
    """Tiles for the layout; none where rounding to tensor core factors is allowed and the kernel is large."""
    if problem.precision != "ieee" and problem.kh * problem.kw > LARGEST:
        return []
    tiles = _CHANNELS_LAST_TILES if problem.channels_last else _TILES
    return [Choice("taps", (("BI", bi), ("BP", bp), ("BC", bc)), warps, 2) for bi, bp, bc, warps in tiles]


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
    """y = activation(x * weight + bias), with weight turned by 180 degrees if `flip`; sums in float32."""
    (n, c, h, w), (kh, kw), sizes = x.shape, weight.shape[2:], choice.sizes
    tiles = triton.cdiv(triton.cdiv(h, sizes["BI"]) * w, sizes["BP"]) * triton.cdiv(c, sizes["BC"])
    convolve_taps[(tiles * n,)](
        x, y, weight, x if bias is None else bias, n, c, h, w, kh, kw, *x.stride(), *y.stride(),
        **sizes, FLIP=flip, HAS_BIAS=bias is not None, ACTIVATION=activation, **choice.launch,
    )  # fmt: skip
