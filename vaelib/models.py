"""The paper's architectures, and the VAE that ties an encoder to a decoder; their weights on disk."""

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from . import files, objective

WEIGHTS = Path(__file__).with_name("weights")


class VAE(nn.Module):
    """A Gaussian encoder, a Bernoulli decoder and a standard normal prior.

    Parameters
    ----------
    encoder : module from images (B, C, H, W) to features (B, F)
    features : F
    decoder : module from codes (B, K) to logits (B, C, H, W)
    latent_dim : K
    image_shape : (C, H, W)
    """

    def __init__(self, encoder: nn.Module, features: int, decoder: nn.Module, latent_dim: int, image_shape: tuple):
        super().__init__()
        self.latent_dim, self.image_shape = latent_dim, tuple(image_shape)
        self.encoder = encoder
        self.mean = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)
        self.decoder = decoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean.weight.device

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior q(z | x) of each image, as its mean and log-variance, both of shape (B, K).

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
        features = self.encoder(x)  # (B, F)
        # float(): under mixed precision the linear layers answer in bfloat16, too coarse for sums of thousands of terms
        return self.mean(features).float(), self.log_variance(features).float()

    def decode(self, z: Tensor) -> Tensor:
        """The pixel probabilities p(x_j = 1 | z), shape (B, C, H, W), for codes of shape (B, K)."""
        return torch.sigmoid(self.decoder(z).float())

    def elbo(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Both terms of the ELBO of each image, from one sample of its posterior: reconstruction (B,) and KL (B,)."""
        mean, log_variance = self.encode(x)
        z = objective.reparameterize(mean, log_variance, generator)  # (B, K)
        return objective.elbo(x, self.decoder(z).float(), mean, log_variance)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Images decoded from `count` codes of the prior N(0, I), shape (count, C, H, W)."""
        return self.decode(torch.randn(count, self.latent_dim, generator=generator, device=self.device))


def mlp(image_shape: tuple[int, int, int], latent_dim: int) -> VAE:
    """The fully connected VAE of the paper's section 4.1: 784 - 512 - 512 - K - 512 - 512 - 784 on MNIST."""
    pixels, hidden = math.prod(image_shape), 512
    encoder = nn.Sequential(
        nn.Flatten(),  # (B, 784)
        nn.Linear(pixels, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
    )
    decoder = nn.Sequential(
        nn.Linear(latent_dim, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, pixels),
        nn.Unflatten(1, image_shape),  # (B, 1, 28, 28)
    )
    return VAE(encoder, hidden, decoder, latent_dim, image_shape)


def conv(image_shape: tuple[int, int, int], latent_dim: int) -> VAE:
    """The convolutional VAE of the paper's section 5.1: each of four blocks halves (or doubles) height and width.

    Raises
    ------
    ValueError
        If height or width is no multiple of 16.
    """
    channels, height, width = image_shape
    if height % 16 or width % 16:
        raise ValueError(f"height and width must be multiples of 16, not {height} x {width}; crop or resize the images")
    block = {"kernel_size": 4, "stride": 2, "padding": 1}
    sizes = (channels, 32, 64, 128, 256)
    smallest = (256, height // 16, width // 16)  # (256, 4, 3) for 64 x 48
    features = math.prod(smallest)
    down, up = [], []
    for outer, inner in pairwise(sizes):
        down += [nn.Conv2d(outer, inner, **block), nn.BatchNorm2d(inner), nn.ReLU()]
        up = [nn.ReLU(), nn.ConvTranspose2d(inner, outer, **block), *up]
    encoder = nn.Sequential(*down, nn.Flatten())  # (B, 3072)
    decoder = nn.Sequential(nn.Linear(latent_dim, features), nn.Unflatten(1, smallest), *up)
    return VAE(encoder, features, decoder, latent_dim, image_shape)


def build(image_shape: tuple[int, int, int], latent_dim: int) -> VAE:
    """The paper's model for such images: fully connected for grey ones, convolutional for colour."""
    return (mlp if image_shape[0] == 1 else conv)(image_shape, latent_dim)


def save(model: VAE, path: Path) -> None:
    """Write a model of `build` as safetensors, whole or not at all, with its recipe and a checksum.

    A model in half precision (`model.half()`) takes half the room.
    """
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    recipe = {"image_shape": list(model.image_shape), "latent_dim": model.latent_dim}
    metadata = json.dumps(recipe | {"sha256": _checksum(tensors)})
    files.write(path, safetensors.torch.save(tensors, {"vaelib": metadata}))


def load(path: Path, device: torch.device | str = "cpu") -> VAE:
    """The model that `save` wrote, in single precision and evaluation mode.

    Raises
    ------
    ValueError
        If the file is not one of `save`'s, or was damaged since (the message names it).
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata, names = file.metadata(), file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        recipe = json.loads(metadata["vaelib"])
        with torch.device("meta"):  # nothing is drawn for weights that are replaced at once
            model = build(tuple(recipe["image_shape"]), recipe["latent_dim"])
        model.load_state_dict(tensors, assign=True)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} is damaged, or holds no weights of vaelib ({error}); delete it to train again"
        ) from error
    if recipe.get("sha256") != _checksum(tensors):
        raise ValueError(f"{path} is damaged: its checksum does not match; delete it to train again")
    return model.float().to(device).eval()


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


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy())
    return digest.hexdigest()
