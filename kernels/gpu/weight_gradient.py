"""Weight gradient on tensor cores, in two passes without atomics.

    dW[u, v] = sum over images, rows r, columns j of  grad[r - u + Kh/2, j] x[r, j + v - Kw/2]

    pass 1   G[(u, j), l] = sum over images, rows, blocks of BW columns of  grad[r - u + Kh/2, j0 + j] x[r, j0 + l - Z]
             one product; all column blocks add to the same G, because only the offset l - j counts

    pass 2             l ->                dW[u, v] = sum of G's diagonal  l - j = v - Kw/2 + Z,
             j  . a b c d . .              over j, then over the parts that pass 1 was split into.
             |  . . a b c d .              Always in the same order: the same bits twice.
                . . . a b c d
Z is Kw/2 rounded up to 16 bytes, so that windows of x start aligned; where one block holds all columns the window is
the map and Z = 0. NaN and infinity: see common.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lkspace.kernels.gpu.choice import Choice
from lkspace.kernels.gpu.common import product
from lkspace.kernels.gpu.problem import Problem, alignment


@triton.jit(do_not_specialize=["N", "C", "H", "W", "KH", "KW", "Z", "PARTS"])
def correlate(
    x_ptr, g_ptr, part_ptr,
    N, C, H, W, KH, KW, Z, PARTS,
    sxn, sxc, sxh, sxw, sgn, sgc, sgh, sgw,
    BU: tl.constexpr, BW: tl.constexpr, BL: tl.constexpr, BR: tl.constexpr,
    ALIGN: tl.constexpr, CHANNELS_FIRST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """G for BU kernel rows and BL window columns of one channel, summed over one part of the images."""
    M: tl.constexpr = BU * BW
    u_tiles = tl.cdiv(KH, BU)
    blocks = tl.cdiv(W, BW)
    l_tiles = tl.program_id(1)
    pid = tl.program_id(0)
    if CHANNELS_FIRST:
        c = pid % C
        u0 = pid // C % u_tiles * BU
        part = pid // (C * u_tiles)
    else:
        u0 = pid % u_tiles * BU
        c = pid // u_tiles % C
        part = pid // (C * u_tiles)
    l0 = l_tiles * BL
    sxn = (sxn // ALIGN) * ALIGN
    sxc = (sxc // ALIGN) * ALIGN
    sxh = (sxh // ALIGN) * ALIGN
    W = (W // ALIGN) * ALIGN
    sgn = (sgn // ALIGN) * ALIGN
    sgc = (sgc // ALIGN) * ALIGN
    sgh = (sgh // ALIGN) * ALIGN
    Z = (Z // ALIGN) * ALIGN

    # Rows of x that meet a row of grad for some u of the tile, counted through this part's images.
    r_first = tl.maximum(0, u0 - KH // 2)
    rows = tl.minimum(H, H + u0 + BU - 1 - KH // 2) - r_first
    n_first = part * N // PARTS
    images = (part + 1) * N // PARTS - n_first
    m = tl.arange(0, M)
    mu = u0 + m // BW
    mj = m % BW
    window = l0 + tl.arange(0, BL) - Z
    x_plane = x_ptr + c.to(tl.int64) * sxc
    g_plane = g_ptr + c.to(tl.int64) * sgc
    total = tl.zeros((M, BL), dtype=tl.float32)
    row_steps = tl.cdiv(images * tl.maximum(rows, 0), BR)
    for step in range(row_steps * blocks):
        j0 = step % blocks * BW
        k = step // blocks * BR + tl.arange(0, BR)
        k_inside = k < images * rows
        n = (n_first + k // rows).to(tl.int64)
        r = r_first + k % rows
        columns = j0 + window
        x_inside = k_inside[:, None] & ((columns >= 0) & (columns < W))[None, :]
        x = tl.load(x_plane + (n * sxn + r * sxh)[:, None] + (columns * sxw)[None, :], mask=x_inside, other=0.0)
        i = r[None, :] - mu[:, None] + KH // 2
        g_inside = k_inside[None, :] & (i >= 0) & (i < H) & (j0 + mj < W)[:, None]
        g_rows = ((KH // 2 - mu) * sgh + mj * sgw)[:, None] + (n * sgn + r * sgh)[None, :]
        g = tl.load(g_plane + (g_rows + j0 * sgw), mask=g_inside, other=0.0)
        total = product(g, x, total, PRECISION)

    width = tl.num_programs(1) * BL
    tile = ((part * C + c).to(tl.int64) * u_tiles + u0 // BU) * M
    tl.store(part_ptr + (tile + m)[:, None] * width + (l0 + tl.arange(0, BL))[None, :], total)


@triton.jit(do_not_specialize=["N", "C", "H", "W", "KH", "KW", "Z", "PARTS", "WIDTH"])
def sum_diagonals(
    part_ptr, x_ptr, g_ptr, dw_ptr,
    N, C, H, W, KH, KW, Z, PARTS, WIDTH,
    sxn, sxc, sxh, sxw, sgn, sgc, sgh, sgw,
    BU: tl.constexpr, BW: tl.constexpr, BV: tl.constexpr, BJ: tl.constexpr,
):  # fmt: skip
    """dW[c, u, :] from the parts; one program per (c, u) and BV taps."""
    u = tl.program_id(0) % KH
    c = (tl.program_id(0) // KH).to(tl.int64)
    v = tl.program_id(1) * BV + tl.arange(0, BV)
    j = tl.arange(0, BW)
    u_tiles = tl.cdiv(KH, BU)
    along = j[:, None] + v[None, :] - KW // 2 + Z
    inside = (along >= 0) & (along < WIDTH) & (v < KW)[None, :]
    sums = tl.zeros((BW, BV), dtype=tl.float32)
    for part in range(PARTS):
        tile = ((part * C + c) * u_tiles + u // BU) * (BU * BW) + u % BU * BW
        sums += tl.load(part_ptr + (tile + j)[:, None] * WIDTH + along, mask=inside, other=0.0)
    total = tl.sum(sums, 0)
    if tl.sum(tl.where(tl.abs(total) < float("inf"), 0, 1)) > 0:
        total = tl.zeros((BV,), dtype=tl.float32)
        for row in range(N * H):
            n = (row // H).to(tl.int64)
            r = row % H + u - KH // 2
            if (r >= 0) & (r < H):
                for j0 in range(0, W, BJ):
                    jj = j0 + tl.arange(0, BJ)
                    column = jj[:, None] + v[None, :] - KW // 2
                    met = (jj < W)[:, None] & (column >= 0) & (column < W) & (v < KW)[None, :]
                    g = tl.load(g_ptr + n * sgn + c * sgc + row % H * sgh + jj * sgw, mask=jj < W, other=0.0)
                    x = tl.load(x_ptr + n * sxn + c * sxc + r * sxh + column * sxw, mask=met, other=0.0)
                    total += tl.sum(tl.where(met, g.to(tl.float32)[:, None] * x.to(tl.float32), 0.0), 0)
    tl.store(dw_ptr + (c * KH + u) * KW + v, total.to(dw_ptr.dtype.element_ty), mask=v < KW)


# BU kernel rows x BW columns by BL of the window, BR rows of the batch a step; warps, stages. BU BW = 128 and
# BL = 64 are 64 sums a thread; BW = 16 keeps the window's waste low, 32 is for maps of one block, 8 for 7 x 7.
_TILES = (
    (8, 16, 64, 64, 4, 3),
    (8, 16, 32, 64, 4, 3),
    (4, 32, 32, 64, 4, 4),
    (8, 32, 32, 64, 8, 3),
    (8, 16, 16, 64, 4, 3),
    (16, 8, 16, 64, 4, 3),
    (4, 16, 32, 32, 4, 3),
)
_NAMES = ("BU", "BW", "BL", "BR")
_EXACT_TILE = (4, 16, 32, 16, 4, 2)  # "ieee" products run on the FP32 units, from registers: small
_FULL = 4  # programs per multiprocessor up to which the batch is split into parts


def choices(problem: Problem, processors: int, tried: int = 4) -> list[Choice]:
    """Tiles that execute the least, with the parts that fill the device."""
    tiles = _TILES if problem.precision != "ieee" else (_EXACT_TILE,)
    found = []
    for *sizes, warps, stages in tiles:
        bu, bw, bl, _ = sizes
        width, _ = _window(problem.w, problem.kw, bw, bl)
        programs = problem.c * triton.cdiv(problem.kh, bu) * width // bl
        parts = max(1, min(problem.n, _FULL * processors // programs))
        executed = triton.cdiv(problem.kh, bu) * bu * triton.cdiv(problem.w, bw) * bw * width
        tile = (*zip(_NAMES, sizes, strict=True), ("PARTS", parts))
        loads = 1 + 32 / (bu * bw) + 32 / bl  # a product of 32 x 32 waits for its loads as long as it computes
        found.append(Choice("correlate", tile, warps, stages, model=executed * loads))
    return sorted(found, key=lambda choice: choice.model)[:tried]


def _window(w: int, kw: int, bw: int, bl: int) -> tuple[int, int]:
    """(length of a block's window of x in whole BL, Z)."""
    if bw >= w:
        return triton.cdiv(w, bl) * bl, 0
    zero = triton.cdiv(kw // 2, 8) * 8
    return triton.cdiv(bw + kw // 2 + zero, bl) * bl, zero


def run(choice: Choice, grad: Tensor, x: Tensor, into_weight: Tensor, precision: str) -> None:
    """into_weight = the gradient of the (C, 1, Kh, Kw) kernels, in their dtype, contiguous."""
    (n, c, h, w), (kh, kw) = x.shape, into_weight.shape[2:]
    sizes = choice.sizes
    parts = sizes.pop("PARTS")
    bu, bw, bl = sizes["BU"], sizes["BW"], sizes["BL"]
    width, zero = _window(w, kw, bw, bl)
    u_tiles = triton.cdiv(kh, bu)
    part = torch.empty(parts * c * u_tiles * bu * bw * width, dtype=torch.float32, device=x.device)
    strides = (*x.stride(), *grad.stride())
    correlate[(c * u_tiles * parts, width // bl)](
        x, grad, part, n, c, h, w, kh, kw, zero, parts, *strides,
        **sizes, ALIGN=alignment(x, grad), CHANNELS_FIRST=x.stride(1) == 1, PRECISION=precision, **choice.launch,
    )  # fmt: skip
    taps = min(64, max(16, triton.next_power_of_2(kw)))
    sum_diagonals[(c * kh, triton.cdiv(kw, taps))](
        part, x, grad, into_weight, n, c, h, w, kh, kw, zero, parts, width, *strides,
        BU=bu, BW=bw, BV=taps, BJ=16, num_warps=1 if bw * taps <= 512 else 4,
    )  # fmt: skip
