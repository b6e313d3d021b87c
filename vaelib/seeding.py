"""Chance: torch's global generators, from a seed, for one thread at a time.

Distributions, dropout and whatever else a model draws from take their noise from torch's global generators. So these
are seeded for a training or an evaluation, and are afterwards as they were; and no two threads use them at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

_TURN = RLock()


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Start the generators of the CPU and of that device from a seed; put back their states at the end of the block.

    A thread that comes to such a block while another is in one waits until it has left: use processes to train several
    models at once.
    """
    device = torch.device(device)
    with _TURN, torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        # torch.manual_seed is for all devices, also those whose states nobody has kept here
        (torch.default_generator if device.type == "cpu" else torch).manual_seed(seed)
        yield


def state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the generators that `seeded` seeds."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def restore(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Go on from states that `state` gave."""
    torch.set_rng_state(states["cpu"].cpu())
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[device.type].cpu(), device)
