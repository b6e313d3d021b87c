"""A GPU that is not there: tensors that say they are on one, whose numbers the CPU computes.

Torch asks a real GPU the same things in the same order, so these show, without one, what would go wrong there: tensors
of two devices in one operation, float64 on Apple's, a generator that a checkpoint forgets; and when a program waits.
"""

from collections import Counter
from contextlib import nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")  # besides copies


class OnGPU(torch.Tensor):
    """A tensor of the pretended GPU; `numbers` has its numbers. For C++ it is one without any, on the device "meta"."""

    kind = "cuda"
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real):
        make = torch.Tensor._make_wrapper_subclass
        return make(cls, real.shape, strides=real.stride(), dtype=real.dtype, device="meta")

    def __init__(self, real):
        self.numbers = real

    @property
    def device(self):
        return torch.device(self.kind, 0)

    def tolist(self):
        return self.cpu().tolist()

    def __reduce_ex__(self, protocol):
        return self.numbers.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} is given a tensor of the pretended GPU after the end of the pretence")


class PretendedGPU(TorchDispatchMode):
    """Within this block there is a GPU of that kind, with a generator of its own.

    `waits` counts what makes the program wait for the GPU, and `copies` what goes to it.
    """

    def __init__(self, kind, monkeypatch):
        super().__init__()
        self.kind, self.waits, self.copies = kind, Counter(), Counter()
        self.device, self.generator = torch.device(kind, 0), torch.Generator()  # without a number, torch would look
        generator = self.generator
        monkeypatch.setattr(OnGPU, "kind", kind)
        module, load = getattr(torch, kind), torch.load
        monkeypatch.setattr(module, "get_rng_state", lambda device: generator.get_state())
        monkeypatch.setattr(module, "set_rng_state", lambda state, device: generator.set_state(state))
        monkeypatch.setattr(module, "manual_seed", generator.manual_seed)
        monkeypatch.setattr(module, "is_available", lambda: True)
        monkeypatch.setattr(torch, "load", lambda *args, map_location=None, **rest: self._put(load(*args, **rest)))
        if kind == "cuda":
            monkeypatch.setattr(module, "_lazy_init", lambda: None)
            monkeypatch.setattr(module, "device", lambda device: nullcontext())
            monkeypatch.setattr(module, "is_current_stream_capturing", lambda: False)
            monkeypatch.setattr(module, "get_device_name", lambda device: "pretended")
            monkeypatch.setattr(module, "is_bf16_supported", lambda *_, **__: True)

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor asks for its copy to the GPU like everybody else
        return super().__enter__()

    def __exit__(self, *exception):
        torch._C._set_only_lift_cpu_tensors(False)
        return super().__exit__(*exception)

    def _put(self, tree):
        return tree_map_only(torch.Tensor, OnGPU, tree)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), func.overloadpacket.__name__
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        here = [each for each in given if isinstance(each, OnGPU)]
        there = kwargs.get("device")
        to_gpu = bool(here) if there is None else torch.device(there).type in (self.kind, "meta")
        if here and name in WAITS:
            self.waits[name] += 1
        elif (here and not to_gpu) or (name == "copy_" and len(here) == 1 and here[0] is args[1]):
            self.waits["copy to the CPU"] += 1
        elif (given and not here and to_gpu) or (name == "copy_" and len(here) == 1):
            self.copies[name] += 1
        elif here and (strangers := [each for each in given if not isinstance(each, OnGPU) and each.ndim]):
            raise RuntimeError(f"{func} is given tensors of the GPU and of the CPU, of shape {strangers[0].shape}")
        if to_gpu and there is not None:
            kwargs["device"] = "cpu"
        args, kwargs = tree_map_only(OnGPU, lambda each: each.numbers, (args, kwargs))
        if to_gpu and torch.Tag.nondeterministic_seeded in func.tags:
            with torch.random.fork_rng([]):
                torch.set_rng_state(self.generator.get_state())
                result = func(*args, **kwargs)
                self.generator.set_state(torch.get_rng_state())
        else:
            result = func(*args, **kwargs)
        wrapped = {id(each.numbers): each for each in here}  # what is changed in place stays the same tensor

        def wrap(each):
            if not isinstance(each, torch.Tensor) or not (to_gpu or id(each) in wrapped):
                return each
            if self.kind == "mps" and each.dtype == torch.float64:
                raise TypeError(f"{func} gives float64, which Apple's GPUs do not have")
            return wrapped[id(each)] if id(each) in wrapped else OnGPU(each)

        return tree_map(wrap, result)
