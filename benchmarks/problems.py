"""Search problems with a known front, for `benchmarks/search.py`: a synthetic RepLKNet space, ZDT and DTLZ.

The synthetic space has the shape of RepLKNet's (B, C, K, re-param, shortcut: 4.8 million points) and invented formulas:
it is smooth, which flatters models. Trust the order of samplers on it, not the values.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from lkspace.study.pareto import hypervolume, non_dominated

Floats = npt.NDArray[np.float64]


@dataclass
class Problem:
    """Objectives over a search space, and how good a set of evaluated points is.

    truth: objectives of a point in the study's directions, without noise. noise: standard deviation of each objective.
    cheap: which objectives are known exactly beforehand. features: what a model may see beside the parameters.
    front: (n, m) the true front, in the study's directions. budgets: where hypervolume is looked at.
    on_front: which of these true values, (n, m), belong to the true front; None if it is not known point by point.
    curve: what a training of a point would report of the first objective after each epoch, noise included; the last
    value is the observed one. None where nothing is trained.
    """

    name: str
    space: Mapping[str, BaseDistribution]
    directions: Sequence[str]
    truth: Callable[[Mapping[str, Any]], Sequence[float]]
    noise: Sequence[float]
    cheap: Sequence[int]
    make_front: Callable[[], Floats]
    features: Callable[[Mapping[str, Any]], Sequence[float]] | None = None
    budgets: Sequence[int] = (25, 50, 100, 200)
    curve: Callable[[Mapping[str, Any], np.random.Generator], Sequence[float]] | None = None
    on_front: Callable[[Floats], npt.NDArray[np.bool_]] | None = None

    @cached_property
    def _scale(self) -> tuple[Floats, Floats, Floats, float]:
        signs = np.where(np.array(self.directions) == "maximize", -1.0, 1.0)
        front = signs * self.make_front()
        low, high = front.min(axis=0), front.max(axis=0)
        volume = hypervolume((front - low) / (high - low), np.full(len(signs), 1.1))
        return signs, low, high, volume

    def share(self, values: npt.ArrayLike) -> float:
        """Hypervolume of these true values in % of the front's; reference (1.1, ...) in the front's own scale."""
        signs, low, high, volume = self._scale
        rows = (signs * np.asarray(values, dtype=np.float64) - low) / (high - low)
        return 100 * hypervolume(rows, np.full(len(signs), 1.1)) / volume


BLOCKS = ([1, 2, 3, 4], [1, 2, 3, 4], [4, 8, 12, 18], [1, 2, 3, 4])
WIDTHS, KERNELS, REPARAM, SHORTCUT = [48, 64, 96, 128, 160], [3, 7, 13, 21, 31], [0, 3, 5], [0, 1]
SIDES = (56, 28, 14, 7)


def _synthetic(blocks: Sequence[Any], width: Any, kernels: Sequence[Any], reparam: Any, shortcut: Any) -> list[Any]:
    """[accuracy in %, latency in ms, FLOPs]; of arrays that broadcast, or of numbers."""
    flops, time, depth, field, mean = 0.0, 0.0, 0.0, 0.0, 0.0
    for i, (b, k, h) in enumerate(zip(blocks, kernels, SIDES, strict=True)):
        channels = width * 2.0**i
        dw, pw, ffn = h**2 * channels * k**2, 2.0 * h**2 * channels**2, 8.0 * h**2 * channels**2
        flops = flops + b * (dw + pw + ffn)
        time = time + b * (12 * dw + pw + ffn)
        depth = depth + b
        field = field + k * np.sqrt(b) * 2.0**i
        mean = mean + k / 4
    latency = time / 6e8 + 0.05 * depth
    accuracy = (
        78
        + 4.2 * np.tanh(0.9 * (np.log10(flops / 1e9 + 0.2) + 0.4))
        + 1.4 * np.tanh(field / 900)
        - 0.05 * np.maximum(depth - 26, 0)
        + 0.35 * ((reparam > 0) & (mean > 9))
        + 0.8 * (shortcut == 1)
        - 0.02 * np.abs(kernels[3] - 13)
    )
    return [accuracy, latency, flops]


def _of(params: Mapping[str, Any]) -> tuple[float, ...]:
    return _at(tuple(params[name] for name in _NAMES))


_NAMES = (*(f"blocks_{i}" for i in range(4)), "width", *(f"kernel_{i}" for i in range(4)), "reparam", "shortcut")


@functools.lru_cache(maxsize=50_000)
def _at(point: tuple[Any, ...]) -> tuple[float, ...]:
    blocks, width, kernels, reparam, shortcut = point[:4], point[4], point[5:9], point[9], point[10]
    return tuple(float(v) for v in _synthetic(blocks, width, kernels, np.asarray(reparam), np.asarray(shortcut)))


def _synthetic_front() -> Floats:
    axes = [np.array(a) for a in (*BLOCKS, WIDTHS, *[KERNELS] * 4, REPARAM, SHORTCUT)]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    accuracy, latency, _ = _synthetic(grid[:4], grid[4], grid[5:9], grid[9], grid[10])
    shape = np.broadcast_shapes(accuracy.shape, latency.shape)
    a, t = np.broadcast_to(accuracy, shape).ravel(), np.broadcast_to(latency, shape).ravel()
    order = np.lexsort((-a, t))
    a, t = a[order], t[order]
    best = np.concatenate([[-np.inf], np.maximum.accumulate(a)[:-1]])
    return np.column_stack([a, t])[a > best]


EPOCHS, CHANCE = 8, 10.0


def _synthetic_curve(params: Mapping[str, Any], rng: np.random.Generator) -> list[float]:
    """An invented training: what is left to learn falls exponentially, more slowly the larger the network."""
    accuracy, _, flops = _of(params)
    pace = 0.8 + 0.5 * (np.log10(flops) - 8)  # epochs until a third is left: 0.8 at 0.1 G FLOPs, 1.8 at 10 G
    epochs = np.arange(1, EPOCHS + 1)
    learnt = (1 - np.exp(-epochs / pace)) / (1 - np.exp(-EPOCHS / pace))
    # An architecture's good or bad start, which the end does not know of, then the noise of each measurement.
    start = 1.5 * rng.normal() * np.exp(-epochs / 2) * (epochs < EPOCHS)
    values = CHANCE + (accuracy - CHANCE) * learnt + start
    return [float(v) for v in values + 0.15 * rng.normal(size=EPOCHS)]


def synthetic() -> Problem:
    """The space of 4.8 million points: accuracy up, noisy and to be learnt, latency down, known."""
    space: dict[str, BaseDistribution] = {f"blocks_{i}": CategoricalDistribution(BLOCKS[i]) for i in range(4)}
    space |= {"width": CategoricalDistribution(WIDTHS)}
    space |= {f"kernel_{i}": CategoricalDistribution(KERNELS) for i in range(4)}
    space |= {"reparam": CategoricalDistribution(REPARAM), "shortcut": CategoricalDistribution(SHORTCUT)}
    return Problem(
        "synthetic",
        space,
        ["maximize", "minimize"],
        lambda p: _of(p)[:2],
        [0.15, 0.0],
        [1],
        _synthetic_front,
        lambda p: [np.log10(_of(p)[2])],
        curve=_synthetic_curve,
    )


def zdt(number: int, dimensions: int = 12) -> Problem:
    """ZDT1-3 (Zitzler, Deb & Thiele, 2000); the first objective is cheap, as it is the first variable."""

    def second(first: Any, g: Any) -> Any:
        if number == 1:
            return g * (1 - np.sqrt(first / g))
        if number == 2:
            return g * (1 - (first / g) ** 2)
        return g * (1 - np.sqrt(first / g) - first / g * np.sin(10 * np.pi * first))

    def truth(params: Mapping[str, Any]) -> list[float]:
        x = [params[f"x{i:02}"] for i in range(dimensions)]
        return [x[0], float(second(x[0], 1 + 9 * np.mean(x[1:])))]

    def front() -> Floats:
        first = np.linspace(0, 1, 2001)
        rows = np.column_stack([first, second(first, 1.0)])
        return rows[non_dominated(rows)]

    space = {f"x{i:02}": FloatDistribution(0, 1) for i in range(dimensions)}
    return Problem(f"zdt{number}", space, ["minimize"] * 2, truth, [0, 0], [0], front, budgets=(25, 50, 100))


def dtlz2(dimensions: int = 7) -> Problem:
    """DTLZ2 (Deb et al., 2002) with three objectives, all of them to be learnt."""

    def truth(params: Mapping[str, Any]) -> list[float]:
        x = np.array([params[f"x{i}"] for i in range(dimensions)])
        a, b, g = x[0] * np.pi / 2, x[1] * np.pi / 2, 1 + ((x[2:] - 0.5) ** 2).sum()
        return [float(v) for v in g * np.array([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)])]

    def front() -> Floats:
        a, b = np.meshgrid(np.linspace(0, np.pi / 2, 60), np.linspace(0, np.pi / 2, 60))
        return np.column_stack([(np.cos(a) * np.cos(b)).ravel(), (np.cos(a) * np.sin(b)).ravel(), np.sin(a).ravel()])

    space = {f"x{i}": FloatDistribution(0, 1) for i in range(dimensions)}
    return Problem("dtlz2", space, ["minimize"] * 3, truth, [0] * 3, [], front, budgets=(25, 50, 100))


def problem(name: str) -> Problem:
    """synthetic, zdt1, zdt2, zdt3 or dtlz2."""
    known = {"synthetic": synthetic, "dtlz2": dtlz2} | {f"zdt{i}": lambda i=i: zdt(i) for i in (1, 2, 3)}
    return known[name]()
