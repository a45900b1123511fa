"""The depthwise operator that large-kernel networks are made of, and the backends that compute it.

`depthwise_conv2d` is `torch.ops.lkspace.depthwise_conv2d`: autograd, autocast, torch.compile, torch.export and FLOP
counters know it. `backend_for` says who will compute it. `batch_norm` is a training step's, with its activation.
"""

from lkspace.kernels.backends import availability, backend_for, implementation
from lkspace.kernels.calibration import scheme_summary
from lkspace.kernels.flops import OPERATOR, flop_handle
from lkspace.kernels.native_backend import isa, native_available, native_reason
from lkspace.kernels.norm import batch_norm
from lkspace.kernels.operator import depthwise_conv2d

__all__ = [
    "OPERATOR",
    "availability",
    "backend_for",
    "batch_norm",
    "depthwise_conv2d",
    "flop_handle",
    "implementation",
    "isa",
    "native_available",
    "native_reason",
    "scheme_summary",
]
