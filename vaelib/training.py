"""One training loop for every model: it can be stopped at any moment, and goes on as if it had not been."""

import hashlib
import io
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from . import evaluation, files
from .data import Dataset, to_float
from .models import VAE

REMEDY = "try a smaller learning_rate, and look at the data"
CHECK_EVERY = 50  # steps between looks at the loss: each look makes a GPU wait


@dataclass(frozen=True)
class Settings:
    """What one training depends on besides the data. The defaults are the paper's.

    Raises
    ------
    ValueError
        If a value is of the wrong type or out of range.
    """

    latent_dim: int
    epochs: int = 10
    seed: int = 0
    batch_size: int = 128
    learning_rate: float = 1e-3

    def __post_init__(self):
        for name, least in (("latent_dim", 1), ("epochs", 1), ("seed", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        if self.seed >= 2**31:  # beyond, torch's generators repeat themselves
            raise ValueError(f"seed must be below 2**31, not {self.seed}")
        rate = self.learning_rate
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate < math.inf:
            raise ValueError(f"learning_rate must be a positive number, not {rate!r}")


def fit(model: VAE, data: Dataset, settings: Settings, folder: Path, checkpoint_seconds: float = 10) -> list[dict]:
    """Maximise the mean ELBO with Adam; float32 on the CPU, bfloat16 matrix products on a GPU.

    If the folder holds a checkpoint, training goes on from it, and on the CPU (with the same number of threads) ends
    bit for bit where an uninterrupted one would have ended: weights, optimizer, random states, order of batches.

    Parameters
    ----------
    model : VAE, on the device to train on; trained in place
    data : Dataset; all of its training images go to that device, as uint8
    settings : Settings
    folder : gets `metrics.jsonl`, a line an epoch, and `checkpoint`; its name stands before the progress bar
    checkpoint_seconds : time between checkpoints: about as much work as a killed process loses

    Returns
    -------
    list of dict, one an epoch, as in `metrics.jsonl`: its number, ELBO, reconstruction term and KL (nats per image) on
    train (averaged over the epoch, while the weights moved) and test (after it), and the seconds it took

    Raises
    ------
    FloatingPointError
        If the loss stops being finite; names the epoch and the step. The checkpoint stays as it last was.
    ValueError
        If the checkpoint is damaged, or of a training on another kind of device.
    """
    device, checkpoint = model.device, folder / "checkpoint"
    images = data.train.images.to(device)
    steps = math.ceil(len(images) / settings.batch_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    shuffle = torch.Generator().manual_seed(2 * settings.seed)  # two streams of random numbers
    noise = torch.Generator(device).manual_seed(2 * settings.seed + 1)
    totals = torch.zeros(2, dtype=torch.float64, device=device)  # sums over this epoch's images of both ELBO terms
    first_step, seconds, history = 0, 0.0, []

    if checkpoint.exists():
        state = _read(checkpoint, device)
        if state["device"] != device.type:  # their random numbers differ
            raise ValueError(
                f"{checkpoint} is of a training on {state['device']}, not {device.type}; go on there, or delete it"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        shuffle.set_state(state["shuffle"].cpu())
        noise.set_state(state["noise"].cpu())
        totals = state["totals"]
        first_step, seconds, history = state["step"], state["seconds"], state["history"]

    done = len(history) * steps + first_step
    saved = time.monotonic()
    with tqdm(total=settings.epochs * steps, initial=done, desc=folder.name, unit="step") as bar:
        for epoch in range(len(history) + 1, settings.epochs + 1):
            shuffle_state = shuffle.get_state()
            order = torch.randperm(len(images), generator=shuffle).to(device)
            model.train()
            losses: list[Tensor] = []
            started = time.monotonic() - seconds
            for step in range(first_step, steps):
                batch = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                x = to_float(images[batch])
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    reconstruction, kl = model.elbo(x, noise)
                loss = (kl - reconstruction).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                totals += torch.stack([reconstruction.detach().sum(), kl.detach().sum()])
                if len(losses) == CHECK_EVERY or step + 1 == steps:
                    _check_finite(torch.stack(losses), epoch, step + 1)
                    bar.update(len(losses))
                    bar.set_postfix({"epoch": epoch, "loss": f"{losses[-1].item():.2f}"})
                    losses.clear()
                    if time.monotonic() - saved >= checkpoint_seconds:
                        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                        state |= {"shuffle": shuffle_state, "noise": noise.get_state(), "totals": totals}
                        state |= {
                            "device": device.type,
                            "step": step + 1,
                            "seconds": time.monotonic() - started,
                            "history": history,
                        }
                        _write(checkpoint, state)
                        saved = time.monotonic()
            test_reconstruction, test_kl = (terms.mean().item() for terms in evaluation.elbo(model, data.test.images))
            if not math.isfinite(test_reconstruction - test_kl):  # the last step may have done it
                raise FloatingPointError(f"the test ELBO is not finite after epoch {epoch}, step {steps}; {REMEDY}")
            train_reconstruction, train_kl = (totals / len(images)).tolist()
            history.append(
                {
                    "epoch": epoch,
                    "train_elbo": train_reconstruction - train_kl,
                    "train_reconstruction": train_reconstruction,
                    "train_kl": train_kl,
                    "test_elbo": test_reconstruction - test_kl,
                    "test_reconstruction": test_reconstruction,
                    "test_kl": test_kl,
                    "seconds": round(time.monotonic() - started, 3),
                }
            )
            files.write(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in history))
            first_step, seconds = 0, 0.0
            totals.zero_()
    model.eval()
    return history


def _check_finite(losses: Tensor, epoch: int, last_step: int) -> None:
    """Raise for the first of these consecutive losses that is not finite."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step = last_step - len(losses) + 1 + int(bad[0])
        raise FloatingPointError(f"the loss is {losses[bad[0]].item()} at epoch {epoch}, step {step}; {REMEDY}")


def _write(path: Path, state: dict) -> None:
    """A checkpoint is its SHA-256 sum (32 bytes), then what torch.save makes of the state."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files.write(path, hashlib.sha256(buffer.getbuffer()).digest() + buffer.getvalue())


def _read(path: Path, device: torch.device) -> dict:
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise ValueError(f"{path} is damaged: its checksum does not match; delete it to start this training over")
    return torch.load(io.BytesIO(content[32:]), map_location=device, weights_only=True)
