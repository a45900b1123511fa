"""CUDA C++ compiled at run time by NVRTC for the device at hand, and launched on torch's current stream.

`cuda.bindings`, NVIDIA's own Python package, comes with torch's CUDA wheels; where it is missing there is no such path.
Compiled code is kept in `$LKSPACE_CACHE/kernels`, by source, options, architecture and version of the compiler.
"""

import contextlib
import ctypes
import hashlib
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lkspace.folders import operator_file
from lkspace.replacing import replacing

FLAGS = ("--std=c++17",)
_DIGEST = 32  # bytes of a SHA-256 before the code in a file

_lock = threading.Lock()
_binaries: dict[tuple[Path, tuple[str, ...]], bytes] = {}


class CannotCompile(RuntimeError):
    """The compiler or the driver refused; its own words follow."""


@cache
def available() -> bool:
    """Whether there is a compiler: the package, and the library that it calls."""
    try:
        from cuda.bindings import nvrtc

        return bool(nvrtc.nvrtcVersion()[0].value == 0)
    except (ImportError, RuntimeError):
        return False


def function(source: Path, name: str, options: Sequence[str], shared_memory: int) -> Any:
    """A handle of the kernel `name` on the current device, allowed so many bytes of dynamic shared memory a block."""
    return _load(binary(source, options, torch.cuda.current_device()), name, shared_memory)


def launch(handle: Any, grid: tuple[int, int], threads: int, shared_memory: int, arguments: Sequence[Any]) -> None:
    """Arguments are tensors (their address), None (a null pointer) and integers as ctypes values."""
    from cuda.bindings import driver

    values = [
        argument
        if isinstance(argument, ctypes._SimpleCData)
        else ctypes.c_void_p(0 if argument is None else argument.data_ptr())
        for argument in arguments
    ]
    addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    stream = torch.cuda.current_stream().cuda_stream
    _bind()
    (failed,) = driver.cuLaunchKernel(
        handle, *grid, 1, threads, 1, 1, shared_memory, stream, ctypes.addressof(addresses), 0
    )
    _check(failed)


def binary(source: Path, options: Sequence[str], device: torch.device | int) -> bytes:
    """Machine code for this device, from memory, the cache folder or the compiler, which lets other threads run."""
    from cuda.bindings import nvrtc

    flags = (f"--gpu-architecture=sm_{''.join(map(str, torch.cuda.get_device_capability(device)))}", *FLAGS, *options)
    if (known := _binaries.get((source, flags))) is not None:
        return known
    text, version = source.read_text(), nvrtc.nvrtcVersion()[1:]
    name = hashlib.sha256(repr((text, flags, version)).encode()).hexdigest()[:24]
    path = operator_file(f"{name}.cubin")
    if (found := _read(path)) is None:
        found = compile_source(text, flags)
        with contextlib.suppress(OSError), replacing(path) as new:
            new.write_bytes(hashlib.sha256(found).digest() + found)
    with _lock:
        return _binaries.setdefault((source, flags), found)


def _read(path: Path) -> bytes | None:
    """What was compiled before; None if it is not there, or not whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST], content[_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def compile_source(source: str, flags: Sequence[str]) -> bytes:
    """Machine code (cubin); needs no GPU. CannotCompile with the compiler's own words if it refuses."""
    from cuda.bindings import nvrtc

    failed, program = nvrtc.nvrtcCreateProgram(source.encode(), b"lkspace.cu", 0, [], [])
    if failed.value:
        raise CannotCompile(str(failed))
    (failed,) = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
    if failed.value:
        log = b" " * nvrtc.nvrtcGetProgramLogSize(program)[1]
        nvrtc.nvrtcGetProgramLog(program, log)
        raise CannotCompile(log.decode(errors="replace").strip("\0 \n"))
    code: bytes = b" " * nvrtc.nvrtcGetCUBINSize(program)[1]
    nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(program)
    return code


def _load(code: bytes, name: str, shared_memory: int) -> Any:
    from cuda.bindings import driver

    _bind()
    failed, module = driver.cuModuleLoadData(code)
    _check(failed)
    failed, handle = driver.cuModuleGetFunction(module, name.encode())
    _check(failed)
    most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (failed,) = driver.cuFuncSetAttribute(handle, most, shared_memory)
    _check(failed)
    return handle


def _bind() -> None:
    """Make torch's context of the current device this thread's: in a thread of autograd's none may be yet."""
    from cuda.bindings import driver

    failed, device = driver.cuCtxGetDevice()
    if failed.value or int(device) != torch.cuda.current_device():
        failed, context = driver.cuDevicePrimaryCtxRetain(torch.cuda.current_device())
        _check(failed)
        (failed,) = driver.cuCtxSetCurrent(context)
        _check(failed)


def _check(failed: Any) -> None:
    if failed.value:
        raise CannotCompile(f"CUDA driver: {failed!r}")
