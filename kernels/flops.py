"""What FLOP counters are told about the operator; both count nothing of a custom operator by themselves."""

import math
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

OPERATOR = "lkspace::depthwise_conv2d"


def flop_handle(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of one call, for fvcore: `FlopCountAnalysis(...).set_op_handle(OPERATOR, flop_handle)`.

    inputs, outputs: values of a traced graph, of known shapes. Nominal, as papers count: N C H W Kh Kw, nothing
    subtracted where the kernel leaves the map.
    """
    return _multiply_adds(inputs[0].type().sizes(), inputs[1].type().sizes())


def _multiply_adds(x: list[int], weight: list[int]) -> int:
    return math.prod(x) * weight[2] * weight[3]


def _forward_flops(x: Any, weight: Any, *rest: Any, **shapes: Any) -> int:
    return 2 * _multiply_adds(x, weight)


def _backward_flops(grad: Any, x: Any, weight: Any, wanted: Any, **shapes: Any) -> int:
    return 2 * _multiply_adds(x, weight) * (int(wanted[0]) + int(wanted[1]))


def register() -> None:
    """Tell torch.utils.flop_counter, which counts a multiply-add as two; the operators must be defined."""
    register_flop_formula(torch.ops.lkspace.depthwise_conv2d)(_forward_flops)
    register_flop_formula(torch.ops.lkspace.depthwise_conv2d_backward)(_backward_flops)
