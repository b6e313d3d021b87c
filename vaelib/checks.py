"""Checks before training and evaluation. Errors name the fault, the expected value and the remedy."""

import copy
import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .data import Dataset, to_float
from .distributions import full_precision
from .encoders import evaluating
from .models import VAE, call, draw, unwrap
from .objective import Terms, options
from .priors import Vamp
from .seeding import seeded

if TYPE_CHECKING:
    from .training import TrainConfig


def check_run(
    model: VAE,
    data: Dataset,
    config: "TrainConfig",
    mixed: bool,
    objective: Callable,
    schedule: Callable | None,
    optimizer: Callable,
) -> None:
    """Check that all parts of a run fit each other, on the model's device and in the run's precision.

    Raises
    ------
    ValueError
        If one of these conditions holds:

        - The model's parts don't fit each other or the data (see `check_model`), or its K differs from the
          configuration.
        - The objective, schedule or optimizer is of an unsupported kind.
        - The model has batch norm, and a batch would have one image.
        - There is a patience but no validation split.
    """
    plain = unwrap(model)
    device = plain.device
    if isinstance(objective, type):
        raise ValueError(f"the objective is a class; give an instance of it: {objective.__name__}(...)")
    dataclass = getattr(objective, "__dataclass_params__", None)
    if dataclass and not dataclass.frozen:
        raise ValueError(
            f"{type(objective).__name__} can change in training, which no checkpoint would store; freeze the "
            f"dataclass, or make it an nn.Module with its state in buffers, and give its class"
        )
    if plain.conditional and not data.train.labels.numel():
        raise ValueError(f"the model is conditional, but {data.name!r} doesn't have labels")
    rows, labels = [0, 1], data.train.labels
    if plain.conditional and labels.ndim == 1:  # the extreme labels, because an embedding may be too small for them
        rows = [int(labels.double().argmin()), int(labels.double().argmax())] if len(labels.unique()) > 1 else rows
    x, labels = (each[rows[: len(each)]].to(device) for each in (data.train.images, labels))
    check_model(plain, to_float(x), labels, mixed, objective, compiled=hasattr(model, "_orig_mod"))
    for split in data.splits().values():  # floats can have any value, and compiled models don't check them
        with evaluating(plain), seeded(0, device), torch.no_grad():
            for part in split.images.split(10_000) if split.images.is_floating_point() else ():
                plain.prepare(to_float(part).to(device))
    if plain.latent_dim != config.latent_dim:
        raise ValueError(f"the model has K = {plain.latent_dim}, but the configuration has {config.latent_dim}")
    made = _tried("schedule", schedule, torch.optim.Adam(model.parameters())) if schedule else None
    if not isinstance(made, LRScheduler | None) or isinstance(made, ReduceLROnPlateau):
        raise ValueError(f"expected one of torch's schedules that goes by epochs, not {type(made).__name__}")
    if made:
        with warnings.catch_warnings(action="ignore"):  # torch warns because the optimizer hasn't taken a step
            for _ in range(config.epochs):  # a schedule that is too short would fail after the last epoch
                _tried("schedule", made.step)
    chosen = optimizer(list(model.parameters()), lr=config.learning_rate)
    if not isinstance(chosen, Optimizer) or isinstance(chosen, torch.optim.LBFGS | torch.optim.SparseAdam):
        kind = type(chosen).__name__
        raise ValueError(f"expected one of torch's optimizers without closures or sparse gradients, not {kind}")
    if min(config.batch_size, len(data.train)) == 1 and any(isinstance(part, _BatchNorm) for part in model.modules()):
        raise ValueError("batch norm needs at least two images per batch; increase batch_size, or use more images")
    if config.patience and data.validation is None:
        raise ValueError("patience needs a validation split: Dataset(..., validation=...), or data.hold_out(count)")


def check_model(
    model: VAE,
    x: Tensor | None = None,
    labels: Tensor | None = None,
    mixed: bool = False,
    objective: Callable | None = None,
    compiled: bool = False,
) -> None:
    """Check that the three modules fit each other and the objective.

    Parameters
    ----------
    model : VAE
    x, labels : two images or more, and their labels, as for `VAE.terms`; black images by default
    mixed : whether training is in mixed precision
    objective : the training objective, if there is one
    compiled : whether training uses `torch.compile`

    Raises
    ------
    ValueError
        If one of these conditions holds. The message names the module, the value found and the value expected.

        - A module fails, or doesn't return a distribution of the right shape with a log_prob in full precision.
        - The objective fails, or it needs gradients through codes and the posterior doesn't have an rsample.
        - The mean of the likelihood isn't finite.
    """
    if lazy := [name for name, weight in model.named_parameters() if is_lazy(weight)]:
        raise ValueError(f"{lazy[0]} doesn't have a shape yet; call the model once in its builder before you return it")
    kinds = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    if kinds and kinds <= {torch.float16, torch.bfloat16}:
        raise ValueError("the weights have 16 bits, which is for storage; call .float(), and set `precision` instead")
    device = model.device
    x = (torch.zeros(2, *model.image_shape) if x is None else x[:2]).to(device)
    labels = None if labels is None else labels[:2].to(device)
    given, batch = model.labels(labels, len(x)), (len(x),)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=mixed)
    with evaluating(model), seeded(0, device), torch.no_grad(), autocast:
        seen = model.prepare(x)
        q = _tried("encoder", call, model.encoder, device, seen, *given)
        _expect("encoder", q, batch, None)
        p = _tried("prior", call, model.prior, device, *given)
        _expect("prior", p, p.batch_shape if model.conditional else (), q.event_shape)
        if _is_simplex(q) != _is_simplex(p):
            raise ValueError(f"the codes of {type(q).__name__} or {type(p).__name__} sum to one, but the other's don't")
        with full_precision(device):
            z, log_posterior = _tried("encoder's sample or log_prob", draw, q)
            log_prior = _tried("prior's log_prob", p.log_prob, z)
        likelihood = _tried("decoder", call, model.decoder, device, z, *given)
        _expect("decoder", likelihood, batch, model.image_shape)
        with full_precision(device):
            log_likelihood = _tried("decoder's log_prob", likelihood.log_prob, seen)
            mean = _tried("decoder's mean", lambda: likelihood.mean)
        _expect_full("encoder's sample", z, (*batch, *q.event_shape), device)
        _expect_full("decoder's mean", mean, seen.shape, device)
        for module, found in {"encoder": log_posterior, "prior": log_prior, "decoder": log_likelihood}.items():
            _expect_full(f"{module}'s log_prob", found, batch, device)
        # Non-finite codes mean that training diverged, which is reported elsewhere
        if z.isfinite().all() and not mean.isfinite().all():
            raise ValueError("expected a finite mean of the decoder's distribution, because it is the image shown")
        _check_images_apart(model, seen, z, given)
    model.latent_dim = q.event_shape[0]
    if isinstance(model.prior, Vamp) and model.prior.encoder is not model.encoder:
        raise ValueError("the VampPrior uses another encoder than the model; make it from the model's encoder")
    if objective is not None:
        _check_objective(model, x, labels, mixed, objective, q, compiled)


def _check_images_apart(model: VAE, x: Tensor, z: Tensor, given: tuple[Tensor, ...]) -> None:
    """Refuse a module if its result for the first image depends on the other image in the batch."""
    found = []
    for second in (1, 0):
        rows = torch.tensor([0, second][: len(x)], device=x.device)
        images, codes, *labels = (each[rows] for each in (x, z, *given))
        with seeded(0, x.device):  # the same noise, in case a module is random
            q = call(model.encoder, x.device, images, *labels)
            likelihood = call(model.decoder, x.device, codes, *labels)
            with full_precision(x.device):
                code, log_posterior = draw(q)
                log_likelihood = likelihood.log_prob(images)
        found.append({"encoder": torch.cat([code[0], log_posterior[:1]]), "decoder": log_likelihood[:1]})
    for module, value in found[0].items():
        if not torch.allclose(value, found[1][module], rtol=1e-4, atol=1e-3, equal_nan=True):
            raise ValueError(
                f"the {module} mixes the images of a batch in evaluation mode; make it treat each image separately. "
                f"(Or another thread draws random numbers; stop it, or give it its own torch.Generator)"
            )


def _check_objective(
    model: VAE, x: Tensor, labels: Tensor | None, mixed: bool, objective: Callable, q: Distribution, compiled: bool
) -> None:
    asked = options(objective)
    if asked.get("reparameterized", True) and not (q.has_rsample or hasattr(q, "rsample_and_log_prob")):
        raise ValueError(
            f"the encoder returned {type(q).__name__}, which doesn't have an rsample, so the encoder gets no "
            "gradient through its codes; use a posterior with an rsample, or an objective with `reparameterized = "
            "False`"
        )

    def terms(model: VAE, **asked: Any) -> Terms:
        with seeded(0, x.device), torch.autocast(x.device.type, torch.bfloat16, enabled=mixed):
            return model.terms(x, labels=labels, **asked)

    with evaluating(model):
        tried = terms(model, **asked)
    loss = _tried("objective", copy.deepcopy(objective), tried, 0.0)
    if compiled and tried.codes._backward_hooks:
        raise ValueError(
            "the objective changes the gradient of the codes by a hook, which torch.compile doesn't call for the "
            "decoder; train this model without torch.compile"
        )
    if getattr(loss, "shape", None) != x.shape[:1]:
        raise ValueError(
            f"the objective must return one loss per image, a tensor of shape ({len(x)},) for {len(x)} images, not "
            f"{tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__}"
        )
    if not loss.isfinite().all() and all(weight.isfinite().all() for weight in model.parameters()):
        least = {name: each.min().item() for name, each in tried._asdict().items() if name.startswith("log_")}
        raise ValueError(
            f"the loss of the first images is {loss.tolist()} before training; the least values of its terms are "
            f"{least}. Look for a log_prob that isn't finite for these images or codes"
        )
    if not loss.requires_grad:
        raise ValueError(
            "the objective's loss doesn't have a gradient; don't detach the terms, and compute it "
            "with gradients enabled"
        )
    if asked.get("fixed_posterior"):
        twin = copy.deepcopy(model).train()
        free, fixed = (terms(twin, fixed_posterior=each).log_posterior for each in (False, True))
        if not torch.allclose(free, fixed, rtol=1e-4, atol=1e-3):
            raise ValueError(
                "the encoder is random in training mode, for example because of dropout, so log q(z | x) can't be "
                "computed again for the same posterior; use an objective without `fixed_posterior`"
            )


def check_bound(elbos: Tensor, log_probs: Tensor, kls: Tensor) -> None:
    """Refuse an ELBO above log p(x), or a negative KL, by more than five standard errors and rounding."""
    if len(kls) >= 10 and kls.mean() < -5 * kls.std() / math.sqrt(len(kls)) - 1e-3:
        raise ValueError(
            f"the KL is {kls.mean():.2f} nats, though no KL is negative: the log_prob of the posterior or the "
            "prior doesn't match its samples, or isn't normalised. The weights are kept"
        )
    excess, rounding = elbos - log_probs, 1e-4 * log_probs.abs().mean()
    error = excess.std() / math.sqrt(len(excess))
    if len(excess) >= 10 and excess.mean() > 5 * error + rounding:
        raise ValueError(
            f"the test ELBO is {elbos.mean():.2f} nats, above log p(x), which is {log_probs.mean():.2f} "
            f"(difference {excess.mean():.2f} ± {error:.2f}), though it is a lower bound: a log_prob doesn't match "
            "its samples, isn't normalised, or depends on other images in the batch. The weights are kept"
        )


def _is_simplex(distribution: Distribution) -> bool:
    """Return whether values are vectors that sum to one, whose density has one dimension less."""
    with suppress(NotImplementedError):
        return distribution.support is constraints.simplex
    return False


def _tried(what: str, function: Callable, *inputs: Any) -> Any:
    try:
        return function(*inputs)
    except Exception as error:  # a module can raise anything
        shapes = "".join(f" for a tensor of shape {tuple(each.shape)}" for each in inputs if isinstance(each, Tensor))
        hints = {
            "decoder": "; if it needs several numbers for a pixel, give it an attribute `outputs`, see models.mlp",
            "objective": "; it is called as objective(terms, fraction)",
        }
        raise ValueError(f"the {what} failed{shapes} ({type(error).__name__}: {error}){hints.get(what, '')}") from error


def _expect(module: str, found: object, batch: tuple[int, ...], event: tuple[int, ...] | None) -> None:
    if not isinstance(found, Distribution):
        raise ValueError(f"the {module} must return a torch.distributions.Distribution, not a {type(found).__name__}")
    shape = (*found.batch_shape, *found.event_shape)
    expected = (*batch, *(event or shape[-1:]))
    if module == "prior" and len(shape) == len(expected) == 1 and shape != expected:
        raise ValueError(f"the encoder's codes have K = {expected[0]} numbers, the prior's have {shape[0]}")
    if found.batch_shape != batch or shape != expected:
        advice = ""
        if shape == expected:
            advice = f"; torch.distributions.Independent(..., {len(found.batch_shape) - len(batch)}) makes it so"
        raise ValueError(
            f"the {module} returned {type(found).__name__} with batch_shape {(*found.batch_shape,)} and event_shape "
            f"{(*found.event_shape,)}{' for a batch of two' if batch else ''}; expected batch_shape {batch} and "
            f"event_shape {(*event,) if event else '(K,)'}{advice}"
        )


def _expect_full(what: str, found: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if found.shape != shape or found.dtype not in (torch.float32, torch.float64) or found.device.type != device.type:
        raise ValueError(
            f"the {what} is {found.dtype} of shape {(*found.shape,)} on {found.device.type}; expected float32 or "
            f"float64 of shape {(*shape,)} on {device.type}: sum over all dimensions but the batch, move the "
            "distribution's tensors with `to`, and convert results of mixed precision with .float()"
        )
