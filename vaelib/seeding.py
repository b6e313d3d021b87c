"""Seeded randomness: torch's global generators, for one thread at a time.

Distributions, dropout and whatever else a model draws from take their noise from torch's global generators. These are
seeded for a training run or an evaluation, and put back afterwards; no two threads of this package use them at the same
time. A thread of your own that draws from them meanwhile, as for a live plot, changes the run: give it a
`torch.Generator` of its own, or use a process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

from .objective import whole_number

_LOCK = RLock()


def _renew_lock() -> None:
    """In a forked child: another thread may have held the lock when the process forked, and the child lacks it."""
    global _LOCK
    _LOCK = RLock()


if hasattr(os, "register_at_fork"):  # Windows doesn't fork
    os.register_at_fork(after_in_child=_renew_lock)

States = dict[str, torch.Tensor]


@contextmanager
def seeded(seed: int | States, device: torch.device | str = "cpu") -> Iterator[States]:
    """Start the generators of the CPU and of that device from a seed; put back their states at the end of the block.

    A thread that reaches such a block while another is in one waits until that one has left: use processes to train
    several models at once.

    Parameters
    ----------
    seed : a seed, or the states that an earlier block ended with
    device : whose generator is seeded besides the CPU's; other devices' are left alone

    Yields
    ------
    A dict that has the generators' states when the block has ended.
    """
    device = torch.device(device)
    with _LOCK, torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        if isinstance(seed, dict):
            _restore(seed, device)
        else:
            _start(whole_number("seed", seed, least=0), device)
        after: States = {}
        try:
            yield after
        finally:
            after.update(state(device))


def _start(seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU there is
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type != "cpu":
        module = torch.get_device_module(device)
        with module.device(device):
            module.manual_seed(seed)


def _restore(states: States, device: torch.device) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type].cpu(), device)


def state(device: torch.device) -> States:
    """The states of the generators that `seeded` seeds."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states
