"""The VAE that joins encoder, decoder and prior, and the paper's two models."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.parallel import DistributedDataParallel

from .decoders import Bernoulli, Decoder
from .distributions import at_least_float32, full_precision, kl_by_dimension, mean_and_log_variance
from .encoders import Encoder, Gaussian, evaluating
from .objective import Terms, whole_number
from .priors import Prior, Standard
from .seeding import seeded

Shape = tuple[int, ...]
Maker = Callable[..., nn.Module]
EVAL_BATCH_VALUES = 784_000  # values in an evaluation batch (1,000 digits or 85 faces), so that it fits a CPU's cache


class VAE(nn.Module):
    """Three modules that return distributions. Everything else follows from them.

    Parameters
    ----------
    encoder : module from images (B, C, H, W) to the posterior q(z | x), see `encoders.Encoder`
    decoder : module from codes (B, K) to the likelihood p(x | z), see `decoders.Decoder`
    prior : module whose call returns p(z), see `priors.Prior`
    image_shape : (C, H, W), or (D,) for rows of numbers
    conditional : whether the three modules also get labels: encoder(x, y), decoder(z, y) and prior(y)
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, prior: Prior, image_shape: Shape, conditional: bool = False):
        super().__init__()
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.image_shape: Shape = (*image_shape,)
        self.conditional = conditional

    @cached_property
    def latent_dim(self) -> int:
        """K, the size of the codes. For a conditional model, `checks.check_model` sets it."""
        return self.prior().event_shape[0]

    @property
    def device(self) -> torch.device:
        """The device of the weights, or the CPU if there are no weights."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))

    def preprocess(self, x: Tensor) -> Tensor:
        """Return the images that encoder and likelihood get. Here they are unchanged; a subclass can override this.

        Apply random changes, such as augmentation, in training mode only: `if self.training`.

        Parameters
        ----------
        x : float Tensor of shape (B, C, H, W)
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
        """Compute the log-densities that objectives and metrics need, for codes drawn from each posterior.

        Encoder and decoder may run in mixed precision. Codes are drawn and scored in float32 (float64 if the weights
        are). In evaluation mode, codes are decoded in chunks, to bound memory.

        Parameters
        ----------
        x : float Tensor of shape (B, C, H, W), before `preprocess`
        samples : S, number of codes from each posterior
        labels : Tensor of shape (B,) or (B, A), required by a conditional model
        fixed_posterior : whether log q(z | x) is computed with the encoder's weights held fixed, so that its gradient
            passes through z only, as in "sticking the landing" (arXiv:1703.09194) and DReG (arXiv:1810.04152). This
            takes a second pass
        reparameterized : whether gradients pass through z, if the posterior has an `rsample`

        Raises
        ------
        ValueError
            If the images aren't floats of this model's shape, the decoder doesn't allow their values, or labels are
            missing. On a GPU, values aren't checked in training mode, because the check would make the GPU wait.
        """
        x, given = self.prepare(x), self.labels(labels, len(x))
        q, p = call(self.encoder, x.device, x, *given), call(self.prior, x.device, *given)
        with full_precision(x.device):
            draws = zip(*(draw(q, reparameterized) for _ in range(whole_number("samples", samples))), strict=True)
            codes, log_posterior = map(torch.stack, draws)
            log_prior = torch.stack([p.log_prob(z) for z in codes.unbind()])
            kl = kl_by_dimension(q, p)
        if fixed_posterior:
            fixed: Any = copy.deepcopy(self.encoder)  # so that batch norm or an average doesn't count the batch twice
            q = call(fixed.requires_grad_(False), x.device, x, *given)
            with full_precision(x.device):
                log_posterior = torch.stack([q.log_prob(z) for z in codes.unbind()])
        return Terms(self._log_likelihood(x, codes, given), log_prior, log_posterior, codes, kl)

    def forward(self, *arguments: Any, **options: Any) -> Terms:
        """Call `terms`, so that compiled and distributed models work with every objective."""
        return self.terms(*arguments, **options)

    def elbo(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute both terms of each image's ELBO from one posterior sample: reconstruction and KL, (B,), in nats."""
        terms = self.terms(x, labels=labels)
        return terms.reconstruction, terms.divergence

    def posterior(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        """Return q(z | x) of each image."""
        return call(self.encoder, self.device, self.prepare(x), *self.labels(labels, len(x)))

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return each image's posterior as its mean and log-variance, both of shape (B, K)."""
        return mean_and_log_variance(self.posterior(x, labels))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the mean images of p(x | z), (B, C, H, W), for codes (B, K): the paper's pixel probabilities.

        In evaluation mode, codes are decoded in chunks, so that memory stays close to the size of the result. Raises
        ValueError if codes aren't floats of shape (B, K), or labels are missing.
        """
        given = self.labels(labels, len(z) if getattr(z, "ndim", 0) else 0)
        z = self._floats("codes", z, call(self.prior, self.device, *given).event_shape)
        rows = zip(*(each.split(self.rows(z.device)) for each in (z, *given)), strict=True)
        return torch.cat([call(self.decoder, z.device, *part).mean for part in rows])

    @torch.no_grad()
    def sample(self, count: int, seed: int | None = None, labels: Tensor | None = None) -> Tensor:
        """Decode `count` codes drawn from the prior into mean images, (count, C, H, W).

        Parameters
        ----------
        count : number of images. Another count gives other codes from the same seed
        seed : of the codes; torch's current random state by default
        labels : Tensor of `count` labels, required by a conditional model
        """
        count = whole_number("count", count, least=0)
        given = self.labels(labels, count)
        with evaluating(self), nullcontext() if seed is None else seeded(seed, self.device):
            p = call(self.prior, self.device, *given)
            codes = p.sample() if p.batch_shape else p.sample((count,))
            return self.decode(codes.to(self.device), labels)

    def prepare(self, x: Tensor) -> Tensor:
        """Check images, convert them to the weights' type, and preprocess them for encoder and likelihood."""
        x = self._floats("images", x, self.image_shape, "; vaelib.data.to_float converts pixels into floats in [0, 1]")
        x = self.preprocess(x)
        parts = self.decoder.modules() if isinstance(self.decoder, nn.Module) else [self.decoder]
        support = next((part.support for part in parts if hasattr(part, "support")), None)
        if support is None or not len(x) or torch.compiler.is_compiling() or (self.training and x.device.type != "cpu"):
            return x
        low, high = (each.item() for each in x.aminmax())
        least, most = getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)
        if not least <= low <= high <= most:
            found = f"the images have values from {low:.4g} to {high:.4g}, but {type(self.decoder).__name__} expects"
            raise ValueError(f"{found} them in [{least}, {most}]; scale them, or choose another decoder")
        return x

    def _floats(self, what: str, values: Tensor, shape: Shape, advice: str = "") -> Tensor:
        """Check the shape of images or codes, and copy them in the weights' type."""
        if not isinstance(values, Tensor):
            raise ValueError(f"expected a tensor of {what}, not a {type(values).__name__}; see torch.as_tensor")
        if values.shape[1:] != shape or not values.is_floating_point():
            expected = ", ".join(map(str, ("B", *shape)))
            found = f"{values.dtype} of shape {tuple(values.shape)}"
            raise ValueError(f"expected float {what} of shape ({expected}), got {found}{advice}")
        weight = next((each for each in self.parameters() if each.is_floating_point()), values)
        return at_least_float32(values.to(weight.dtype, copy=True))  # in-place preprocessing must not change the data

    def labels(self, labels: Tensor | None, count: int) -> tuple[Tensor, ...]:
        """Return the labels for the three modules as a tuple, which is empty unless the model is conditional."""
        if not self.conditional:
            return ()
        if not isinstance(labels, Tensor) or labels.shape[:1] != (count,):
            found = getattr(labels, "shape", type(labels).__name__)
            raise ValueError(f"this model is conditional; give the images' labels: {count} in a tensor, not {found}")
        return (labels,)

    def rows(self, device: torch.device) -> int:
        """Return how many images to evaluate at once. In training mode, a batch is never split."""
        values = EVAL_BATCH_VALUES if device.type == "cpu" else 64 * EVAL_BATCH_VALUES
        return 2**31 if self.training else max(1, values // math.prod(self.image_shape))

    def _log_likelihood(self, x: Tensor, codes: Tensor, labels: tuple[Tensor, ...]) -> Tensor:
        """Compute log p(x | z), (S, B), of images (B, C, H, W) and S codes of each, (S, B, K)."""
        parts = []
        for part in codes.split(max(1, self.rows(x.device) // max(1, len(x)))):
            images, *given = (each.expand(len(part), *each.shape).flatten(0, 1) for each in (x, *labels))
            likelihood = call(self.decoder, x.device, part.flatten(0, 1), *given)
            with full_precision(x.device):
                parts.append(likelihood.log_prob(images).unflatten(0, (len(part), len(x))))
        return torch.cat(parts)


def call(module: Any, device: torch.device, *inputs: Tensor) -> Distribution:
    """Call a module, in mixed precision only if the module supports it, and return its distribution."""
    with nullcontext() if getattr(module, "autocast", False) else full_precision(device):
        return module(*inputs)


def draw(q: Any, reparameterized: bool = True) -> tuple[Tensor, Tensor]:
    """Draw a sample z and compute log q(z), both at once if the distribution can.

    An inverse autoregressive flow needs this: the density of a given code takes K passes.
    """
    if reparameterized and "rsample_and_log_prob" in vars(type(q)):  # not inherited: a subclass may change log_prob
        return q.rsample_and_log_prob()
    z = q.rsample() if reparameterized and q.has_rsample else q.sample()
    return z, q.log_prob(z)


def mlp(
    image_shape: Shape, latent_dim: int, encoder: Maker = Gaussian, decoder: Maker = Bernoulli, prior: Maker = Standard
) -> VAE:
    """Build the fully connected VAE of the paper's section 4.1: 784 - 512 - 512 - K - 512 - 512 - 784 on MNIST.

    Parameters
    ----------
    image_shape : (C, H, W), or (D,) for rows of numbers
    latent_dim : K
    encoder : makes the encoder from (features, their number, K)
    decoder : makes the decoder from the network, which maps codes to (B, C, H, W). If it has an attribute `outputs`,
        the network returns `outputs` numbers per pixel value: (B, outputs * C, H, W)
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
    image_shape: Shape, latent_dim: int, encoder: Maker = Gaussian, decoder: Maker = Bernoulli, prior: Maker = Standard
) -> VAE:
    """Build the convolutional VAE of the paper's section 5.1: each of four blocks halves (or doubles) height and width.

    If a side isn't a multiple of 16, the encoder pads the image on the right and at the bottom with its last pixels.
    The decoder crops this part. The parameters are those in `mlp`.
    """
    if len(image_shape) != 3:
        raise ValueError(f"convolutions need shape (C, H, W), not {(*image_shape,)}; models.mlp takes any shape")
    channels, height, width = image_shape
    right, bottom = -width % 16, -height % 16  # both are 0 for the paper's images, 64 x 48
    smallest = (256, (height + bottom) // 16, (width + right) // 16)  # (256, 4, 3) for 64 x 48
    size = math.prod(smallest)
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for outer, inner in pairwise((channels, 32, 64, 128, 256)):
        out = outer if up else outer * getattr(decoder, "outputs", 1)  # the first layer made is the decoder's last
        down += [nn.Conv2d(outer, inner, 4, 2, 1), nn.BatchNorm2d(inner), nn.ReLU()]
        up = [nn.ReLU(), nn.ConvTranspose2d(inner, out, 4, 2, 1), *up]
    if right or bottom:
        down, up = [nn.ReplicationPad2d((0, right, 0, bottom)), *down], [*up, nn.ZeroPad2d((0, -right, 0, -bottom))]
    features = nn.Sequential(*down, nn.Flatten())  # (B, 3072)
    output = nn.Sequential(nn.Linear(latent_dim, size), nn.Unflatten(1, smallest), *up)
    return VAE(encoder(features, size, latent_dim), decoder(output), prior(latent_dim), image_shape)


def build(image_shape: Shape, latent_dim: int) -> VAE:
    """Build the paper's model: convolutional for colour images, fully connected for grey images and rows of numbers."""
    return (conv if len(image_shape) == 3 and image_shape[0] > 1 else mlp)(image_shape, latent_dim)


def unwrap(model: VAE) -> VAE:
    """Return the model inside `torch.compile` or `DistributedDataParallel`, or else the model itself.

    Both share their weights.
    """
    inner = model.module if isinstance(model, DistributedDataParallel) else getattr(model, "_orig_mod", model)
    return inner if inner is model else unwrap(inner)
