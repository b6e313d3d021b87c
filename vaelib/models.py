"""The paper's two models, and the VAE that ties encoder, decoder and prior together; their weights on disk."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from . import files, likelihoods, posteriors, priors
from .naming import described
from .seeding import seeded

WEIGHTS = Path(__file__).with_name("weights")
PIXELS = 784_000  # of a batch that is only looked at: 1,000 digits, or 85 faces; a processor's cache holds no more


class VAE(nn.Module):
    """Three modules that return distributions; all else follows from these.

    Parameters
    ----------
    encoder : module from images (B, C, H, W) to the posterior q(z | x), a distribution over codes (K,)
    decoder : module from codes (B, K) to the likelihood p(x | z), a distribution over images (C, H, W)
    prior : module whose call, without arguments, gives p(z), a distribution over codes (K,)
    image_shape : (C, H, W)
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prior: nn.Module, image_shape: tuple[int, int, int]):
        super().__init__()
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.image_shape: tuple[int, int, int] = (*image_shape,)

    @property
    def latent_dim(self) -> int:
        """K."""
        return self.prior().event_shape[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU, if there are none."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))

    def observe(self, x: Tensor) -> Tensor:
        """The images as the model takes them, which both its encoder and its likelihood see: unchanged, if they fit.

        Raises
        ------
        ValueError
            If x is not a floating-point tensor of shape (B, C, H, W) with this model's C, H, W.
        """
        if x.shape[1:] != self.image_shape or not x.is_floating_point():
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(
                f"expected float images in [0, 1] of shape (B, {expected}), got {x.dtype} of shape {tuple(x.shape)}; "
                f"vaelib.data.to_float turns uint8 pixels into such"
            )
        return x

    def check(self) -> None:
        """Make sure that the three modules fit each other, before anything is trained or scored.

        Raises
        ------
        ValueError
            If one of them fails, or returns no distribution, or one of another shape, or the encoder's cannot be
            sampled with gradients, or the decoder's has no finite mean; names the module, and what was expected.
        """
        training = self.training
        try:
            with seeded(0, self.device), torch.no_grad():
                x = self.observe(torch.zeros(2, *self.image_shape, device=self.device))
                q = _called("encoder", self.eval().encoder, x)
                _expect("encoder", q, (2,), None)
                if not (q.has_rsample or hasattr(q, "rsample_and_log_prob")):
                    raise ValueError(
                        f"the encoder returned {type(q).__name__}, which has no rsample: no gradient passes it"
                    )
                _expect("prior", _called("prior", self.prior), (), q.event_shape)
                z, _ = _draw(q)
                likelihood = _called("decoder", self.decoder, z)
                _expect("decoder", likelihood, (2,), self.image_shape)
                mean = _called("decoder's mean", lambda: likelihood.mean)
                if z.isfinite().all() and not mean.isfinite().all():  # of other codes, a training has failed
                    raise ValueError(
                        "the decoder returned a distribution without a finite mean, which is the image shown"
                    )
        finally:
            self.train(training)

    def posterior(self, x: Tensor) -> Distribution:
        """q(z | x) of each image."""
        return self.encoder(self.observe(x))

    def elbo(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both terms of the ELBO of each image, from one sample of its posterior: reconstruction (B,) and KL (B,).

        The KL is the closed form where torch knows one, else log q(z | x) - log p(z) of the same sample.
        """
        x = self.observe(x)
        q, p = self.encoder(x), self.prior()
        if hasattr(q, "rsample_and_log_prob"):
            z, log_q = _draw(q)
            return self.decoder(z).log_prob(x), log_q - p.log_prob(z)
        z = q.rsample()  # (B, K)
        reconstruction = self.decoder(z).log_prob(x)
        try:
            return reconstruction, kl_divergence(q, p)
        except NotImplementedError:
            return reconstruction, q.log_prob(z) - p.log_prob(z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`elbo`, so that a model compiled by `torch.compile` trains compiled."""
        return self.elbo(x)

    def log_likelihood(self, x: Tensor, codes: Tensor) -> Tensor:
        """log p(x | z), (samples, B), of observed images (B, C, H, W) and several codes of each, (samples, B, K)."""
        parts = []
        for part in codes.split(max(1, PIXELS // x.numel())):  # small batches of many samples are decoded as one
            repeated = x.expand(len(part), *x.shape).flatten(0, 1)
            parts.append(self.decoder(part.flatten(0, 1)).log_prob(repeated).unflatten(0, (len(part), len(x))))
        return torch.cat(parts)

    def log_densities(self, x: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
        """log p(x | z), log p(z) and log q(z | x), each (samples, B), of several samples z of each posterior."""
        x = self.observe(x)
        q, p = self.encoder(x), self.prior()
        codes, posterior = map(torch.stack, zip(*(_draw(q) for _ in range(samples)), strict=True))
        return self.log_likelihood(x, codes), torch.stack([p.log_prob(z) for z in codes]), posterior

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior of each image, as its mean and log-variance, both of shape (B, K)."""
        return posteriors.moments(self.posterior(x))

    def decode(self, z: Tensor) -> Tensor:
        """The mean image of p(x | z), (B, C, H, W), for codes of shape (B, K): the paper's pixel probabilities."""
        return self.decoder(z).mean

    @torch.no_grad()
    def sample(self, count: int, seed: int | None = None) -> Tensor:
        """Images decoded from `count` codes of the prior, (count, C, H, W); the seed, if given, decides the codes."""
        if seed is not None:
            with seeded(seed, self.device):
                return self.sample(count)
        codes = self.prior().sample((count,)).to(self.device)
        return torch.cat([self.decode(part) for part in codes.split(max(1, PIXELS // math.prod(self.image_shape)))])


def _called(module: str, function: Callable, *inputs: Tensor) -> Any:
    try:
        return function(*inputs)
    except Exception as error:  # of whatever kind somebody's module raises
        shapes = "".join(f" for a tensor of shape {tuple(each.shape)}" for each in inputs)
        hint = (
            "; a likelihood of several numbers for each pixel value needs an attribute `outputs`, see vaelib.models.mlp"
        )
        message = f"the {module} failed{shapes} ({type(error).__name__}: {error}){hint * (module == 'decoder')}"
        raise ValueError(message) from error


def _expect(module: str, given: object, batch: tuple[int, ...], event: tuple[int, ...] | None) -> None:
    if not isinstance(given, Distribution):
        raise ValueError(f"the {module} must return a torch.distributions.Distribution, not a {type(given).__name__}")
    found = (*given.batch_shape, *given.event_shape)
    wanted = (*batch, *(event or found[-1:]))
    if module == "prior" and len(found) == len(wanted) == 1 and found != wanted:
        raise ValueError(
            f"the encoder's codes have K = {wanted[0]} numbers, the prior's {found[0]}; they must be as many"
        )
    if given.batch_shape != batch or found != wanted:
        advice = f"; torch.distributions.Independent(..., {len(given.batch_shape) - len(batch)}) makes it so"
        raise ValueError(
            f"the {module} returned {type(given).__name__} with batch_shape {(*given.batch_shape,)} and event_shape "
            f"{(*given.event_shape,)}{' for a batch of two' * len(batch)}; expected are batch_shape {batch} and "
            f"event_shape {(*event,) if event else '(K,)'}{advice * (found == wanted)}"
        )


def _draw(q: Distribution) -> tuple[Tensor, Tensor]:
    """A sample, and log q of it: both at once where the distribution can, as an inverse autoregressive flow must."""
    if hasattr(q, "rsample_and_log_prob"):
        return q.rsample_and_log_prob()
    z = q.rsample()
    return z, q.log_prob(z)


def mlp(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    posterior: Callable[..., nn.Module] = posteriors.Gaussian,
    likelihood: Callable[..., nn.Module] = likelihoods.Bernoulli,
    prior: Callable[..., nn.Module] = priors.Standard,
) -> VAE:
    """The fully connected VAE of the paper's section 4.1: 784 - 512 - 512 - K - 512 - 512 - 784 on MNIST.

    Parameters
    ----------
    image_shape : (C, H, W)
    latent_dim : K
    posterior : makes the encoder of (features, their number, K)
    likelihood : makes the decoder of the network from codes to numbers (B, C, H, W); if it has an attribute `outputs`,
        the network gives it that many for each pixel value: (B, outputs * C, H, W)
    prior : makes the prior of (K)
    """
    pixels, hidden = math.prod(image_shape), 512
    channels, outputs = image_shape[0], getattr(likelihood, "outputs", 1)
    features = nn.Sequential(
        nn.Flatten(),  # (B, 784)
        nn.Linear(pixels, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
    )
    output = nn.Sequential(
        nn.Linear(latent_dim, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs * pixels),
        nn.Unflatten(1, (outputs * channels, *image_shape[1:])),  # (B, 1, 28, 28)
    )
    return VAE(posterior(features, hidden, latent_dim), likelihood(output), prior(latent_dim), image_shape)


def conv(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    posterior: Callable[..., nn.Module] = posteriors.Gaussian,
    likelihood: Callable[..., nn.Module] = likelihoods.Bernoulli,
    prior: Callable[..., nn.Module] = priors.Standard,
) -> VAE:
    """The convolutional VAE of the paper's section 5.1: each of four blocks halves (or doubles) height and width.

    Images whose sides are no multiples of 16 are continued to the right and downwards by their last pixels for the
    encoder, and what the decoder makes of that part is cut off. The parameters are those of `mlp`.
    """
    channels, height, width = image_shape
    right, bottom = -width % 16, -height % 16  # none for the paper's images, 64 x 48
    block: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
    sizes = (channels, 32, 64, 128, 256)
    smallest = (256, (height + bottom) // 16, (width + right) // 16)  # (256, 4, 3) for 64 x 48
    size = math.prod(smallest)
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    decoded = (channels * getattr(likelihood, "outputs", 1), *sizes[1:-1])
    for outer, inner, out in zip(sizes[:-1], sizes[1:], decoded, strict=True):
        down += [nn.Conv2d(outer, inner, **block), nn.BatchNorm2d(inner), nn.ReLU()]
        up = [nn.ReLU(), nn.ConvTranspose2d(inner, out, **block), *up]
    if right or bottom:
        down, up = [nn.ReplicationPad2d((0, right, 0, bottom)), *down], [*up, nn.ZeroPad2d((0, -right, 0, -bottom))]
    features = nn.Sequential(*down, nn.Flatten())  # (B, 3072)
    output = nn.Sequential(nn.Linear(latent_dim, size), nn.Unflatten(1, smallest), *up)
    return VAE(posterior(features, size, latent_dim), likelihood(output), prior(latent_dim), image_shape)


def build(image_shape: tuple[int, int, int], latent_dim: int) -> VAE:
    """The paper's model for such images: fully connected for grey ones, convolutional for colour."""
    return (mlp if image_shape[0] == 1 else conv)(image_shape, latent_dim)


def save(model: VAE, path: Path | str, builder: Callable[..., VAE] = build) -> None:
    """Write a model as safetensors, whole or not at all, with a checksum and the name of the function that built it.

    A model of half precision (`model.half()`, which is for storing) takes half the room.

    Raises
    ------
    ValueError
        If the function builds another model than this: other modules, or weights of other shapes.
    """
    if layout(_build(builder, model.image_shape, model.latent_dim)) != layout(model):
        raise ValueError(f"this model is not what {described(builder)} builds; give its own function as `builder`")
    tensors = {name: tensor.contiguous().cpu() for name, tensor in original(model).state_dict().items()}
    recipe = {"builder": described(builder), "image_shape": list(model.image_shape), "latent_dim": model.latent_dim}
    metadata = json.dumps(recipe | {"sha256": _checksum(tensors)})
    files.write(Path(path), safetensors.torch.save(tensors, {"vaelib": metadata}))


def load(path: Path | str, device: torch.device | str = "cpu", builder: Callable[..., VAE] = build) -> VAE:
    """The model that `save` wrote, in single precision and evaluation mode.

    Nothing that the file says is executed, or imported: whoever loads another model than the paper's gives the builder.

    Raises
    ------
    ValueError
        If the file is not one of `save`'s, was damaged since, or needs another builder (the message names it).
    """
    path, advice = Path(path), "take an undamaged copy, or train again"
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file of weights")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata, names = file.metadata(), file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        recipe = json.loads(metadata["vaelib"])
        name, shape, latent_dim = recipe["builder"], tuple(recipe["image_shape"]), recipe["latent_dim"]
        if not shape or not all(isinstance(size, int) and size > 0 for size in (*shape, latent_dim)):
            raise ValueError(f"no images have the shape {shape} and {latent_dim!r} latent dimensions")
        if recipe["sha256"] != _checksum(tensors):
            raise ValueError("its checksum does not match")
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged, or holds no weights of this vaelib ({error}); {advice}") from error
    if name != described(builder):
        raise ValueError(
            f"{path} holds weights of a model that {name} built, not {described(builder)}; "
            f"give that function as `builder`"
        )
    model = _build(builder, shape, latent_dim)
    try:
        original(model).load_state_dict(tensors)  # copied into float32
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit what {described(builder)} builds ({error}); {advice}") from error
    return model.to(device).eval()


def original(model: VAE) -> VAE:
    """The model that `torch.compile` has wrapped, or else the model itself: they share their weights."""
    return getattr(model, "_orig_mod", model)


def published(name: str, device: torch.device | str = "cpu") -> VAE:
    """A trained model that comes with the package: "mnist-k1", "mnist-k2" or "celeba-k64"; see the cards in `weights`.

    Raises
    ------
    ValueError
        If there is none of that name; lists those that there are.
    """
    known = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
    if name not in known:
        raise ValueError(f"no published model {name!r}; known: {', '.join(known)}")
    return load(WEIGHTS / f"{name}.safetensors", device)


def _build(builder: Callable[..., VAE], image_shape: tuple[int, ...], latent_dim: int) -> VAE:
    with seeded(0):  # what is drawn for weights that are replaced at once concerns nobody
        return builder(image_shape, latent_dim)


def layout(model: VAE) -> tuple[list[tuple[str, str]], dict[str, tuple[int, ...]]]:
    """What a model consists of: its modules, by class, and the shapes of its weights."""
    modules = [(name, type(module).__qualname__) for name, module in original(model).named_modules()]
    return modules, {name: (*tensor.shape,) for name, tensor in original(model).state_dict().items()}


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())  # NumPy knows no bfloat16
    return digest.hexdigest()
