"""The training loop for all models. You can stop it at any time; it resumes as if it hadn't been stopped."""

import copy
import hashlib
import io
import json
import math
import pickle
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from numbers import Number, Real
from pathlib import Path
from typing import Any

import numpy as np
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
CHECK_EVERY = 50  # steps between readings of the loss, which make a GPU wait; it is also read after a second
KEPT = "identity", "step", "seconds", "totals", "history", "shuffle", "noise", "best"  # in a checkpoint, of `_State`


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run, apart from its data and functions. The defaults are the paper's.

    Parameters
    ----------
    latent_dim : K
    epochs : passes over the training images, or fewer with `patience`
    seed : of initial weights, order of images, and noise
    batch_size : images per step
    learning_rate : of Adam, or of another optimizer
    precision : of matrix products and convolutions in training, "float32" or "bfloat16". By default, bfloat16 on NVIDIA
        GPUs that support it, else float32. Samples, sums, weights and the evaluation are always in float32, or in
        float64 if the model is
    max_grad_norm : the gradient is scaled down to this norm if its norm is larger
    patience : training stops when the ELBO of `Dataset.validation` hasn't improved for this number of epochs. It then
        restores the weights of the best epoch

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
        unset = {name for name in ("max_grad_norm", "patience") if getattr(self, name) is None}
        for name, least in {"latent_dim": 1, "epochs": 1, "seed": 0, "batch_size": 1, "patience": 1}.items():
            if name not in unset:
                object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        if self.seed >= 2**30:  # a run has two generators, with seeds of twice this size
            raise ValueError(f"seed must be below 2**30, not {self.seed}")
        for name in {"learning_rate", "max_grad_norm"} - unset:
            object.__setattr__(self, name, positive_number(name, getattr(self, name)))
        if self.precision not in (None, "float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32', 'bfloat16' or None, not {self.precision!r}")


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

    If the folder contains a checkpoint, training resumes from it. On the CPU, with the same number of threads, a
    resumed run ends bit for bit like an uninterrupted run: weights, optimizer, random states, order of batches.

    Parameters
    ----------
    model : VAE, on the device to train on; trained in place. After training in bfloat16, the weights of its
        convolutions are in channels-last order
    data : Dataset
    config : TrainConfig
    folder : folder for `metrics.jsonl`, one line per epoch, and `checkpoint`; created if necessary. Its name labels the
        progress bar. Use one folder per run: unlike `runs.train`, this function doesn't detect another run in it
    objective : function to minimise, see `objective.negative_elbo`. If it has state, give a class of modules (or a
        partial of one), whose buffers are then stored in the checkpoint
    schedule : makes one of torch's learning-rate schedules from the optimizer. It takes a step after each epoch
    on_epoch : called with a copy of the model, in evaluation mode, and the epoch's line of metrics. It is called again
        if an epoch is repeated after an interruption. If it raises, a checkpoint of this epoch is written first.
        Threads that it starts must not draw from torch's global generators, see `seeding`
    checkpoint_seconds : time between checkpoints, and about the work that a killed process loses. It is longer if
        writing a checkpoint takes more than a tenth of it
    optimizer : makes one of torch's optimizers, called as `optimizer(parameters, lr=config.learning_rate)`
    meaning : hash of the functions' source code for the checkpoint; by default `naming.meaning`
    stream : whether the training images stay on their device, and each batch is copied to the model's device when
        needed. Use it for data that exceed the device's memory. It doesn't change any value

    Returns
    -------
    list of dict
        One per epoch, as in `metrics.jsonl`: epoch number, ELBO, reconstruction term and KL (nats per image), and
        seconds. Values on train are averaged during the epoch, while the weights change. Values on test and validation
        are computed after it

    Raises
    ------
    FloatingPointError
        If the loss, a recorded term or a weight isn't finite. The last checkpoint is kept.
    ValueError
        If `checks.check_run` fails, or the checkpoint is damaged, belongs to another run, or couldn't be read again.

    Warns
    -----
    UserWarning
        At the first checkpoint, or before the first call of `on_epoch`, if something has changed in training that isn't
        stored in checkpoints, such as a list that the objective reads. A global that a function sets by `global` is
        not detected.
    """
    if not isinstance(checkpoint_seconds, Real) or not checkpoint_seconds >= 0:  # also refuses NaN
        raise ValueError(f"checkpoint_seconds must be 0 or more, not {checkpoint_seconds!r}")
    folder, plain, made = Path(folder).absolute(), unwrap(model), make(objective)
    device = plain.device
    mixed, checkpoint, metrics = is_mixed(config, device), folder / "checkpoint", folder / "metrics.jsonl"
    check_run(model, data, config, mixed, made, schedule, optimizer)
    folder.mkdir(parents=True, exist_ok=True)
    if mixed:  # otherwise each bfloat16 convolution would transpose its input and output
        nn.utils.convert_conv2d_weight_memory_format(plain, torch.channels_last)
    images = _Images(data.train, config.batch_size, device, plain.conditional, stream)
    functions = {"objective": objective, "schedule": schedule, "optimizer": optimizer}
    meaning = naming.meaning(*functions.values()) if meaning is None else meaning
    record = naming.record(config, {"fingerprint": data.fingerprint}, functions, meaning)
    identity = naming.identity(record) | {"device": device.type}
    state = _State(model, config, made, functions, identity)
    if files.exists(checkpoint):
        state.read(checkpoint)
        state.write_metrics(metrics)  # the file on disk may be of a later epoch, or damaged
    due = time.monotonic() + checkpoint_seconds  # of the next checkpoint
    done = len(state.history) * images.steps + state.step
    with progress.bar(total=config.epochs * images.steps, initial=done, desc=folder.name, unit="step") as bar:
        while not state.is_finished():
            epoch, began = len(state.history) + 1, time.monotonic() - state.seconds
            with seeding.seeded(state.noise, device) as noise:
                model.train()
                pending, read = [], time.monotonic()  # the latest steps' losses and terms, and when we last read some
                for batch in images.epoch(state.order, state.step):
                    fraction = (epoch - 1 + state.step / images.steps) / config.epochs
                    pending.append(state.take_step(model, batch, fraction, mixed))
                    if len(pending) < CHECK_EVERY and state.step < images.steps and time.monotonic() - read <= 1:
                        continue
                    loss = state.record(torch.stack(pending).tolist())
                    bar.update(len(pending))
                    bar.set_postfix({"epoch": epoch, "loss": f"{loss:.2f}"})
                    if (now := time.monotonic()) >= due:
                        state.seconds, state.noise = now - began, seeding.state(device)
                        state.write(checkpoint)
                        written = time.monotonic()
                        due = written + max(checkpoint_seconds, 10 * (written - now))
                    pending, read = [], time.monotonic()
                state.check_weights()
                line = {"epoch": epoch} | _terms("train", *(total / len(data.train) for total in state.totals))
                for name, split in data.splits().items():
                    if name != "train":
                        terms = evaluation.elbo(plain, split.images, labels=split.labels)
                        line |= _terms(name, *(each.mean().item() for each in terms))
                        state.require(math.isfinite(line[f"{name}_elbo"]), f"the {name} ELBO is not finite")
            state.end_epoch(line | {"seconds": round(time.monotonic() - began, 3)}, noise)
            state.write_metrics(metrics)
            if on_epoch:
                state.show(on_epoch, checkpoint)
    if state.best:
        plain.load_state_dict(state.best)
    model.eval()
    return state.history


def make(objective: Any) -> Objective:
    """Return the objective, or a new one in its initial state if given a class of modules or a partial of one."""
    maker = objective.func if isinstance(objective, partial) else objective
    return objective() if isinstance(maker, type) and issubclass(maker, nn.Module) else objective


def is_mixed(config: TrainConfig, device: torch.device) -> bool:
    """Return whether to train in mixed precision."""
    if config.precision is None:  # by default, also True for GPUs that emulate bfloat16, which is many times slower
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return config.precision == "bfloat16"


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Split an epoch's images into batches. A single remaining image joins the last batch, because of batch norm."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1 < size:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def best_epoch(history: list[dict]) -> int:
    """Return the number, from 1, of the first epoch with the highest ELBO on the validation split."""
    return max(history, key=lambda line: line["validation_elbo"])["epoch"]


class _Images:
    """The training images, with labels for a conditional model, on the device or, when streaming, where they were."""

    def __init__(self, split: Split, size: int, device: torch.device, conditional: bool, stream: bool):
        tensors = (split.images, split.labels) if conditional else (split.images,)
        self.tensors = tensors if stream else tuple(each.to(device) for each in tensors)
        self.size, self.device = size, device
        self.steps = len(batches(torch.arange(len(split), device="cpu"), size))

    def epoch(self, shuffle: torch.Generator, done: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield the epoch's batches (images, or images and labels) in random order, skipping the first `done`."""
        order = torch.randperm(len(self.tensors[0]), generator=shuffle, device="cpu").to(self.tensors[0].device)
        for batch in batches(order, self.size)[done:]:  # index_select copies whole images; [...] copies bytes
            yield tuple(each.index_select(0, batch).to(self.device) for each in self.tensors)


class _State:
    """The state that a checkpoint stores: weights, optimizer, random states, and progress."""

    def __init__(self, model: VAE, config: TrainConfig, objective: Objective, functions: dict, identity: dict):
        self.model, self.config, self.objective, self.options = unwrap(model), config, objective, options(objective)
        state = objective if isinstance(objective, nn.Module) else nn.Identity()
        self.modules = nn.ModuleDict({"model": self.model, "objective": state}).to(model.device)
        self.weights = [*self.modules.parameters()]
        self.architecture = repr(architecture(model))
        self.identity = identity | {"model": hashlib.sha256(self.architecture.encode()).hexdigest()[:16]}
        self.optimizer = functions["optimizer"](self.weights, lr=config.learning_rate)
        self.schedule = functions["schedule"] and functions["schedule"](self.optimizer)
        self.order = torch.Generator().manual_seed(2 * config.seed)
        self.noise: int | seeding.States = 2 * config.seed + 1
        self.history: list[dict] = []
        self.best: dict[str, Tensor] = {}
        self.functions, self.is_readable = functions, False
        self.unsaved = _unsaved(self.modules, functions["objective"])
        self._start_epoch()

    def _start_epoch(self) -> None:
        # The totals are those of both terms, over this epoch's images so far
        self.step, self.seconds, self.totals = 0, 0.0, [0.0, 0.0]
        self.shuffle = self.order.get_state()

    def take_step(self, model: VAE, batch: tuple[Tensor, ...], fraction: float, mixed: bool) -> Tensor:
        """Take one optimizer step. Returns the mean loss and the sums of both recorded terms, (3,)."""
        x, *labels = batch
        with torch.autocast(x.device.type, torch.bfloat16) if mixed else nullcontext():
            terms = model(to_float(x), labels=labels[0] if labels else None, **self.options)
        with torch.no_grad():  # before the objective, which may change the terms in place
            recorded = [terms.reconstruction.sum(), terms.divergence.sum()]
        loss = self.objective(terms, fraction).mean()
        for weight in self.weights:  # takes a fifth of the time of optimizer.zero_grad
            weight.grad = None
        try:
            loss.backward()
        except RuntimeError as error:
            if "second time" in str(error):
                error.add_note("If the objective keeps a tensor for a later step, it must keep tensor.detach()")
            raise
        if self.config.max_grad_norm:
            nn.utils.clip_grad_norm_(self.weights, self.config.max_grad_norm)
        self.optimizer.step()
        self.step += 1
        return torch.stack([loss.detach(), *recorded])

    def record(self, values: list[list[float]]) -> float:
        """Add the latest steps' terms to the epoch's totals, in double precision, and return the last loss."""
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
        """Raise if a weight isn't finite, which a finite loss allows, or if the model has other parts than before."""
        if repr(architecture(self.model)) != self.architecture:
            raise ValueError("the model's modules, or shapes of weights, change in training; make all in its builder")
        finite = [each.isfinite().all() for each in self.model.state_dict().values() if isinstance(each, Tensor)]
        self.require(torch.stack(finite).all(), "a weight is not finite")  # at once, because each look makes a GPU wait

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
        """Call `on_epoch` with a copy of the model. If it raises, save the epoch first."""
        self._warn_of_unsaved()  # before it, because it may draw random numbers
        kind = torch.get_default_dtype()
        try:
            on_epoch(copy.deepcopy(self.model).eval(), dict(self.history[-1]))
            if torch.get_default_dtype() != kind or not torch.is_grad_enabled():
                raise ValueError("on_epoch changed torch's default dtype, or disabled gradients; let it restore both")
        except BaseException:
            self.write(checkpoint)
            raise

    def is_finished(self) -> bool:
        patience, done = self.config.patience, len(self.history)
        return done >= self.config.epochs or bool(patience and done and done - best_epoch(self.history) >= patience)

    def _content(self) -> dict:
        parts = {"modules": self.modules, "optimizer": self.optimizer, "schedule": self.schedule}
        state = {name: part and part.state_dict() for name, part in parts.items()}
        return state | {name: getattr(self, name) for name in KEPT}

    def write(self, path: Path) -> None:
        """Write a checkpoint: its SHA-256 sum (32 bytes), then the state as written by torch.save."""
        self.check_weights()
        torch.save(self._content(), buffer := io.BytesIO())
        if not self.is_readable:  # only the first checkpoint is checked
            try:
                torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
            except pickle.UnpicklingError as error:
                advice = "use only tensors and Python's own types, and convert NumPy's numbers by float()"
                raise ValueError(f"the optimizer's or the schedule's state cannot be read again; {advice}") from error
            self.is_readable = True
        self._warn_of_unsaved()
        files.write(path, hashlib.sha256(buffer.getbuffer()).digest(), buffer.getbuffer())

    def _warn_of_unsaved(self) -> None:
        """Warn, once per run, of changes that checkpoints don't store."""
        before, self.unsaved = self.unsaved, {}
        for name, value in _unsaved(self.modules, self.functions["objective"]).items() if before else ():
            if value != before.get(name):
                advice = "a resumed run will differ; make it a buffer: self.register_buffer(...), or draw by torch"
                warnings.warn(f"{name} changes in training and is in no checkpoint, so {advice}", stacklevel=3)

    def read(self, path: Path) -> None:
        """Resume from a checkpoint of the same run. Nothing in the file is executed."""
        content, device, advice = path.read_bytes(), self.model.device, "delete it to restart this run"
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError(f"{path} is damaged: its checksum does not match; {advice}")
        state = torch.load(io.BytesIO(content[32:]), map_location=device, weights_only=True)
        if state.keys() != self._content().keys():
            raise ValueError(f"{path} was written by another version of vaelib (see config.json); use it, or {advice}")
        if different := naming.difference(state["identity"], self.identity):
            raise ValueError(f"{path} belongs to a run {different}; {advice}")
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        for weight, kept in self.optimizer.state.items():  # fused Adam doesn't check that both have the same layout
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    kept[name] = torch.empty_like(weight).copy_(value)
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        for name in KEPT:
            setattr(self, name, state[name])
        self.order.set_state(self.shuffle.cpu())


def _unsaved(module: nn.Module, objective: Callable) -> dict[str, str]:
    """Return whatever a model's state_dict omits, what the objective reads, and states of generators but torch's."""
    found = {"the state of random": repr(random.getstate()), "the state of numpy.random": repr(np.random.get_state())}  # noqa: NPY002
    with suppress(ValueError):  # its source code is missing
        found["a value that the objective reads"] = naming.meaning(objective)
    for name, part in module.named_modules():
        every = vars(part) | {key: part.get_buffer(key) for key in part._non_persistent_buffers_set}
        for key, value in every.items():
            is_own = isinstance(value, list | tuple | dict | set) and not key.startswith("_")
            if isinstance(value, torch.Generator):
                value = value.get_state()
            if (is_own or isinstance(value, Number | str | Tensor | np.ndarray)) and key != "training":
                found[f"{name}.{key}"] = repr(value.tolist() if isinstance(value, Tensor | np.ndarray) else value)
    return found


def _terms(split: str, reconstruction: float, kl: float) -> dict[str, float]:
    return {f"{split}_elbo": reconstruction - kl, f"{split}_reconstruction": reconstruction, f"{split}_kl": kl}
