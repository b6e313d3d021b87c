"""One training loop for every model: it can be stopped at any moment, and resumes as if it had not been."""

import hashlib
import io
import json
import math
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from numbers import Number, Real
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from . import evaluation, files, naming, progress, seeding
from .checks import check_run
from .data import Dataset, Split, to_float
from .models import VAE, unwrap
from .objective import Terms, negative_elbo, options, positive_number, whole_number
from .storage import architecture

Objective = Callable[[Terms, float], Tensor]
Schedule = Callable[[Optimizer], LRScheduler]
adam = partial(torch.optim.Adam, fused=True)

ADVICE = "try a smaller learning_rate, or a max_grad_norm, and inspect the data"
CHECK_EVERY = 50  # steps between readings of the loss, which make a GPU wait; or a second, if they take longer


@dataclass(frozen=True)
class TrainConfig:
    """What a training run depends on besides the data and the functions it is made of. The defaults are the paper's.

    Parameters
    ----------
    latent_dim : K
    epochs : passes over the training images; with `patience`, at most
    seed : of initial weights, order of images, and noise
    batch_size : images in a step
    learning_rate : Adam's, or of another optimizer
    precision : of matrix products and convolutions in training, "float32" or "bfloat16"; by default bfloat16 on GPUs of
        NVIDIA that have it, else float32. Samples, sums, weights and the evaluation are in float32, or in float64 if
        the model is
    max_grad_norm : the gradient is scaled down to this norm if it is larger
    patience : training stops when the ELBO of `Dataset.validation` has not improved for so many epochs, and the weights
        are then those of the best epoch

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
    max_grad_norm: float | None = None
    patience: int | None = None

    def __post_init__(self):
        given = {each.name for each in fields(self) if each.default is not None or getattr(self, each.name) is not None}
        for name, least in {"latent_dim": 1, "epochs": 1, "seed": 0, "batch_size": 1, "patience": 1}.items():
            if name in given:
                object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        if self.seed >= 2**31:  # beyond, torch's generators repeat themselves
            raise ValueError(f"seed must be below 2**31, not {self.seed}")
        for name in given & {"learning_rate", "max_grad_norm"}:
            object.__setattr__(self, name, positive_number(name, getattr(self, name)))
        if self.precision not in (None, "float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', if it is given, not {self.precision!r}")


def fit(
    model: VAE,
    data: Dataset,
    config: TrainConfig,
    folder: Path | str,
    objective: Objective | type[nn.Module] = negative_elbo,
    schedule: Schedule | None = None,
    on_epoch: Callable[[VAE, dict], None] | None = None,
    checkpoint_seconds: float = 10,
    optimizer: Callable[..., Optimizer] = adam,
    meaning: str | None = None,
    stream: bool = False,
) -> list[dict]:
    """Minimise the objective, by default the negative ELBO with Adam.

    If the folder holds a checkpoint, training resumes from it. On the CPU, with the same number of threads, it ends bit
    for bit where an uninterrupted run would have ended: weights, optimizer, random states, order of batches.

    Parameters
    ----------
    model : VAE, on the device to train on; trained in place. After training in bfloat16 the weights of its convolutions
        are in channels-last order
    data : Dataset
    config : TrainConfig
    folder : made if need be; gets `metrics.jsonl`, one line per epoch, and `checkpoint`; names the progress bar. It is
        the caller's: unlike `runs.train`, this does not notice another training in it
    objective : what is minimised, see `objective.negative_elbo`; or, if it has state, a class of modules (or a partial
        of one), whose buffers are in the checkpoint
    schedule : makes one of torch's learning-rate schedules from the optimizer; it takes a step after each epoch
    on_epoch : called with the model, in evaluation mode, and the epoch's line of metrics; called again for an epoch
        that is done again. It must not change the model. If it raises, there is a checkpoint of this epoch. A thread of
        yours that draws from torch's generator meanwhile changes the run: give it a `torch.Generator` of its own
    checkpoint_seconds : time between checkpoints: about as much work as a stopped or killed process loses. It is longer
        if writing a checkpoint takes more than a tenth of it
    optimizer : makes one of torch's optimizers, called as `optimizer(parameters, lr=config.learning_rate)`
    meaning : what stands in a checkpoint for what the functions do; `naming.meaning` if not given
    stream : whether the training images stay where they are, and each batch is copied to the device when it is needed;
        for data that exceed the device's memory. It changes no value

    Returns
    -------
    list of dict, one per epoch, as in `metrics.jsonl`: its number, ELBO, reconstruction term and KL (nats per image) on
    train (averaged over the epoch, while the weights moved) and on test and validation (after it), and its seconds

    Raises
    ------
    FloatingPointError
        If the loss, a recorded term or a weight stops being finite. The checkpoint stays as it last was.
    ValueError
        If `checks.check_run` finds something, on_epoch changes the model, or the checkpoint is damaged, of another run,
        or could not be read again.

    Warns
    -----
    UserWarning
        At the first checkpoint, if something has changed in training that no checkpoint holds.
    """
    if not isinstance(checkpoint_seconds, Real) or not checkpoint_seconds >= 0:  # nor is nan
        raise ValueError(f"checkpoint_seconds must be 0 or more, not {checkpoint_seconds!r}")
    folder, plain, made = Path(folder).absolute(), unwrap(model), make(objective)
    device = plain.device
    mixed, checkpoint, metrics = is_mixed(config, device), folder / "checkpoint", folder / "metrics.jsonl"
    check_run(model, data, config, mixed, made, schedule, optimizer)
    folder.mkdir(parents=True, exist_ok=True)
    if mixed:  # otherwise each bfloat16 convolution transposes its input and output
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = _Images(data.train, config.batch_size, device, plain.conditional, stream)
    functions = {"objective": objective, "schedule": schedule, "optimizer": optimizer}
    meaning = naming.meaning(*functions.values()) if meaning is None else meaning
    record = naming.record(config, {"fingerprint": data.fingerprint}, functions, meaning)
    identity = naming.identity(record) | {"device": device.type}
    state = _State(model, config, made, schedule, optimizer, identity)
    if files.exists(checkpoint):
        state.read(checkpoint)
        state.write_metrics(metrics)  # which may be of a later epoch, or damaged
    saved, writing = time.monotonic(), 0.0
    done = len(state.history) * images.steps + state.step
    with progress.bar(total=config.epochs * images.steps, initial=done, desc=folder.name, unit="step") as bar:
        while not state.is_finished():
            epoch, began = len(state.history) + 1, time.monotonic() - state.seconds
            with seeding.seeded(state.noise, device) as noise:
                model.train()
                pending, read = [], time.monotonic()
                for batch in images.epoch(state.shuffle, state.step):
                    fraction = (epoch - 1 + state.step / images.steps) / config.epochs
                    pending.append(state.take_step(model, batch, fraction, mixed))
                    if len(pending) < CHECK_EVERY and state.step < images.steps and time.monotonic() - read <= 1:
                        continue
                    loss = state.record(torch.stack(pending).tolist())
                    bar.update(len(pending))
                    bar.set_postfix({"epoch": epoch, "loss": f"{loss:.2f}"})
                    if (now := time.monotonic()) - saved >= max(checkpoint_seconds, 10 * writing):
                        state.write(checkpoint, seconds=now - began)
                        saved = time.monotonic()
                        writing = saved - now
                    pending, read = [], time.monotonic()
                state.check_weights()
                line = {"epoch": epoch} | _terms("train", *(total / len(data.train) for total in state.totals))
                for name, split in (("test", data.test), ("validation", data.validation)):
                    if split is not None:
                        terms = evaluation.elbo(plain, split.images, labels=split.labels)
                        line |= _terms(name, *(each.mean().item() for each in terms))
                        state.require(math.isfinite(line[f"{name}_elbo"]), f"the {name} ELBO is not finite")
            state.end_epoch(line | {"seconds": round(time.monotonic() - began, 3)}, noise)
            state.write_metrics(metrics)
            if on_epoch:
                state.show(on_epoch, checkpoint)
    state.restore_best()
    model.eval()
    return state.history


def make(objective: Objective | type[nn.Module]) -> Objective:
    """The objective itself; or, of a class of modules (or a partial of one), a new one in its initial state."""
    maker = objective.func if isinstance(objective, partial) else objective
    return objective() if isinstance(maker, type) and issubclass(maker, nn.Module) else objective  # type: ignore


def is_mixed(config: TrainConfig, device: torch.device) -> bool:
    """Whether to train in mixed precision."""
    if config.precision is None:  # is_bf16_supported() is also true of GPUs that emulate it, many times slower
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return config.precision == "bfloat16"


def batches(order: Tensor, size: int) -> list[Tensor]:
    """An epoch's images, in batches. A single one that is left, too few for batch norm, joins the batch before it."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1 < size:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def best_epoch(history: list[dict]) -> int:
    """The first epoch with the highest ELBO of the validation split, from 1 on."""
    return max(history, key=lambda line: line["validation_elbo"])["epoch"]


class _Images:
    """The training images, and the labels for a conditional model: on the device, or, streamed, where they were."""

    def __init__(self, split: Split, size: int, device: torch.device, conditional: bool, stream: bool):
        tensors = (split.images, split.labels) if conditional else (split.images,)
        self.tensors = tensors if stream else tuple(each.to(device) for each in tensors)
        self.size, self.device = size, device
        self.steps = len(batches(torch.arange(len(split), device="cpu"), size))

    def epoch(self, shuffle: torch.Generator, done: int) -> Iterator[tuple[Tensor, ...]]:
        """An epoch's batches (images, or images and labels), in random order, without the first `done`."""
        order = torch.randperm(len(self.tensors[0]), generator=shuffle, device="cpu").to(self.tensors[0].device)
        for batch in batches(order, self.size)[done:]:  # index_select copies whole images; [...] would go byte by byte
            yield tuple(each.index_select(0, batch).to(self.device) for each in self.tensors)


class _State:
    """What a checkpoint holds: weights, optimizer, random states, and how far training has come."""

    def __init__(
        self,
        model: VAE,
        config: TrainConfig,
        objective: Objective,
        schedule: Schedule | None,
        optimizer: Callable[..., Optimizer],
        identity: dict,
    ):
        self.model, self.config, self.objective, self.options = unwrap(model), config, objective, options(objective)
        state = objective if isinstance(objective, nn.Module) else nn.Identity()
        self.modules = nn.ModuleDict({"model": self.model, "objective": state}).to(model.device)
        self.weights = [*self.modules.parameters()]
        self.architecture = repr(architecture(model))
        self.identity = identity | {"model": hashlib.sha256(self.architecture.encode()).hexdigest()[:16]}
        self.optimizer = optimizer(self.weights, lr=config.learning_rate)
        self.schedule = schedule(self.optimizer) if schedule else None
        self.shuffle = torch.Generator().manual_seed(2 * config.seed)
        self.noise: int | seeding.States = 2 * config.seed + 1
        self.history: list[dict] = []
        self.best: dict[str, Tensor] = {}
        self.unsaved, self.is_readable = _unsaved(self.modules), False
        self._start_epoch()

    def _start_epoch(self) -> None:
        self.step, self.seconds = 0, 0.0
        self.totals = [0.0, 0.0]  # of both terms, over this epoch's images so far
        self.before_shuffling = self.shuffle.get_state()

    def take_step(self, model: VAE, batch: tuple[Tensor, ...], fraction: float, mixed: bool) -> Tensor:
        """One step of the optimizer; returns the mean loss and the sums of both recorded terms, (3,)."""
        x, *labels = batch
        with torch.autocast(x.device.type, torch.bfloat16) if mixed else nullcontext():
            terms = model(to_float(x), labels=labels[0] if labels else None, **self.options)
        with torch.no_grad():  # before the objective, which may change terms in place
            recorded = [terms.reconstruction.sum(), terms.divergence.sum()]
        loss = self.objective(terms, fraction).mean()
        for weight in self.weights:  # optimizer.zero_grad takes five times as long
            weight.grad = None
        loss.backward()
        if self.config.max_grad_norm:
            nn.utils.clip_grad_norm_(self.weights, self.config.max_grad_norm)
        self.optimizer.step()
        self.step += 1
        return torch.stack([loss.detach(), *recorded])

    def record(self, values: list[list[float]]) -> float:
        """Add the latest steps' terms to the epoch's totals, in double precision; returns the last loss."""
        for step, each in enumerate(values, self.step - len(values) + 1):
            for name, value in zip(("loss", "reconstruction term", "KL"), each, strict=True):
                self.require(math.isfinite(value), f"the {name} is {value}", step)
            self.totals = [total + value for total, value in zip(self.totals, each[1:], strict=True)]
        return values[-1][0]

    def require(self, finite: bool | Tensor, otherwise: str, step: int | None = None) -> None:
        if not finite:
            place = f"at epoch {len(self.history) + 1}, step {step or self.step}"
            raise FloatingPointError(f"{otherwise} {place}; {ADVICE}")

    def check_weights(self) -> None:
        """Raise if a weight is not finite, as a gradient can make it, or there are others than before training."""
        if repr(architecture(self.model)) != self.architecture:
            raise ValueError("the model's modules, or shapes of weights, change in training; make all in its builder")
        tensors = (each for each in self.model.state_dict().values() if isinstance(each, Tensor))
        self.require(all(each.isfinite().all() for each in tensors), "a weight is not finite")

    def end_epoch(self, line: dict, noise: seeding.States) -> None:
        self.history.append(line)
        self.noise = noise
        if self.config.patience and best_epoch(self.history) == len(self.history):
            self.best = {name: each.clone() for name, each in self.model.state_dict().items()}
        if self.schedule:
            self.schedule.step()
        self._start_epoch()

    def write_metrics(self, path: Path) -> None:
        files.write(path, "".join(json.dumps(each) + "\n" for each in self.history))

    def show(self, on_epoch: Callable[[VAE, dict], None], checkpoint: Path) -> None:
        """Call `on_epoch`, which may look at the model, but not change it; if it raises, the epoch is saved first."""
        before = _snapshot(self.model)
        try:
            on_epoch(self.model.eval(), dict(self.history[-1]))
        except BaseException:
            if _are_equal(before, _snapshot(self.model)):
                self.write(checkpoint, 0.0, self.noise)
            raise
        if not _are_equal(before, _snapshot(self.model)):
            raise ValueError("on_epoch changed the model's weights or buffers; let it work on copy.deepcopy(model)")

    def is_finished(self) -> bool:
        patience, done = self.config.patience, len(self.history)
        return done >= self.config.epochs or bool(patience and done and done - best_epoch(self.history) >= patience)

    def restore_best(self) -> None:
        if self.best:
            self.model.load_state_dict(self.best)

    def _content(self, seconds: float = 0.0, noise: int | seeding.States | None = None) -> dict:
        state = {"identity": self.identity, "step": self.step, "seconds": seconds, "totals": self.totals}
        state |= {"history": self.history, "shuffle": self.before_shuffling}
        state |= {"noise": noise or seeding.state(self.model.device), "modules": self.modules.state_dict()}
        state |= {"optimizer": self.optimizer.state_dict(), "best": self.best}
        return state | {"schedule": self.schedule.state_dict() if self.schedule else None}

    def write(self, path: Path, seconds: float, noise: int | seeding.States | None = None) -> None:
        """A checkpoint is its SHA-256 sum (32 bytes), then what torch.save makes of the state."""
        self.check_weights()
        torch.save(self._content(seconds, noise), buffer := io.BytesIO())
        if not self.is_readable:  # which the first of a training tells
            try:
                torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
            except pickle.UnpicklingError as error:
                raise ValueError(
                    "the state of the optimizer or the schedule cannot be read again, as it holds more than tensors "
                    "and Python's own numbers, strings, lists and tables; convert NumPy's numbers by float()"
                ) from error
            self.is_readable = True
            for name, value in _unsaved(self.modules).items():
                if value != self.unsaved.get(name):
                    warnings.warn(
                        f"{name} changes in training and is in no checkpoint, so a resumed run will differ from an "
                        f"uninterrupted one; make it a buffer: self.register_buffer(...)",
                        stacklevel=2,
                    )
        files.write(path, hashlib.sha256(buffer.getbuffer()).digest(), buffer.getbuffer())

    def read(self, path: Path) -> None:
        """Resume from a checkpoint of the same run; nothing in the file is executed."""
        content, device, advice = path.read_bytes(), self.model.device, "delete it to start this training over"
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError(f"{path} is damaged: its checksum does not match; {advice}")
        state = torch.load(io.BytesIO(content[32:]), map_location=device, weights_only=True)
        if state.keys() != self._content().keys():
            raise ValueError(
                f"{path} is a checkpoint of another version of vaelib, as the folder's config.json tells: finish this "
                f"training with that version, or delete the checkpoint to start over with this one"
            )
        found = {key: value for key, value in state["identity"].items() if value is not None}
        if different := naming.difference(found, self.identity):
            raise ValueError(f"{path} is of a training {different}; {advice}")
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        for weight, kept in self.optimizer.state.items():  # fused Adam does not look whether they are in one order
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    kept[name] = torch.empty_like(weight).copy_(value)
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.shuffle.set_state(state["shuffle"].cpu())
        self.before_shuffling = self.shuffle.get_state()
        self.noise, self.best = state["noise"], state["best"]
        self.step, self.seconds, self.totals, self.history = map(state.get, ("step", "seconds", "totals", "history"))


def _unsaved(module: nn.Module) -> dict[str, str]:
    """The numbers, strings and tensors of a module and its parts that its state_dict leaves out, written out."""
    found = {}
    for name, part in module.named_modules():
        every = vars(part) | {key: part.get_buffer(key) for key in part._non_persistent_buffers_set}
        for key, value in every.items():
            if isinstance(value, Number | str | Tensor) and key != "training":
                found[f"{name}.{key}"] = repr(value.tolist() if isinstance(value, Tensor) else value)
    return found


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all values, by name, kind, and which object is trained: the optimizer knows no other."""
    values = {}
    for name, each in model.state_dict(keep_vars=True).items():
        trained = id(each) if each.requires_grad else None
        values[f"{name} {each.dtype} {each.device} {trained}"] = each.detach().clone()
    return values


def _are_equal(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(each, others[name]) for name, each in some.items())


def _terms(split: str, reconstruction: float, kl: float) -> dict[str, float]:
    return {f"{split}_elbo": reconstruction - kl, f"{split}_reconstruction": reconstruction, f"{split}_kl": kl}
