"""Seeding of torch's global random number generators, for one thread at a time.

Distributions, dropout and other random parts of a model draw from torch's global generators. We seed these for a
training run or an evaluation, and restore their states at the end. Only one thread of this package uses them at a
time. If a thread of your own draws from them in the meantime, for example for a live plot, it changes the run. Give it
its own `torch.Generator`, or use a process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

from .objective import whole_number

_LOCK = RLock()


def _renew_lock() -> None:
    """Replace the lock in a forked child, because another thread may have held it during the fork."""
    global _LOCK
    _LOCK = RLock()


if hasattr(os, "register_at_fork"):  # Windows doesn't fork
    os.register_at_fork(after_in_child=_renew_lock)

States = dict[str, torch.Tensor]


@contextmanager
def seeded(seed: int | States, device: torch.device | str = "cpu") -> Iterator[States]:
    """Seed the generators of the CPU and of a device, and restore their states at the end of the block.

    While a thread is in such a block, other threads wait. Use processes to train several models at once.

    Parameters
    ----------
    seed : a seed, or the states at the end of an earlier block
    device : whose generator is seeded in addition to the CPU's; other devices are left unchanged

    Yields
    ------
    A dict that contains the generators' states after the block
    """
    device = torch.device(device)
    with _LOCK, torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        if isinstance(seed, dict):
            torch.set_rng_state(seed["cpu"].cpu())
            if device.type != "cpu":
                torch.get_device_module(device).set_rng_state(seed[device.type].cpu(), device)
        else:
            _start(whole_number("seed", seed, least=0), device)
        after: States = {}
        try:
            yield after
        finally:
            after.update(state(device))


def _start(seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type != "cpu":
        module = torch.get_device_module(device)
        with module.device(device):
            module.manual_seed(seed)


def state(device: torch.device) -> States:
    """Return the states of the generators that `seeded` seeds."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states
