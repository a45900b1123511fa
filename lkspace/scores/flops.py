"""FLOPs of the deploy form for one image: the arithmetic beside the blocks, checked against fvcore's count."""

from collections.abc import Iterator

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from lkspace import nets
from lkspace.kernels import OPERATOR, flop_handle
from lkspace.registry import scores
from lkspace.scores.quiet import Device
from lkspace.scores.score import Direction, Measurement, Setting
from lkspace.space.architecture import Architecture

# fvcore counts these too; the papers do not.
_NOT_COUNTED = ("batch_norm", "adaptive_avg_pool2d")


class Flops:
    """Multiply-adds of convolutions and linear layers, as the papers count FLOPs."""

    name = "flops"
    unit = ""
    direction: Direction = "minimize"
    cheap = True

    def measure(self, architecture: Architecture, setting: Setting) -> Iterator[Measurement]:
        """One exact value. RuntimeError if fvcore counts another on the built network: a bug of ours."""
        with Device(setting.device).step():  # the check is work, and would disturb another's measurement
            flops = cross_checked_flops(architecture, setting.size, setting.classes)
        yield Measurement(flops, {"form": "deploy", "size": setting.size, "checked by": "fvcore"})


scores.register("flops")(Flops())


def cross_checked_flops(architecture: Architecture, size: int, classes: int) -> int:
    """FLOPs by arithmetic; builds the network once to see that fvcore counts the same, RuntimeError if not."""
    flops = nets.flops(architecture, size, classes)
    counted = counted_flops(nets.build(architecture, classes).deploy(), size)  # type: ignore[operator]
    if counted != flops:
        raise RuntimeError(f"FLOPs of {architecture}: {flops} by arithmetic, {counted} by fvcore")
    return flops


def counted_flops(network: nn.Module, size: int | tuple[int, int]) -> int:
    """Multiply-adds of convolutions and linear layers that fvcore sees in one eval pass over one image.

    size: of the image, one side or (height, width). The network is left as it was.
    """
    height, width = (size, size) if isinstance(size, int) else size
    parameter = next(network.parameters())
    image = torch.zeros(1, 3, height, width, dtype=parameter.dtype, device=parameter.device)
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            analysis = FlopCountAnalysis(network, image)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            analysis.set_op_handle(OPERATOR, flop_handle)
            return int(sum(n for operator, n in analysis.by_operator().items() if operator not in _NOT_COUNTED))
    finally:
        for module, training in modes:
            module.training = training
