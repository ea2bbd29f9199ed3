"""A GPU where there is none: real arithmetic on the CPU, and every tensor known to lie here or there.

Within `pretended_gpu()` a tensor that was sent to "cuda" says that it lies there, and

- what a real card refuses is an error: an operation between a tensor of the GPU and one of the CPU, unless the latter
  is a number (0-dim) in an elementwise operation, or an index;
- what makes the host wait for a real card, or the card for the host, is noted in `blocking` with its place: reading a
  value, boolean masks as indices, and copies without `non_blocking`.

A storage, not a tensor, has a place: hence views, in-place operations and what autograd keeps need no care. The CPU's
backward pass runs in the thread that calls it, so it is seen too.
"""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import getattr_static
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parent.parent
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
IS_CUDA, IS_CPU = (getattr_static(Tensor, name).__get__ for name in ("is_cuda", "is_cpu"))
# Elementwise too, though PyTorch does not tag them so.
ELEMENTWISE = {"fill_", "masked_fill", "masked_fill_"}
# Their result, or its size, is known to the host only when the GPU is done.
READS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "unique_dim", "_unique2", "bincount"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class MixedDevicesError(RuntimeError):
    """What PyTorch would say of tensors that lie on different devices."""


class PretendedGPU(TorchDispatchMode):
    """Sees every operation. `blocking`: a line for each wait: file:line, function, what."""

    def __init__(self) -> None:
        super().__init__()
        self.blocking: list[str] = []
        self._on_gpu: dict[int, StorageWeakRef] = {}  # a weak reference keeps the address from being used again
        self._named: torch.device | None = None  # by the PyTorch function that is running
        self._usual = CPU  # where that function makes a tensor from nothing

    def place(self, x: Tensor) -> torch.device:
        with torch._C.DisableTorchFunction():
            return GPU if x.untyped_storage()._cdata in self._on_gpu else CPU

    def place_new(self, results: Any, inputs: list[Tensor], device: torch.device) -> None:
        """Results that do not share their memory with an input lie on `device`."""
        with torch._C.DisableTorchFunction():
            known = {x.untyped_storage()._cdata for x in inputs}
            for x in tensors(results) if device == GPU else []:
                if x.untyped_storage()._cdata not in known:
                    reference = StorageWeakRef(x.untyped_storage())
                    self._on_gpu[reference.cdata] = reference

    def note(self, what: str) -> None:
        """Remembers a wait, and the innermost line of this project that leads to it."""
        for frame, line in traceback.walk_stack(sys._getframe()):
            path = Path(frame.f_code.co_filename)
            if ROOT in path.parents and path != Path(__file__) and "site-packages" not in path.parts:
                self.blocking.append(f"{path.relative_to(ROOT)}:{line} {frame.f_code.co_name}: {what}")
                return

    @contextmanager
    def running(self, named: torch.device | None, usual: torch.device) -> Iterator[None]:
        before, (self._named, self._usual) = (self._named, self._usual), (named, usual)
        try:
            yield
        finally:
            self._named, self._usual = before

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func._can_decompose():  # in inference mode whole functions come here
            with self:
                return func.decompose(*args, **kwargs)
        inputs = tensors((args, kwargs))
        places = {self.place(x) for x in inputs}
        self._judge(func, func.overloadpacket.__name__, inputs, args, kwargs)
        results = func(*args, **kwargs)
        inherited = GPU if GPU in places else CPU if places else self._usual
        self.place_new(results, inputs, self._named or inherited)
        return results

    def _judge(self, func: Any, name: str, inputs: list[Tensor], args: tuple, kwargs: dict) -> None:
        """Raises, notes, or lets pass an operation that has to do with the GPU."""
        on_cpu = [x for x in inputs if self.place(x) == CPU]
        if name in ("copy_", "_to_copy"):
            source = self.place(args[1] if name == "copy_" else args[0])
            target = self.place(args[0]) if name == "copy_" else self._named or source
            if source != target and not (kwargs.get("non_blocking") or args[2:3] == (True,)):
                self.note(f"copy from {source.type} to {target.type}: not non_blocking")
        elif name in INDEXING and self.place(args[0]) == GPU:
            self._judge_indices(name, *args[1:3])
        elif name in READS and self.place(args[0]) == GPU:
            self.note(f"{name} waits for the GPU")
        elif 0 < len(on_cpu) < len(inputs):
            elementwise = torch.Tag.pointwise in func.tags or name in ELEMENTWISE
            changed = [x for x, like in zip(args, func._schema.arguments, strict=False) if like.is_write]
            if not elementwise or any(x.ndim for x in on_cpu) or any(self.place(x) == CPU for x in changed):
                places = ", ".join(f"{self.place(x).type} {tuple(x.shape)}" for x in inputs)
                raise MixedDevicesError(f"{func}: tensors on different devices: {places}")

    def _judge_indices(self, name: str, indices: list[Tensor | None], value: Tensor | None = None) -> None:
        value_on_cpu = value is not None and self.place(value) == CPU
        if value is not None and value_on_cpu and value.ndim:
            raise MixedDevicesError(f"{name}: the value is on the cpu, {tuple(value.shape)}, the tensor on cuda")
        for index in (x for x in indices if x is not None):
            if self.place(index) == CPU:
                self.note(f"{name}: an index on the cpu is copied to cuda")
            elif index.dtype in (torch.bool, torch.uint8):
                if not value_on_cpu:  # a number fills the mask
                    self.note(f"{name}: a mask as index waits for the GPU")
            elif value_on_cpu:
                self.note(f"{name}: a value on the cpu is copied to cuda")


class _Functions(TorchFunctionMode):
    """Answers for the device, and takes "cuda" out of the arguments, which the CPU does the work of."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        gpu, kwargs, name = self.gpu, dict(kwargs or {}), getattr(func, "__name__", "")
        inputs = tensors((args, kwargs))
        places = [gpu.place(x) for x in inputs]
        if func == Tensor.device.__get__:
            return places[0]
        if func in (IS_CUDA, IS_CPU):
            return (places[0] == GPU) == (func == IS_CUDA)
        if func in (Tensor.numpy, Tensor.__array__, Tensor.pin_memory) and GPU in places:
            raise MixedDevicesError(f"{name} of a tensor on cuda")
        if func is Tensor.pin_memory:
            return args[0].clone()
        if func is Tensor.tolist and GPU in places:
            gpu.note("tolist waits for the GPU")
        if func in (Tensor.cpu, Tensor.cuda):
            func, args = Tensor.to, (args[0], CPU if func is Tensor.cpu else GPU)
        if func is torch._C._nn._parse_to:  # of Module.to, which sends the tensors one by one
            return func(*args, **kwargs)
        named = next(filter(None, map(device_of, (*args, *kwargs.values()))), None)
        if func is Tensor.to:
            named = named or (places[1] if len(places) > 1 else None)
            kwargs["copy"] = kwargs.get("copy", False) or (named or places[0]) != places[0]
        if named == GPU and any(isinstance(x, torch.Generator) for x in kwargs.values()):
            raise MixedDevicesError(f"{name}: a generator of the cpu for a tensor on cuda")
        args = tuple(CPU if device_of(x) else x for x in args)
        kwargs = {key: CPU if device_of(x) else x for key, x in kwargs.items()}
        with gpu.running(named, GPU if GPU in places else CPU):
            results = func(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and named == GPU and GPU not in places:
            gpu.note(f"torch.{name} copies from cpu to cuda")
        gpu.place_new(results, inputs, named or CPU)
        return results


@contextmanager
def pretended_gpu() -> Iterator[PretendedGPU]:
    """Within it "cuda" can be used."""
    gpu = PretendedGPU()
    with _Functions(gpu), gpu:
        yield gpu


def tensors(nested: Any) -> list[Tensor]:
    """All tensors of arguments or results."""
    if isinstance(nested, Tensor):
        return [nested]
    inner = nested.values() if isinstance(nested, dict) else nested if isinstance(nested, (list, tuple)) else ()
    return [x for each in inner for x in tensors(each)]


def device_of(argument: Any) -> torch.device | None:
    """The device that an argument of a PyTorch function names."""
    if isinstance(argument, str) and argument.partition(":")[0] in ("cpu", "cuda"):
        argument = torch.device(argument)
    return {"cpu": CPU, "cuda": GPU}.get(argument.type) if isinstance(argument, torch.device) else None
