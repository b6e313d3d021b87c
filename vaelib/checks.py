"""Checks before training and evaluation. Errors name the fault, the expected value and the remedy."""

import copy
import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn, optim
from torch.distributions import Distribution, constraints

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
    if isinstance(objective, type) or not callable(objective):
        raise ValueError(f"the objective is {objective!r}; give a function, or an instance of a class: BetaELBO(2.0)")
    dataclass = getattr(objective, "__dataclass_params__", None)
    if dataclass and not dataclass.frozen:
        kind = type(objective).__name__
        raise ValueError(f"{kind} can change in training; freeze the dataclass, or make it an nn.Module with buffers")
    if plain.conditional and not data.train.labels.numel():
        raise ValueError(f"the model is conditional, but {data.name!r} doesn't have labels")
    x, labels = data.train.images[:2], data.train.labels[:2]
    if plain.conditional and labels.ndim == 1:  # the extreme labels, because an embedding may be too small for them
        labels = torch.stack(data.train.labels.aminmax())[: len(x)]
    check_model(model, to_float(x), labels, mixed, objective)
    for split in data.splits().values():  # floats can have any value, and compiled models don't check them
        with evaluating(plain), seeded(0, device), torch.no_grad():
            for part in split.images.split(10_000) if split.images.is_floating_point() else ():
                plain.prepare(to_float(part).to(device))
    if plain.latent_dim != config.latent_dim:
        raise ValueError(f"the model has K = {plain.latent_dim}, but the configuration has {config.latent_dim}")
    chosen = attempt("optimizer", optimizer, list(model.parameters()), lr=config.learning_rate)
    if not isinstance(chosen, optim.Optimizer) or isinstance(chosen, optim.LBFGS | optim.SparseAdam):
        kind = type(chosen).__name__
        raise ValueError(f"expected one of torch's optimizers without closures or sparse gradients, not {kind}")
    if chosen.defaults.get("fused") and any(each.is_complex() for each in model.parameters()):
        raise ValueError("a fused optimizer can't train complex weights; use another: optimizer=torch.optim.Adam")
    if schedule:
        made = attempt("schedule", schedule, chosen)
        kinds = optim.lr_scheduler
        if not isinstance(made, kinds.LRScheduler) or isinstance(made, kinds.ReduceLROnPlateau):
            raise ValueError(f"expected one of torch's schedules that goes by epochs, not {type(made).__name__}")
        with warnings.catch_warnings(action="ignore"):  # torch warns because the optimizer hasn't taken a step
            for _ in range(config.epochs):  # a schedule that is too short would fail after the last epoch
                attempt("schedule", made.step)
    normalised = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
    if normalised and min(config.batch_size, len(data.train)) == 1:
        raise ValueError("batch norm needs at least two images per batch; increase batch_size, or use more images")
    if config.patience and data.validation is None:
        raise ValueError("patience needs a validation split: Dataset(..., validation=...), or data.hold_out(count)")


def check_model(
    model: VAE,
    x: Tensor | None = None,
    labels: Tensor | None = None,
    mixed: bool = False,
    objective: Callable | None = None,
) -> None:
    """Check that the three modules fit each other and the objective.

    Parameters
    ----------
    model : VAE, also within `torch.compile`
    x, labels : two images or more, and their labels, as for `VAE.terms`; black images by default
    mixed : whether training is in mixed precision
    objective : the training objective, if there is one

    Raises
    ------
    ValueError
        If one of these conditions holds. The message names the module, the value found and the value expected.

        - A weight or a buffer doesn't have a shape yet, or is in less than single precision.
        - A module fails, or doesn't return a distribution of the right shape with a log_prob in full precision.
        - A module's result for an image depends on other images in the batch.
        - The objective fails, or it needs gradients through codes and the posterior doesn't have an rsample.
        - The mean of the likelihood isn't finite.
    """
    compiled, model = hasattr(model, "_orig_mod"), unwrap(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"{name} doesn't have a shape yet; call the model once in its builder")
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} is {tensor.dtype}; call .float() on the model, and set `precision` instead")
    device = model.device
    x = (torch.zeros(2, *model.image_shape) if x is None else x[:2]).to(device)
    given = model.labels(None if labels is None else labels[:2].to(device), len(x))
    with evaluating(model), torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        rows = torch.arange(len(x), device=device)
        q, results = _results(model, x, given, rows)
        for row in (0, len(x) - 1):  # each image next to itself
            _, alone = _results(model, x, given, torch.full_like(rows, row))
            for module, value in results.items():
                if not torch.allclose(value[row], alone[module][row], rtol=1e-4, atol=1e-3, equal_nan=True):
                    raise ValueError(
                        f"the {module} mixes the images of a batch in evaluation mode; make it treat each image "
                        "separately. (Or another thread draws random numbers; stop it, or give it a torch.Generator)"
                    )
    model.latent_dim = q.event_shape[0]
    if isinstance(model.prior, Vamp) and model.prior.encoder is not model.encoder:
        raise ValueError("the VampPrior uses another encoder than the model; make it from the model's encoder")
    if objective is not None:
        _check_objective(model, x, given, mixed, objective, q, compiled)


def _results(model: VAE, x: Tensor, labels: tuple[Tensor, ...], rows: Tensor) -> tuple[Distribution, dict[str, Tensor]]:
    """Check what the three modules return for these rows. Returns the posterior, and the values of each part."""
    device, batch = x.device, (len(rows),)
    x, *given = (each[rows] for each in (x, *labels))
    with seeded(0, device):  # the same noise for each batch, in case a module is random
        x = model.prepare(x)
        q = attempt("encoder", call, model.encoder, device, x, *given)
        _expect("encoder", q, batch, None)
        p = attempt("prior", call, model.prior, device, *given)
        _expect("prior", p, p.batch_shape if model.conditional else (), q.event_shape)
        if _is_simplex(q) != _is_simplex(p):
            raise ValueError(f"the codes of {type(q).__name__} or {type(p).__name__} sum to one, but the other's don't")
        with full_precision(device):
            z, log_posterior = attempt("encoder's sample or log_prob", draw, q)
            log_prior = attempt("prior's log_prob", p.log_prob, z)
        likelihood = attempt("decoder", call, model.decoder, device, z, *given)
        _expect("decoder", likelihood, batch, model.image_shape)
        with full_precision(device):
            log_likelihood = attempt("decoder's log_prob", likelihood.log_prob, x)
            mean = attempt("decoder's mean", lambda: likelihood.mean)
    _expect_full("encoder's sample", z, (*batch, *q.event_shape), device)
    _expect_full("decoder's mean", mean, x.shape, device)
    for module, found in {"encoder": log_posterior, "prior": log_prior, "decoder": log_likelihood}.items():
        _expect_full(f"{module}'s log_prob", found, batch, device)
    # Non-finite codes mean that training diverged, which is reported elsewhere
    if z.isfinite().all() and not mean.isfinite().all():
        raise ValueError("expected a finite mean of the decoder's distribution, because it is the image shown")
    values = {"preprocess": x.flatten(1), "encoder": torch.cat([z, log_posterior[:, None]], 1), "prior": log_prior}
    return q, values | {"decoder": log_likelihood}


def _check_objective(
    model: VAE, x: Tensor, given: tuple[Tensor, ...], mixed: bool, objective: Callable, q: Distribution, compiled: bool
) -> None:
    asked = options(objective)
    if asked.get("reparameterized", True) and not (q.has_rsample or hasattr(q, "rsample_and_log_prob")):
        raise ValueError(f"{type(q).__name__} doesn't have an rsample; use an objective with `reparameterized = False`")

    def terms(model: VAE, **asked: Any) -> Terms:
        with seeded(0, x.device), torch.autocast(x.device.type, torch.bfloat16, enabled=mixed):
            return model.terms(x, labels=given[0] if given else None, **asked)

    with evaluating(model):
        tried = terms(model, **asked)
    hint = " with terms.kl None, so use terms.divergence," if tried.kl is None else ""
    loss = attempt(f"objective, called as objective(terms, fraction),{hint}", copy.deepcopy(objective), tried, 0.0)
    shape = getattr(loss, "shape", type(loss))
    if shape != x.shape[:1]:
        raise ValueError(f"the objective must return one loss per image, a tensor of shape ({len(x)},), not {shape}")
    if not loss.isfinite().all():
        least = {name: each.min().item() for name, each in tried._asdict().items() if name.startswith("log_")}
        raise ValueError(
            f"the loss of the first images is {loss.tolist()} before training; the least of its terms are {least}"
        )
    if not loss.requires_grad:
        raise ValueError("the objective's loss has no gradient; leave torch.no_grad(), and don't detach the terms")
    if compiled and tried.codes._backward_hooks:
        raise ValueError("the objective has a hook on the codes, which torch.compile ignores; train without it")
    if asked.get("fixed_posterior"):
        twin = copy.deepcopy(model).train()
        free, fixed = (terms(twin, fixed_posterior=each).log_posterior for each in (False, True))
        if not torch.allclose(free, fixed, rtol=1e-4, atol=1e-3):
            raise ValueError("the encoder is random in training mode; use an objective without `fixed_posterior`")


def check_bound(elbos: Tensor, log_probs: Tensor, kls: Tensor) -> None:
    """Refuse an ELBO above log p(x), or a negative KL, by more than five standard errors and rounding."""
    means = f"the KL is {kls.mean():.2f} nats, and the test ELBO {elbos.mean():.2f}"
    for excess, rounding, fault in (
        (-kls, 1e-3, "no KL is negative"),
        (elbos - log_probs, 1e-4 * log_probs.abs().mean(), f"it can't exceed log p(x), here {log_probs.mean():.2f}"),
    ):
        error = excess.std() / math.sqrt(len(excess))
        if len(excess) >= 10 and excess.mean() > 5 * error + rounding:
            raise ValueError(
                f"{means}, though {fault} (difference {excess.mean():.2f} ± {error:.2f}): a log_prob doesn't match its "
                "samples, isn't normalised, or depends on other images in the batch. The weights are kept"
            )


def attempt(what: str, function: Callable, *inputs: Any, **options: Any) -> Any:
    """Call a function of the user's. Raises ValueError that names it if it raises."""
    try:
        return function(*inputs, **options)
    except Exception as error:  # it can raise anything
        shapes = "".join(f" for a tensor of shape {tuple(each.shape)}" for each in inputs if isinstance(each, Tensor))
        raise ValueError(f"the {what} failed{shapes} ({type(error).__name__}: {error})") from error


def _is_simplex(distribution: Distribution) -> bool:
    """Return whether values are vectors that sum to one, whose density has one dimension less."""
    with suppress(NotImplementedError):
        return distribution.support is constraints.simplex
    return False


def _expect(module: str, found: object, batch: tuple[int, ...], event: tuple[int, ...] | None) -> None:
    if not isinstance(found, Distribution):
        raise ValueError(f"the {module} must return a torch.distributions.Distribution, not a {type(found).__name__}")
    shape = (*found.batch_shape, *found.event_shape)
    event = (*event,) if event else shape[-1:]
    if (found.batch_shape, found.event_shape) != (batch, event):
        advice = f"; torch.distributions.Independent(..., {len(found.batch_shape) - len(batch)}) makes it so"
        raise ValueError(
            f"the {module} returned {type(found).__name__} with batch_shape {(*found.batch_shape,)} and event_shape "
            f"{(*found.event_shape,)}{' for a batch of two' if batch else ''}; expected batch_shape {batch} and "
            f"event_shape {event}{advice if shape == (*batch, *event) else ''}"
        )


def _expect_full(what: str, found: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if found.shape != shape or found.dtype not in (torch.float32, torch.float64) or found.device.type != device.type:
        raise ValueError(
            f"the {what} is {found.dtype} of shape {(*found.shape,)} on {found.device.type}; expected float32 or "
            f"float64 of shape {(*shape,)} on {device.type}: sum over all dimensions but the batch, move the "
            "distribution's tensors with `to`, and convert results of mixed precision with .float()"
        )
