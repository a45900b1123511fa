"""Capture of CUDA graphs for timing; needs torch only."""

import gc
from collections.abc import Callable

import torch


def captured(call: Callable[[], object], stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    """What the call launches, as a graph, captured on this stream.

    Not by `torch.cuda.graph`, which collects garbage first: that takes longer than what is to be timed, above all with
    Ray imported. Nothing is collected meanwhile either, because what is freed then could break the capture.
    """
    graph, collecting = torch.cuda.CUDAGraph(), gc.isenabled()
    torch.cuda.synchronize(stream.device)
    gc.disable()
    try:
        with torch.cuda.stream(stream):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                call()
            finally:
                graph.capture_end()
    finally:
        if collecting:
            gc.enable()
    return graph
