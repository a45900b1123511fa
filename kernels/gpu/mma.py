"""Half precision in CUDA C++: planes and kernel of a channel in shared memory. mma.cu says how it computes.

Where Triton loads a Toeplitz block from memory for every product, here a kernel row is a handful of registers that
serve every column of the map, and a plane is loaded once for all kernel rows. x is read as it lies; channels_last goes
by way of contiguous planes (`Choice.planar`).
"""

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lkspace.kernels.gpu import compiler
from lkspace.kernels.gpu.choice import Choice
from lkspace.kernels.gpu.problem import Problem, vector

SOURCE = Path(__file__).with_name("mma.cu")
_ACTIVATIONS = {"": 0, "relu": 1, "gelu": 2}
_WIDEST, _TALLEST = 128, 256  # sums are registers, 4 for 8 columns; planes lie twice in shared memory
_MOST_KERNEL_ROWS = 64  # of the weight gradient: 16 warps of 4 rows
_MOST_WARPS = 8
_SMALL = 16  # side up to which images, not rows, may be the positions of a product
_FULL = 4  # programs a multiprocessor up to which the images of a channel are shared out
_POSITIONS = 16  # of one product
_MOST_SUMS = 20  # blocks of 4 sums a thread; more leave too few registers for the factors
_RESIDENT = 16  # warps that a multiprocessor is to hold: 128 registers a thread
Strides = tuple[ctypes.c_longlong, ctypes.c_longlong, ctypes.c_int, ctypes.c_int]


def choices(problem: Problem, processors: int, shared_memory: int) -> list[Choice]:
    """Steps of images for this map; none for float32 and maps that do not fit."""
    if not _fits(problem):
        return []
    offered = [*_by_images(problem), *_by_rows(problem, processors)]
    return [
        one for one in offered if _shared_memory(one, problem.h, problem.w, problem.kh, problem.kw) <= shared_memory
    ]


def gradient_choices(problem: Problem, processors: int, shared_memory: int) -> list[Choice]:
    """Kernel rows a warp and images a step of the weight gradient; none for float32 and what does not fit."""
    if not _fits(problem) or problem.kh > _MOST_KERNEL_ROWS:
        return []
    # 16 images and more let a step skip rows that do not meet; of large maps few rows do not.
    steps = (16, 8) if problem.h <= _SMALL else (4, 2) if problem.h <= 2 * _SMALL else (2, 1)
    found = []
    for rows in (2, 3, 4):
        for step in steps if rows != 4 else steps[:1]:
            images = min(step, problem.n)
            shares = min(max(1, round(2 * processors / problem.c)), _ceil(problem.n, images))
            found.append(of_gradient(images, rows, shares, problem.kh))
    return [
        one for one in dict.fromkeys(found) if _gradient_memory(one, problem.h, problem.w, problem.kw) <= shared_memory
    ]


def _fits(problem: Problem) -> bool:
    half = problem.itemsize == 2 and problem.precision == "tf32"
    return half and problem.w <= _WIDEST and problem.h <= _TALLEST and min(problem.n, problem.c) > 0


def _by_rows(problem: Problem, processors: int) -> list[Choice]:
    """Two tiles a warp, by fours and eights of warps; one tile, by what leaves the fewest positions idle."""
    found = []
    groups = _ceil(problem.h, 2 * _POSITIONS)
    for warps in (8, 4):
        if problem.h > _SMALL:
            found.append((min(max(1, warps // groups), problem.n), 2))
    warps_of = {
        images: _ceil(images * problem.h, _POSITIONS)
        for images in range(1, problem.n + 1)
        if images == 1 or images * problem.h <= _MOST_WARPS * _POSITIONS
    }

    def computed(images: int) -> float:
        return round(_ceil(problem.n, images) * warps_of[images] / (problem.n * problem.h), 3)

    found.append((min(warps_of, key=lambda images: (computed(images), -images)), 1))
    if problem.n * problem.c < 2 * processors:  # few planes: the more warps for each the better
        found.sort(key=lambda one: one[1])
    shares = _ceil(_FULL * processors, problem.c)
    return [
        by_rows(images, problem.h, min(shares, _ceil(problem.n, images)), tall) for images, tall in dict.fromkeys(found)
    ]


def _by_images(problem: Problem) -> list[Choice]:
    """A warp's share of the rows: a quarter or half of a map beyond 8 px, half or all of a smaller one."""
    if max(problem.h, problem.w) > _SMALL or problem.n < _POSITIONS // 2:
        return []
    parts, found = (4, 2) if problem.h > 8 else (2, 1), []
    for shares in parts:
        rows = _ceil(problem.h, shares)
        for tiles, warps in ((1, 4), (1, 8), (2, 8)):
            groups = min(max(1, warps // shares), _ceil(problem.n, tiles * _POSITIONS))
            if tiles * rows * _ceil(problem.w, 8) <= _MOST_SUMS:
                found.append(by_images(groups * tiles * _POSITIONS, groups * shares, tiles, rows))
    return list(dict.fromkeys(found))


def by_rows(images: int, h: int, shares: int, tall: int = 1) -> Choice:
    """`rows` of mma.cu: images a step, programs that share those of a channel, tiles of one image a warp."""
    warps = _ceil(images * h, _POSITIONS) if tall == 1 else images * _ceil(h, _POSITIONS * tall)
    resident = max(1, _RESIDENT // warps) if tall > 1 else 1
    tile = (("IMAGES", images), ("TILES", 0), ("TALL", tall), ("SHARES", shares), ("RESIDENT", resident))
    return Choice("mma", tile, warps, 0)


def by_images(images: int, warps: int, tiles: int, rows: int) -> Choice:
    """`images` of mma.cu: images a program, tiles of 16 images and rows of output a warp."""
    resident = max(1, _RESIDENT // warps)
    tile = (("IMAGES", images), ("TILES", tiles), ("ROWS", rows), ("SHARES", 0), ("RESIDENT", resident))
    return Choice("mma", tile, warps, 0)


def of_gradient(images: int, rows: int, shares: int, kh: int) -> Choice:
    """`correlate` of mma.cu: images a step, kernel rows a warp, shares of the images."""
    return Choice("mma", (("IMAGES", images), ("ROWS", rows), ("SHARES", shares)), _ceil(kh, rows), 0)


def grid(choice: Choice, n: int, c: int) -> tuple[int, int]:
    """Programs: channels x shares or steps of the images."""
    return c, choice.sizes["SHARES"] or _ceil(n, choice.sizes["IMAGES"])


def options(choice: Choice, x: Tensor, weight: Tensor, flip: bool, activation: str) -> list[str]:
    """The constants of mma.cu as its compiler takes them."""
    return _constants(_of(choice, weight, x), flip, activation)


def gradient_options(choice: Choice, grad: Tensor, x: Tensor, weight: Tensor) -> list[str]:
    """The constants of mma.cu for the weight gradient."""
    return _gradient_constants(_of(choice, weight, x, grad))


def _constants(shape: "_Shape", flip: bool, activation: str, **others: int) -> list[str]:
    values = {"H": shape.h, "W": shape.w, "KH": shape.kh, "KW": shape.kw, "HALF": int(shape.half)}
    values |= {"FLIP": int(flip), "ACTIVATION": _ACTIVATIONS[activation], "VECTOR": shape.vector}
    values |= {"WARPS": shape.choice.warps, **shape.choice.sizes, **others}
    return [f"-D{name}={value}" for name, value in values.items() if name != "SHARES"]


def _gradient_constants(shape: "_Shape") -> list[str]:
    return _constants(shape, flip=False, activation="", TILES=0, GRADIENT=1)


def strides(x: Tensor) -> Strides:
    """Of images, channels, rows and columns, in elements."""
    images, channels, rows, columns = x.stride()
    return ctypes.c_longlong(images), ctypes.c_longlong(channels), ctypes.c_int(rows), ctypes.c_int(columns)


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
    """y = activation(x * weight + bias), with weight turned by 180 degrees if `flip`; y is contiguous."""
    n, c = x.shape[:2]
    kernel, memory = _kernel("convolve", _of(choice, weight, x), flip, activation)
    arguments = (x, y, weight, bias, ctypes.c_int(n), ctypes.c_int(c), *strides(x))
    compiler.launch(kernel, grid(choice, n, c), 32 * choice.warps, memory, arguments)


def gradient(choice: Choice, grad: Tensor, x: Tensor, into_weight: Tensor) -> None:
    """into_weight = the gradient of the (C, 1, Kh, Kw) kernels, in their dtype, contiguous."""
    (n, c), shares, count = x.shape[:2], choice.sizes["SHARES"], into_weight.numel()
    parts = torch.empty(shares * count, dtype=torch.float32, device=x.device)
    sizes, both = (ctypes.c_int(n), ctypes.c_int(c)), (*strides(x), *strides(grad))
    shape = _of(choice, into_weight, x, grad)
    kernel, memory = _kernel("correlate", shape)
    compiler.launch(kernel, (c, shares), 32 * choice.warps, memory, (x, grad, parts, *sizes, *both))
    kernel, _ = _kernel("finish", shape)
    arguments = (x, grad, parts, into_weight, *sizes, ctypes.c_int(shares), *both)
    compiler.launch(kernel, (_ceil(count, _FINISHED), 1), _FINISHED, 0, arguments)


def prepare(choice: Choice, x: Tensor, weight: Tensor, flip: bool, activation: str) -> None:
    """Compile what `run` will need, for weight's device: x may be on "meta". From any thread."""
    compiler.binary(SOURCE, options(choice, x, weight, flip, activation), weight.device)


def prepare_gradient(choice: Choice, grad: Tensor, x: Tensor, weight: Tensor) -> None:
    """Compile what `gradient` will need, for weight's device: grad and x may be on "meta". From any thread."""
    compiler.binary(SOURCE, gradient_options(choice, grad, x, weight), weight.device)


@dataclass(frozen=True)
class _Shape:
    """All that the compiled code depends on beside the direction."""

    choice: Choice
    h: int
    w: int
    kh: int
    kw: int
    half: bool
    vector: int
    device: int


def _of(choice: Choice, weight: Tensor, *maps: Tensor) -> _Shape:
    (h, w), (kh, kw), half = maps[0].shape[2:], weight.shape[2:], maps[0].dtype == torch.float16
    return _Shape(choice, h, w, kh, kw, half, vector(*maps), maps[0].get_device())


@functools.cache  # a call in a network must not take longer to launch than to compute
def _kernel(name: str, shape: _Shape, flip: bool = False, activation: str = "") -> tuple[Any, int]:
    """Handle on the current device, and bytes of shared memory."""
    choice, sizes = shape.choice, (shape.h, shape.w, shape.kh, shape.kw)
    if name == "convolve":
        memory, constants = _shared_memory(choice, *sizes), _constants(shape, flip, activation)
    else:
        memory = _gradient_memory(choice, shape.h, shape.w, shape.kw) if name == "correlate" else 0
        constants = _gradient_constants(shape)
    return compiler.function(SOURCE, name, constants, memory), memory


_FINISHED = 256  # threads of `finish`


def _shared_memory(choice: Choice, h: int, w: int, kh: int, kw: int) -> int:
    """Bytes, as mma.cu divides them: blocks of the kernel, a row of zeros, planes, the kernel."""
    images, columns = choice.sizes["IMAGES"], _ceil(w, 8)
    blocks, kernel = 128 * (2 * _offsets(w, kw) + 1), 2 * kh * kw
    if choice.sizes["TILES"]:
        kernel_rows = _ceil(h, choice.sizes["ROWS"]) * choice.sizes["ROWS"] + h + 1
        return kernel_rows * blocks + 16 * (columns + images * (h * columns | 1)) + kernel
    pitch = columns | 1
    kernel_rows = min(kh, kh // 2 + h) - max(0, kh // 2 - (h - 1))
    return _ceil(kernel_rows, 2) * 2 * blocks + 16 * pitch * (1 + 2 * images * h) + kernel


def _gradient_memory(choice: Choice, h: int, w: int, kw: int) -> int:
    """Bytes, as mma.cu divides them: planes, and in their place, at the end, every warp's sums."""
    images, spread = choice.sizes["IMAGES"], _ceil(w, 16)
    pitch, spacing = 2 * spread | 1, 1 if images >= 8 else 8 // images
    plane = h * pitch + (spacing - h * pitch) % 8
    band = min(1 + _offsets(w, kw), _ceil(w, 8) - 1) + min(_offsets(w, kw), 2 * (spread - 1)) + 1
    return max(16 * (pitch + 4 * images * plane), choice.warps * 16 * (8 * band | 1) * 4)


def _offsets(w: int, kw: int) -> int:
    return min((kw // 2 + 7) // 8, _ceil(w, 8) - 1)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
