"""Large kernels on tensor cores: one product per row of the input, with a banded Toeplitz matrix of kernel rows.

    positions p = (row block q, image n)          outputs m = (d, j): row q BI + d, column j0 + j

                  k = (s, column)                       j0       j0 + BW
    X[p, k]  . . . row q BI + s - Kh/2 . . .    T[k, m]  w2 w1 w0  .
                                                  |      w3 w2 w1 w0      w[s - d, column - j + Kw/2],
    Y[p, m] = sum over s, columns of  X T      column    .  w3 w2 w1      0 outside the kernel
                                                         .  .  w3 w2
T depends on differences only: it is the same for every image and row block, so batch 1 fills the product with rows as
batch 64 does with images. A row of x is read once for the BI output rows that need it. Rows and column chunks that no
output of the tile reaches are skipped. Algebra: implicit GEMM as in RepLKNet (Ding et al., 2022, appendix), with rows
and images on one axis in place of images alone.
"""

import triton
import triton.language as tl
from torch import Tensor

from lkspace.kernels.gpu.choice import Choice
from lkspace.kernels.gpu.common import EXACT, exact_sum, finish, not_finite, product
from lkspace.kernels.gpu.problem import Problem, alignment

# Rows of the table that differ by their shift: 8 of 2 bytes are the 16 bytes that one vector load takes.
SHIFTS = tl.constexpr(8)


@triton.jit(do_not_specialize=["KH", "KW", "L", "Z"])
def shift_table(w_ptr, table_ptr, KH, KW, L, Z, FLIP: tl.constexpr, BLOCK: tl.constexpr):
    """table[c, u, t, l] = w[c, u, l - Z - t + Kw/2], 0 outside; a program for a row (c, u) and BLOCK values.

    Column j of T is a kernel row read from an address that moves by one element a column: never aligned. With a copy
    per shift t = j mod 8 every read starts at a multiple of 8 elements and is one vector.
    """
    row = tl.program_id(0).to(tl.int64)
    if FLIP:
        source = w_ptr + (row - row % KH + KH - 1 - row % KH) * KW
    else:
        source = w_ptr + row * KW
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    v = e % L - Z - e // L + KW // 2
    inside = (v >= 0) & (v < KW) & (e < SHIFTS * L)
    if FLIP:
        v = KW - 1 - v
    value = tl.load(source + v, mask=inside, other=0.0)
    tl.store(table_ptr + row * SHIFTS * L + e, value, mask=e < SHIFTS * L)


@triton.jit(do_not_specialize=["N", "C", "H", "W", "KH", "KW", "L", "Z", "POSITIONS"])
def convolve(
    x_ptr, y_ptr, w_ptr, table_ptr, bias_ptr,
    N, C, H, W, KH, KW, L, Z, POSITIONS,
    sxn, sxc, sxh, sxw, syn, syc, syh, syw,
    BI: tl.constexpr, BW: tl.constexpr, BP: tl.constexpr, SK: tl.constexpr, BK: tl.constexpr,
    ALIGN: tl.constexpr, TABLE: tl.constexpr, FLIP: tl.constexpr, CHANNELS_FIRST: tl.constexpr,
    HAS_BIAS: tl.constexpr, ACTIVATION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile: BP positions x (BI rows x BW columns) of one channel; k runs over SK rows x BK columns at a time.

    ALIGN: elements, a power of two that divides the width and the strides of x's rows, images and channels: said to
    the compiler so that it loads vectors. TABLE: T is read from `shift_table`, else gathered from w.
    """
    M: tl.constexpr = BI * BW
    p_tiles = tl.cdiv(POSITIONS, BP)
    column_tiles = tl.cdiv(W, BW)
    pid = tl.program_id(0)
    if CHANNELS_FIRST:  # neighbours in memory are neighbouring channels
        c = pid % C
        pid = pid // C
    else:
        c = pid // (p_tiles * column_tiles)
    p0 = (pid % p_tiles) * BP
    j0 = (pid // p_tiles) % column_tiles * BW
    sxn = (sxn // ALIGN) * ALIGN
    sxc = (sxc // ALIGN) * ALIGN
    sxh = (sxh // ALIGN) * ALIGN
    W = (W // ALIGN) * ALIGN
    L = (L // SHIFTS) * SHIFTS
    Z = (Z // SHIFTS) * SHIFTS

    # Which rows s, relative to the block, and which chunks of columns the tile can meet.
    q_first = p0 // N
    q_last = (tl.minimum(p0 + BP, POSITIONS) - 1) // N
    s_first = tl.maximum(0, KH // 2 - q_last * BI)
    s_last = tl.minimum(KH + BI - 1, H + KH // 2 - q_first * BI)
    chunk_first = tl.maximum(0, j0 - KW // 2) // BK
    chunk_last = tl.cdiv(tl.minimum(W, j0 + BW + KW // 2), BK)
    chunks = chunk_last - chunk_first
    steps = tl.cdiv(s_last - s_first, SK) * chunks

    p = p0 + tl.arange(0, BP)
    q = p // N
    n = p % N
    k = tl.arange(0, SK * BK)
    ks = k // BK
    kj = k % BK
    m = tl.arange(0, M)
    d = m // BW
    j = j0 + m % BW
    x_plane = x_ptr + c.to(tl.int64) * sxc
    x_rows = x_plane + (n.to(tl.int64) * sxn + (q * BI - KH // 2) * sxh)[:, None] + (ks * sxh + kj * sxw)[None, :]
    row = (q * BI - KH // 2)[:, None] + ks[None, :]
    row = tl.where((p < POSITIONS)[:, None], row, -KH - BI - SK * BK)  # beyond the map whatever is added
    w_plane = w_ptr + c.to(tl.int64) * KH * KW
    if TABLE:
        t_columns = j % SHIFTS * L - d * SHIFTS * L - j // SHIFTS * SHIFTS
        t_ptrs = table_ptr + c.to(tl.int64) * KH * SHIFTS * L + (ks * SHIFTS * L + kj)[:, None] + t_columns[None, :]
    else:
        band = kj[:, None] - j[None, :] + KW // 2

    total = tl.zeros((BP, M), dtype=tl.float32)
    s = s_first
    chunk = chunk_first
    for _ in range(steps):
        column = chunk * BK
        inside = (row + s >= 0) & (row + s < H) & ((column + kj)[None, :] < W)
        x = tl.load(x_rows + (s * sxh + column * sxw), mask=inside, other=0.0)
        u = s + ks[:, None] - d[None, :]
        if TABLE:
            t = tl.load(t_ptrs + (s * SHIFTS * L + column + Z), mask=(u >= 0) & (u < KH), other=0.0)
        else:
            v = band + column
            known = (u >= 0) & (u < KH) & (v >= 0) & (v < KW)
            if FLIP:
                t = tl.load(w_plane + ((KH - 1 - u) * KW + (KW - 1 - v)), mask=known, other=0.0)
            else:
                t = tl.load(w_plane + (u * KW + v), mask=known, other=0.0)
        total = product(x, t, total, PRECISION)
        chunk += 1
        last = chunk == chunk_last
        s = tl.where(last, s + SK, s)
        chunk = tl.where(last, chunk_first, chunk)

    y_plane = y_ptr + c.to(tl.int64) * syc
    if not_finite(total) == 0:
        total = finish(total, bias_ptr, c, HAS_BIAS, ACTIVATION)
        y_rows = y_plane + (n.to(tl.int64) * syn + q * BI * syh)[:, None] + (d * syh + j * syw)[None, :]
        inside = (p < POSITIONS)[:, None] & ((q * BI)[:, None] + d[None, :] < H) & (j < W)[None, :]
        tl.store(y_rows, total.to(y_ptr.dtype.element_ty), mask=inside)
    else:
        for start in range(0, BP * M, EXACT):
            e = start + tl.arange(0, EXACT)
            pe = p0 + e // M
            ie = pe // N * BI + (e % M) // BW
            je = j0 + e % BW
            ne = (pe % N).to(tl.int64)
            inside = (pe < POSITIONS) & (ie < H) & (je < W)
            exact = exact_sum(x_plane + ne * sxn, w_plane, ie, je, inside, H, W, KH, KW, sxh, sxw, FLIP)
            exact = finish(exact, bias_ptr, c, HAS_BIAS, ACTIVATION)
            tl.store(y_plane + ne * syn + ie * syh + je * syw, exact.to(y_ptr.dtype.element_ty), mask=inside)


# BI x BW outputs by BP positions, SK x BK long products; warps, stages. BW = 16 keeps the Toeplitz band's waste
# low on maps wider than the kernel (a row of 31 is 48 columns of product), BW = 32 halves the loads where the map is
# that narrow. 128 x 128 sums are 128 registers a thread on 4 warps, too many beside 4-byte factors. 16 to 64 positions
# are for batch 1, with few rows stacked so that there are positions enough.
_TILES = (
    (8, 16, 128, 2, 16, 4, 4),
    (8, 16, 128, 4, 16, 4, 3),
    (16, 16, 128, 4, 16, 8, 3),
    (8, 16, 128, 2, 16, 8, 3),
    (8, 16, 64, 4, 16, 4, 3),
    (4, 32, 128, 1, 32, 4, 4),
    (4, 32, 128, 2, 32, 4, 3),
    (8, 32, 128, 1, 32, 8, 3),
    (4, 32, 64, 2, 32, 4, 3),
    (1, 32, 64, 2, 32, 4, 3),
    (4, 16, 16, 4, 16, 4, 3),
    (2, 16, 32, 4, 16, 4, 3),
)
_NAMES = ("BI", "BW", "BP", "SK", "BK")
_SUM_BYTES = 256  # sums a thread x bytes of a factor; beyond, registers spill (seen in ptxas' report for sm_90)
_EXACT_TILE = (4, 16, 64, 1, 16, 8, 2)  # "ieee" products run on the FP32 units, from registers: small
# The model: sums and loaded bytes that one multiprocessor handles in a cycle, tensor cores at half of Hopper's rate, L2
# at a guess; used to order tiles, never to report.
_SUMS_A_CYCLE, _BYTES_A_CYCLE, _CYCLES_A_STEP = 1024, 40, 60


def choices(problem: Problem, processors: int, shared_memory: int, tables: int = 3, gathered: int = 1) -> list[Choice]:
    """Tiles for this problem, cheapest by the model first: some that read T from a table, some that gather it."""
    tiles = _TILES if problem.precision != "ieee" else (_EXACT_TILE,)
    found = []
    for *sizes, warps, deepest in tiles:
        tile = dict(zip(_NAMES, sizes, strict=True))
        loaded = (tile["BP"] + tile["BI"] * tile["BW"]) * tile["SK"] * tile["BK"] * problem.itemsize
        stages = max(2, min(deepest, shared_memory // loaded))
        sums = tile["BP"] * tile["BI"] * tile["BW"] // (32 * warps)
        if loaded * stages <= shared_memory and sums * problem.itemsize <= _SUM_BYTES:
            model = _cycles(problem, tile, processors)
            found.append((model, tile, warps, stages))
    found.sort(key=lambda one: one[0])
    return [
        Choice("toeplitz", (*tile.items(), ("TABLE", table)), warps, stages, model=model)
        for table, count in ((1, tables), (0, gathered))
        for model, tile, warps, stages in found[:count]
    ]


def _cycles(problem: Problem, tile: dict[str, int], processors: int) -> float:
    """Cycles of one multiprocessor, counting the rows and columns that tiles skip."""
    m, k = tile["BI"] * tile["BW"], tile["SK"] * tile["BK"]
    blocks, positions = triton.cdiv(problem.h, tile["BI"]), triton.cdiv(problem.h, tile["BI"]) * problem.n
    rows = sum(
        min(problem.kh + tile["BI"] - 1, problem.h + problem.kh // 2 - q * tile["BI"])
        - max(0, problem.kh // 2 - q * tile["BI"])
        for q in range(blocks)
    )
    chunks = sum(
        triton.cdiv(min(problem.w, j + tile["BW"] + problem.kw // 2), tile["BK"])
        - max(0, j - problem.kw // 2) // tile["BK"]
        for j in range(0, problem.w, tile["BW"])
    )
    steps = triton.cdiv(rows // blocks, tile["SK"]) * chunks
    moved = (tile["BP"] + m) * k * problem.itemsize / _BYTES_A_CYCLE
    step = _CYCLES_A_STEP + max(tile["BP"] * m * k * problem.itemsize / 2 / _SUMS_A_CYCLE, moved)
    return float(steps * step) * int(triton.cdiv(problem.c * triton.cdiv(positions, tile["BP"]), processors))


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
    bw, bk, table, length, zero = sizes["BW"], sizes["BK"], weight, 0, 0
    if sizes["TABLE"]:
        # column - j, from the first chunk of the first tile to the last of the last one, in vectors
        width = triton.cdiv(w, bw) * bw
        zero = triton.cdiv(min(kw // 2 + bk + bw, width), 8) * 8
        length = zero + triton.cdiv(min(bw + kw // 2 + bk, triton.cdiv(w, bk) * bk), 8) * 8
        table = weight.new_empty(c * kh * 8 * length)
        shift_table[(c * kh, triton.cdiv(8 * length, 512))](weight, table, kh, kw, length, zero, FLIP=flip, BLOCK=512)
    positions = triton.cdiv(h, sizes["BI"]) * n
    grid = (triton.cdiv(positions, sizes["BP"]) * triton.cdiv(w, bw) * c,)
    convolve[grid](
        x, y, weight, table, x if bias is None else bias,
        n, c, h, w, kh, kw, length, zero, positions, *x.stride(), *y.stride(),
        **sizes, ALIGN=alignment(x), FLIP=flip, CHANNELS_FIRST=x.stride(1) == 1,
        HAS_BIAS=bias is not None, ACTIVATION=activation, PRECISION=precision, **choice.launch,
    )  # fmt: skip
