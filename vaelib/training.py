"""One training loop for every model: it can be stopped at any moment, and goes on as if it had not been."""

import hashlib
import io
import json
import math
import operator
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from . import evaluation, files, progress, seeding
from .data import Dataset, to_float
from .models import VAE, layout, original
from .naming import described
from .objective import negative_elbo

REMEDY = "try a smaller learning_rate, and look at the data"
CHECK_EVERY = 50  # steps between looks at the loss, which make a GPU wait; or a second, if they take longer


@dataclass(frozen=True)
class Settings:
    """What one training depends on besides the data and the functions it is made of. The defaults are the paper's.

    `precision`, of matrix products and convolutions in training, is "float32" or "bfloat16"; if not given, it is
    bfloat16 on NVIDIA's GPUs, else float32. Sums over pixels, weights and the evaluation are always float32.

    `block` is for data that do not fit into the device's memory, or the machine's: a multiple of the batch size, of
    images that lie beside each other in the data. One such block is read while the device works on another, so it needs
    memory for two. Blocks come in an order of chance, and so do the images in each; if it is not given, or there are no
    more images than that, all lie on the device, and come in one order. As a batch is of one block, images that lie
    near each other must not be alike: where they are sorted by class, or lie together by who wrote them, a batch has
    little of their variety, and the training ends clearly worse. Shuffle such data before.

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
    precision: str | None = None
    block: int | None = None

    def __post_init__(self):
        for name, least in (("latent_dim", 1), ("epochs", 1), ("seed", 0), ("batch_size", 1), ("block", 1)):
            value = getattr(self, name)
            if name == "block" and value is None:
                continue
            if not hasattr(value, "__index__") or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
            object.__setattr__(self, name, operator.index(value))  # NumPy has whole numbers of its own
        if self.seed >= 2**31:  # beyond, torch's generators repeat themselves
            raise ValueError(f"seed must be below 2**31, not {self.seed}")
        rate = self.learning_rate
        if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 < rate < math.inf:
            raise ValueError(f"learning_rate must be a positive number, not {rate!r}")
        object.__setattr__(self, "learning_rate", float(rate))
        if self.block and self.block % self.batch_size:
            raise ValueError(f"block must be a multiple of the batch size, {self.batch_size}, not {self.block}")
        if self.precision not in (None, "float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', if it is given, not {self.precision!r}")


def fit(
    model: VAE,
    data: Dataset,
    settings: Settings,
    folder: Path | str,
    objective: Callable[[nn.Module, Tensor, float], tuple[Tensor, Tensor, Tensor]] = negative_elbo,
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    on_epoch: Callable[[VAE, dict], None] | None = None,
    checkpoint_seconds: float = 10,
) -> list[dict]:
    """Minimise the objective, the negative ELBO, with Adam, in the precision that the settings say.

    If the folder holds a checkpoint, training goes on from it, and on the CPU (with the same number of threads) ends
    bit for bit where an uninterrupted one would have ended: weights, optimizer, random states, order of batches.

    Parameters
    ----------
    model : VAE, on the device to train on; trained in place. After a training in bfloat16 its convolutions' weights lie
        in another order in memory, channels last
    data : Dataset; all of its training images go to that device, as uint8, or `settings.block` of them at a time
    settings : Settings
    folder : made if need be; gets `metrics.jsonl`, a line an epoch, and `checkpoint`; names the progress bar
    objective : what is minimised: see `objective.negative_elbo`
    schedule : makes one of torch's learning-rate schedules of the optimizer; it takes a step after each epoch
    on_epoch : called with the model, in evaluation mode, and the epoch's line of metrics; again for an epoch that is
        done again
    checkpoint_seconds : time between checkpoints: about as much work as a stopped or killed process loses

    Returns
    -------
    list of dict, one an epoch, as in `metrics.jsonl`: its number, ELBO, reconstruction term and KL (nats per image) on
    train (averaged over the epoch, while the weights moved) and test (after it), and the seconds it took

    Raises
    ------
    FloatingPointError
        If the loss stops being finite; names the epoch and the step. The checkpoint stays as it last was.
    ValueError
        If the model's parts do not fit each other (see `VAE.check`), the objective or the schedule is of another kind,
        the checkpoint is damaged, or of another training, or batches of one image meet batch norm.
    """
    check(model, objective, schedule)
    folder = Path(folder)
    device, checkpoint = model.device, folder / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    images = _Images(data.train.images, settings, device)
    size, steps = settings.batch_size, images.steps
    if min(size, len(data.train)) == 1 and any(isinstance(part, _BatchNorm) for part in model.modules()):
        raise ValueError("batch norm needs batches of two images or more: make batch_size larger, or take more images")
    identity = asdict(settings) | {"data": data.fingerprint, "device": device.type}
    identity |= {"objective": described(objective), "schedule": schedule and described(schedule)}
    identity |= {"model": hashlib.sha256(repr(layout(model)).encode()).hexdigest()[:16]}
    mixed = (settings.precision or ("bfloat16" if device.type == "cuda" else "float32")) == "bfloat16"
    if mixed:  # in this order convolutions in bfloat16 work; they would turn all that they are given into it, and back
        model.to(memory_format=torch.channels_last)
    state = _State(model, settings, schedule, identity)
    with seeding.seeded(2 * settings.seed + 1, device):  # the noise; the order of the batches has another stream
        if checkpoint.exists():
            state.read(checkpoint)
        saved, done = time.monotonic(), len(state.history) * steps + state.step
        with progress.bar(total=settings.epochs * steps, initial=done, desc=folder.name, unit="step") as bar:
            while len(state.history) < settings.epochs:
                epoch, started = len(state.history) + 1, time.monotonic() - state.seconds
                parts = images.epoch(state.shuffle, state.step)
                for count, loss in _train(model, parts, steps, state, objective, settings.epochs, mixed):
                    bar.update(count)
                    bar.set_postfix({"epoch": epoch, "loss": f"{loss:.2f}"})
                    if time.monotonic() - saved >= checkpoint_seconds:
                        saved = time.monotonic()
                        state.write(checkpoint, seconds=saved - started)
                line = {"epoch": epoch} | _terms("train", *(total / len(data.train) for total in state.totals))
                line |= _terms("test", *(each.mean().item() for each in evaluation.elbo(model, data.test.images)))
                if not math.isfinite(line["test_elbo"]):  # the last step may have done it
                    raise FloatingPointError(f"the test ELBO is not finite after epoch {epoch}, step {steps}; {REMEDY}")
                state.end_epoch(line | {"seconds": round(time.monotonic() - started, 3)})
                files.write(folder / "metrics.jsonl", "".join(json.dumps(each) + "\n" for each in state.history))
                if on_epoch:
                    with seeding.seeded(0, device):  # what it draws changes nothing here, nor does what batch norm sees
                        on_epoch(model.eval(), state.history[-1])
    model.eval()
    return state.history


def check(model: VAE, objective: Callable, schedule: Callable[[Optimizer], LRScheduler] | None) -> None:
    """Make sure, before anything is written, that what a training is made of is of the kinds that `fit` asks for.

    Raises
    ------
    ValueError
        If the model's parts do not fit each other, the objective is a class, or the schedule is not one by epochs.
    """
    original(model).check()
    if isinstance(objective, type):
        raise ValueError(f"the objective is a class; give an instance of it: {objective.__name__}(...)")
    made = schedule(torch.optim.Adam(model.parameters())) if schedule else None
    if not isinstance(made, LRScheduler | None) or isinstance(made, ReduceLROnPlateau):
        raise ValueError(f"expected a schedule of torch's that goes by epochs, not {type(made).__name__}")


def batches(order: Tensor, size: int) -> list[Tensor]:
    """An epoch's images, in batches. A single one that is left, too few for batch norm, joins the batch before it."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1 < size:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


class _Images:
    """The training images on the device: all of them, or block after block."""

    def __init__(self, images: Tensor, settings: Settings, device: torch.device):
        self.size, self.device = settings.batch_size, device
        self.pinned = device.type == "cuda"  # from such memory a copy to the GPU makes nobody wait
        self.blocks = batches(torch.arange(len(images)), settings.block or len(images))
        self.images = images.to(device) if len(self.blocks) == 1 else images
        self.steps = sum(len(batches(block, self.size)) for block in self.blocks)

    def epoch(self, shuffle: torch.Generator, done: int) -> Iterator[Tensor]:
        """An epoch's batches, uint8, in an order of chance, without so many that are done."""
        blocks = [self.blocks[number] for number in torch.randperm(len(self.blocks), generator=shuffle)]
        orders = [block[torch.randperm(len(block), generator=shuffle)] for block in blocks]
        if len(orders) == 1:
            order = orders[0].to(self.device)  # index_select copies whole images; [...] would go byte by byte
            yield from (self.images.index_select(0, batch) for batch in batches(order, self.size)[done:])
            return
        while orders and done >= (steps := len(batches(orders[0], self.size))):  # need not be read again
            orders, done = orders[1:], done - steps
        with ThreadPoolExecutor(1) as reader:
            reading = (reader.submit(self._read, order) for order in orders)  # each as it is asked for
            following = next(reading, None)
            while following:
                block = following.result().to(self.device, non_blocking=self.pinned)
                following = next(reading, None)  # is read while the device works on this one
                yield from batches(block, self.size)[done:]
                done = 0

    def _read(self, order: Tensor) -> Tensor:
        images = self.images.index_select(0, order)
        return images.pin_memory() if self.pinned else images


class _State:
    """All that a checkpoint holds: weights, optimizer, random states, and how far the training has come."""

    def __init__(self, model: VAE, settings: Settings, schedule: Callable | None, identity: dict):
        self.model, self.identity = original(model), identity
        self.optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
        self.schedule = schedule(self.optimizer) if schedule else None
        self.shuffle = torch.Generator().manual_seed(2 * settings.seed)
        self.history: list[dict] = []
        self._start_epoch()

    def _start_epoch(self) -> None:
        self.step, self.seconds = 0, 0.0
        self.totals = [0.0, 0.0]  # of both terms, over this epoch's images so far
        self.before_shuffling = self.shuffle.get_state()

    def end_epoch(self, line: dict) -> None:
        self.history.append(line)
        if self.schedule:
            self.schedule.step()
        self._start_epoch()

    def write(self, path: Path, seconds: float) -> None:
        """A checkpoint is its SHA-256 sum (32 bytes), then what torch.save makes of the state."""
        state = {"identity": self.identity, "step": self.step, "seconds": seconds, "totals": self.totals}
        state |= {"history": self.history, "shuffle": self.before_shuffling, "noise": seeding.state(self.model.device)}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"schedule": self.schedule.state_dict() if self.schedule else None}
        torch.save(state, buffer := io.BytesIO())
        files.write(path, hashlib.sha256(buffer.getbuffer()).digest() + buffer.getvalue())

    def read(self, path: Path) -> None:
        """Go on from a checkpoint of the same training; nothing that the file says is executed."""
        content, device, advice = path.read_bytes(), self.model.device, "delete it to start this training over"
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError(f"{path} is damaged: its checksum does not match; {advice}")
        state = torch.load(io.BytesIO(content[32:]), map_location=device, weights_only=True)
        for key, wanted in self.identity.items():
            if (found := state.get("identity", {}).get(key)) != wanted:
                raise ValueError(f"{path} is of a training with {key} {found!r}, not {wanted!r}; {advice}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for weight, kept in self.optimizer.state.items():  # fused Adam does not look whether they lie in one order
            kept |= {name: torch.empty_like(weight).copy_(kept[name]) for name in ("exp_avg", "exp_avg_sq")}
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.shuffle.set_state(state["shuffle"].cpu())
        seeding.restore(state["noise"], device)
        self.before_shuffling = self.shuffle.get_state()
        self.step, self.seconds, self.totals, self.history = (
            state[key] for key in ("step", "seconds", "totals", "history")
        )


def _train(
    model: VAE, parts: Iterator[Tensor], steps: int, state: _State, objective: Callable, epochs: int, mixed: bool
) -> Iterator[tuple[int, float]]:
    """Do the epoch's steps from the state's on; gives, at each look at the loss, the steps since the last, and it."""
    model.train()
    pending, looked = [], time.monotonic()
    for part in parts:
        x = to_float(part)
        fraction = (len(state.history) + state.step / steps) / epochs
        with torch.autocast(x.device.type, torch.bfloat16, enabled=mixed):
            losses, *terms = _checked(objective(model, x, fraction), objective, len(x))
        loss = losses.mean()
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        state.step += 1
        pending.append(torch.stack([loss.detach(), *(term.detach().sum() for term in terms)]))
        if len(pending) == CHECK_EVERY or state.step == steps or time.monotonic() - looked > 1:
            values = torch.stack(pending).tolist()
            _check_finite([loss for loss, *_ in values], len(state.history) + 1, state.step)
            for _, *sums in values:  # in double precision, as Python's numbers are
                state.totals = [total + each for total, each in zip(state.totals, sums, strict=True)]
            yield len(pending), values[-1][0]
            pending, looked = [], time.monotonic()


def _checked(values: object, objective: Callable, count: int) -> tuple[Tensor, ...]:
    if not isinstance(values, tuple) or [getattr(each, "shape", None) for each in values] != 3 * [(count,)]:
        found = [getattr(each, "shape", each) for each in (values if isinstance(values, tuple) else [values])]
        raise ValueError(
            f"{described(objective)} must return loss, reconstruction and KL, one value each for an image, "
            f"as three tensors of shape ({count},), not {', '.join(str(each) for each in found)}"
        )
    return values


def _terms(split: str, reconstruction: float, kl: float) -> dict[str, float]:
    return {f"{split}_elbo": reconstruction - kl, f"{split}_reconstruction": reconstruction, f"{split}_kl": kl}


def _check_finite(losses: list[float], epoch: int, last_step: int) -> None:
    """Raise for the first of these consecutive losses that is not finite."""
    for step, loss in enumerate(losses, last_step - len(losses) + 1):
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at epoch {epoch}, step {step}; {REMEDY}")
