"""The VAE that ties encoder, decoder and prior together, the paper's two models, and weights on disk."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from . import decoders, encoders, priors
from .decoders import Decoder
from .distributions import DiagonalNormal, at_least_float32, full_precision, kl_by_dimension, mean_and_log_variance
from .encoders import Encoder, evaluating
from .objective import Terms
from .priors import Prior
from .seeding import seeded

Shape = tuple[int, ...]
Maker = Callable[..., nn.Module]
EVAL_BATCH_VALUES = 784_000  # in an evaluation batch: 1,000 digits, or 85 faces, which fit into a CPU's cache


class VAE(nn.Module):
    """Three modules that return distributions. Everything else follows from these.

    Parameters
    ----------
    encoder : module from images (B, C, H, W) to the posterior q(z | x), see `encoders.Encoder`
    decoder : module from codes (B, K) to the likelihood p(x | z), see `decoders.Decoder`
    prior : module whose call gives p(z), see `priors.Prior`
    image_shape : (C, H, W); or (D,), for rows of numbers
    conditional : whether the three get the images' labels, too: encoder(x, y), decoder(z, y) and prior(y)
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, prior: Prior, image_shape: Shape, conditional: bool = False):
        super().__init__()
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.image_shape: Shape = (*image_shape,)
        self.conditional = conditional
        self._latent_dim: int | None = None

    @property
    def latent_dim(self) -> int:
        """K, the size of the prior's codes, or, of a conditional model, what `checks.check_model` has found."""
        return self._latent_dim or self.prior().event_shape[0]

    @latent_dim.setter
    def latent_dim(self, size: int) -> None:
        self._latent_dim = size

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU, if there are none."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))

    def preprocess(self, x: Tensor) -> Tensor:
        """The images that encoder and likelihood see, of float images (B, C, H, W): unchanged. A subclass overrides it.

        Random changes, such as augmentation, belong into training mode: `if self.training`.
        """
        return x

    def terms(
        self,
        x: Tensor,
        samples: int = 1,
        labels: Tensor | None = None,
        fixed_posterior: bool = False,
        reparameterized: bool = True,
    ) -> Terms:
        """Everything that objectives and evaluation need: log-densities of codes drawn from each image's posterior.

        Encoder and decoder may run in mixed precision. What is drawn and scored is in float32 (or float64, as the
        weights are). In evaluation mode the codes are decoded in parts of bounded memory.

        Parameters
        ----------
        x : float Tensor of shape (B, C, H, W), before `preprocess`
        samples : S, codes of each posterior
        labels : Tensor of shape (B,) or (B, A), which a conditional model needs
        fixed_posterior : whether log q(z | x) is of the encoder's weights held fixed, and its gradient passes through z
            alone, as in "sticking the landing" (arXiv:1703.09194) and DReG (arXiv:1810.04152); takes a second pass
        reparameterized : whether gradients pass through z, if the posterior has an `rsample`

        Raises
        ------
        ValueError
            If the images are not floats of this model's shape, the decoder does not allow their values, or labels are
            missing. (On a GPU, values are not looked at in training mode: that would make it wait.)
        """
        x, given = self.prepare(x), self.labels(labels, len(x))
        q, p = call(self.encoder, x.device, x, *given), call(self.prior, x.device, *given)
        with full_precision(x.device):
            draws = zip(*(draw(q, reparameterized) for _ in range(samples)), strict=True)
            codes, log_posterior = map(_stack, draws)
            log_prior = _stack([p.log_prob(z) for z in codes.unbind()])
            kl = kl_by_dimension(q, p)
        if fixed_posterior:
            scorer = _Scorer(self.encoder)
            weights = {name: weight.detach() for name, weight in scorer.named_parameters()}
            # Copies, so that batch norm, or a running average of weights, counts a batch once
            still = ((name, weight) for name, weight in scorer.named_parameters() if not weight.requires_grad)
            buffers = {name: each.detach().clone() for name, each in (*scorer.named_buffers(), *still)}
            log_posterior = functional_call(scorer, weights | buffers, (codes, x, *given))
        return Terms(self._log_likelihood(x, codes, given), log_prior, log_posterior, codes, kl)

    def forward(self, *arguments: Any, **options: Any) -> Terms:
        """`terms`, so that a compiled or distributed model runs compiled or distributed under every objective."""
        return self.terms(*arguments, **options)

    def elbo(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both terms of the ELBO of each image, from one sample of its posterior: reconstruction (B,) and KL (B,)."""
        terms = self.terms(x, labels=labels)
        return terms.reconstruction, terms.divergence

    def posterior(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        """q(z | x) of each image."""
        return call(self.encoder, x.device, self.prepare(x), *self.labels(labels, len(x)))

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The posterior of each image, as its mean and log-variance, both of shape (B, K)."""
        return mean_and_log_variance(self.posterior(x, labels))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean image of p(x | z), (B, C, H, W), for codes of shape (B, K): the paper's pixel probabilities.

        In evaluation mode this is done in parts, so that memory is bounded by that of the result.
        """
        rows = zip(*(each.split(self._rows(z)) for each in (z, *self.labels(labels, len(z)))), strict=True)
        return torch.cat([call(self.decoder, z.device, *part).mean for part in rows])

    @torch.no_grad()
    def sample(self, count: int, seed: int | None = None, labels: Tensor | None = None) -> Tensor:
        """Images decoded from `count` codes of the prior, (count, C, H, W); the seed, if given, decides the codes.

        Another count gives other codes from the same seed. A conditional model needs labels, one for each image.
        """
        given = self.labels(labels, count)
        with evaluating(self), nullcontext() if seed is None else seeded(seed, self.device):
            p = call(self.prior, self.device, *given)
            codes = p.sample() if p.batch_shape else p.sample((count,))
            return self.decode(codes.to(self.device), labels)

    def prepare(self, x: Tensor) -> Tensor:
        """What encoder and likelihood see of images: checked, in the type of the weights, and preprocessed."""
        if x.shape[1:] != self.image_shape or not x.is_floating_point():
            expected = ", ".join(map(str, ("B", *self.image_shape)))
            raise ValueError(
                f"expected float images of shape ({expected}), got {x.dtype} of shape {tuple(x.shape)}; "
                f"vaelib.data.to_float turns uint8 pixels into floats in [0, 1]"
            )
        weight = next((each for each in self.parameters() if each.is_floating_point()), x)
        x = at_least_float32(x.to(weight.dtype))
        x = self.preprocess(x.clone())  # what works in place must not change the data
        parts = self.decoder.modules() if isinstance(self.decoder, nn.Module) else [self.decoder]
        support = next((part.support for part in parts if hasattr(part, "support")), None)
        if support is None or torch.compiler.is_compiling() or (self.training and x.device.type != "cpu"):
            return x
        low, high = (each.item() for each in x.aminmax())
        least, most = getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)
        if not least <= low <= high <= most:
            raise ValueError(
                f"the images have values from {low:.4g} to {high:.4g}, and {type(self.decoder).__name__} expects them "
                f"in [{least}, {most}]; scale them, or take another decoder"
            )
        return x

    def labels(self, labels: Tensor | None, count: int) -> tuple[Tensor, ...]:
        """What the three modules get besides images or codes: of a conditional model the labels."""
        if not self.conditional:
            return ()
        if labels is None:
            raise ValueError("this model is conditional; give the images' labels, too: labels=...")
        if not isinstance(labels, Tensor) or labels.shape[:1] != (count,):
            found = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(f"expected a tensor with a label for each of {count} images or codes, not {found}")
        return (labels,)

    def _rows(self, values: Tensor) -> int:
        """How many images to decode at once."""
        if self.training:
            return max(1, len(values))
        return eval_batch_size(values.device, math.prod(self.image_shape))

    def _log_likelihood(self, x: Tensor, codes: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        """log p(x | z), (S, B), of images (B, C, H, W) and several codes of each, (S, B, K)."""
        if len(codes) == 1:
            likelihood = call(self.decoder, x.device, codes.squeeze(0), *labels)
            with full_precision(x.device):
                return likelihood.log_prob(x).unsqueeze(0)
        parts = []
        for part in codes.split(max(1, self._rows(codes.flatten(0, 1)) // max(1, len(x)))):
            images, *given = (each.expand(len(part), *each.shape).flatten(0, 1) for each in (x, *labels))
            likelihood = call(self.decoder, x.device, part.flatten(0, 1), *given)
            with full_precision(x.device):
                parts.append(likelihood.log_prob(images).unflatten(0, (len(part), len(x))))
        return torch.cat(parts)


def _stack(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(parts)) if len(parts) > 1 else parts[0].unsqueeze(0)  # without a copy


class _Scorer(nn.Module):
    """log q(z | x), (S, B), as a module, so that it can be called with other weights."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, codes: Tensor, x: Tensor, *labels: Tensor) -> Tensor:
        q = call(self.encoder, x.device, x, *labels)
        with full_precision(x.device):
            return torch.stack([q.log_prob(z) for z in codes])


def call(module: Any, device: torch.device, *inputs: Tensor) -> Distribution:
    """A module's distribution; in mixed precision only if the module says that it can."""
    with nullcontext() if getattr(module, "autocast", False) else full_precision(device):
        return module(*inputs)


def draw(q: Distribution, reparameterized: bool = True) -> tuple[Tensor, Tensor]:
    """A sample, and log q of it: both at once where the distribution can, as an inverse autoregressive flow must."""
    if reparameterized and (type(q) is DiagonalNormal or _draws_both(type(q))):
        return q.rsample_and_log_prob()  # type: ignore[attr-defined]
    z = q.rsample() if reparameterized and q.has_rsample else q.sample()
    return z, q.log_prob(z)


def _draws_both(kind: type) -> bool:
    """Whether it has an `rsample_and_log_prob` that no subclass has left behind by another `rsample` or `log_prob`."""
    owner = {name: each for each in reversed(kind.__mro__) for name in vars(each)}
    both = owner.get("rsample_and_log_prob")
    return both is not None and all(issubclass(both, owner[name]) for name in ("rsample", "log_prob"))


def eval_batch_size(device: torch.device, values: int) -> int:
    """How many images of that many values are evaluated at once."""
    return max(1, (EVAL_BATCH_VALUES if device.type == "cpu" else 64 * EVAL_BATCH_VALUES) // values)


def mlp(
    image_shape: Shape,
    latent_dim: int,
    encoder: Maker = encoders.Gaussian,
    decoder: Maker = decoders.Bernoulli,
    prior: Maker = priors.Standard,
) -> VAE:
    """The fully connected VAE of the paper's section 4.1: 784 - 512 - 512 - K - 512 - 512 - 784 on MNIST.

    Parameters
    ----------
    image_shape : (C, H, W), or (D,) for rows of numbers
    latent_dim : K
    encoder : makes the encoder from (features, their number, K)
    decoder : makes the decoder from the network from codes to numbers (B, C, H, W); if it has an attribute `outputs`,
        the network returns that many for each pixel value: (B, outputs * C, H, W)
    prior : makes the prior from (K)
    """

    def layers(size: int) -> list[nn.Module]:
        return [nn.Linear(size, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]

    pixels, channels, outputs = math.prod(image_shape), image_shape[0], getattr(decoder, "outputs", 1)
    features = nn.Sequential(nn.Flatten(), *layers(pixels))  # (B, 512)
    unflatten = nn.Unflatten(1, (outputs * channels, *image_shape[1:]))  # (B, 1, 28, 28)
    output = nn.Sequential(*layers(latent_dim), nn.Linear(512, outputs * pixels), unflatten)
    return VAE(encoder(features, 512, latent_dim), decoder(output), prior(latent_dim), image_shape)


def conv(
    image_shape: Shape,
    latent_dim: int,
    encoder: Maker = encoders.Gaussian,
    decoder: Maker = decoders.Bernoulli,
    prior: Maker = priors.Standard,
) -> VAE:
    """The convolutional VAE of the paper's section 5.1: each of four blocks halves (or doubles) height and width.

    Images whose sides are no multiples of 16 are continued to the right and downwards by their last pixels for the
    encoder, and what the decoder makes of that part is cut off. The parameters are those of `mlp`.
    """
    if len(image_shape) != 3:
        raise ValueError(
            f"convolutions need images of shape (C, H, W), not {(*image_shape,)}; models.mlp takes any shape"
        )
    channels, height, width = image_shape
    right, bottom = -width % 16, -height % 16  # none for the paper's images, 64 x 48
    smallest = (256, (height + bottom) // 16, (width + right) // 16)  # (256, 4, 3) for 64 x 48
    size = math.prod(smallest)
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for outer, inner in pairwise((channels, 32, 64, 128, 256)):
        out = outer if up else outer * getattr(decoder, "outputs", 1)
        down += [nn.Conv2d(outer, inner, 4, 2, 1), nn.BatchNorm2d(inner), nn.ReLU()]
        up = [nn.ReLU(), nn.ConvTranspose2d(inner, out, 4, 2, 1), *up]
    if right or bottom:
        down, up = [nn.ReplicationPad2d((0, right, 0, bottom)), *down], [*up, nn.ZeroPad2d((0, -right, 0, -bottom))]
    features = nn.Sequential(*down, nn.Flatten())  # (B, 3072)
    output = nn.Sequential(nn.Linear(latent_dim, size), nn.Unflatten(1, smallest), *up)
    return VAE(encoder(features, size, latent_dim), decoder(output), prior(latent_dim), image_shape)


def build(image_shape: Shape, latent_dim: int) -> VAE:
    """The paper's model: fully connected for grey images and rows of numbers, convolutional for colour images."""
    return (conv if len(image_shape) == 3 and image_shape[0] > 1 else mlp)(image_shape, latent_dim)


def unwrap(model: VAE) -> VAE:
    """The model inside `torch.compile` or `DistributedDataParallel`, or else the model itself; they share weights."""
    inner = model.module if isinstance(model, DistributedDataParallel) else getattr(model, "_orig_mod", model)
    return inner if inner is model else unwrap(inner)
