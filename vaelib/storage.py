"""A model's weights on disk as safetensors, written completely or not at all, and loaded without executing anything."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from . import files
from .models import VAE, build, unwrap
from .naming import current_name, qualified_name
from .seeding import seeded

PRETRAINED = Path(__file__).with_name("pretrained")


def save(model: VAE, path: Path | str, builder: Callable[..., VAE] = build) -> None:
    """Write a model as safetensors, with a checksum and the name of the function that built it.

    The file is written completely or not at all. A model in half precision (`model.half()`, for storage only) takes
    half the space.

    Raises
    ------
    ValueError
        If the function builds a model with other modules or weights of other shapes, or if a weight can't be stored.
    """
    files.write(Path(path), serialize(model, builder))


def serialize(model: VAE, builder: Callable[..., VAE] = build) -> bytes:
    """Return the bytes that `save` writes. Raises like `save`. Shared weights are stored for each module."""
    model, twin = unwrap(model), unwrap(_build(builder, model.image_shape, model.latent_dim))
    # The model itself, and the memory of its weights: a new model has others
    places = [{id(one), *(each.data_ptr() for each in one.parameters() if each.numel())} for one in (model, twin)]
    if places[0] & places[1] or architecture(twin) != architecture(model):
        raise ValueError(
            f"{qualified_name(builder)} must build a new model with the modules and weights of this one; give its own "
            "function as `builder`, and make all modules and weights there, not before or when the model is called"
        )
    recipe = {"builder": qualified_name(builder), "image_shape": [*model.image_shape], "latent_dim": model.latent_dim}
    try:
        tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        twin.load_state_dict(tensors)  # as it will be asked to
        metadata = json.dumps(recipe | {"sha256": tensor_digest(tensors)})
        return safetensors.torch.save(tensors, {"vaelib": metadata})
    except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the model's weights cannot be stored ({type(error).__name__}: {error}); its state_dict must only hold "
            "tensors of real numbers"
        ) from error


def load(
    path: Path | str,
    device: torch.device | str = "cpu",
    builder: Callable[..., VAE] = build,
    checksum: str | None = None,
) -> VAE:
    """Load a model that `save` wrote, in single precision and evaluation mode.

    Nothing in the file is executed or imported. To load a model other than the paper's, give its builder.

    Parameters
    ----------
    path, device : of the weights
    builder : the function that built the model
    checksum : SHA-256 of the file, if known

    Raises
    ------
    ValueError
        If `save` didn't write the file, the file is damaged, has another checksum, or needs another builder (the
        message names it).
    """
    path, advice = Path(path), "take an undamaged copy, or delete the file and train again"
    if files.exists(path) and not path.is_file():  # a pipe would never end
        raise ValueError(f"{path} is not a file of weights")
    if checksum and sha256(path) != checksum:
        raise ValueError(f"{path} is damaged, or of another run: its checksum doesn't match the record; {advice}")
    try:
        tensors, metadata = read(path)
        recipe = json.loads(metadata["vaelib"])
        name, shape, latent_dim = current_name(recipe["builder"]), tuple(recipe["image_shape"]), recipe["latent_dim"]
        if recipe["sha256"] != tensor_digest(tensors):
            raise ValueError("its checksum does not match")
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged, or doesn't hold weights of this vaelib ({error}); {advice}") from error
    if name != qualified_name(builder):
        raise ValueError(
            f"{path} holds weights of a model that {name:.200} built, not {qualified_name(builder)}; "
            f"give that function as `builder`"
        )
    found = expected = {name: (*each.shape,) for name, each in tensors.items()}
    # Shapes first, before memory is used for them. A builder that needs values fails here, and is called again below
    with suppress(Exception), torch.device("meta"):
        expected = architecture(_build(builder, shape, latent_dim))[1]
    try:
        if found != expected:
            raise ValueError("other weights or shapes")
        model = _build(builder, shape, latent_dim)
        unwrap(model).load_state_dict(tensors)  # copied into float32
    except Exception as error:  # a builder can raise anything
        raise ValueError(f"{path} does not fit what {qualified_name(builder)} builds ({error}); {advice}") from error
    unwrap(model).latent_dim = latent_dim
    return model.to(device).eval()


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a file."""
    with safetensors.safe_open(path, "pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def sha256(path: Path) -> str:
    """Compute a file's checksum, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_pretrained(name: str, device: torch.device | str = "cpu") -> VAE:
    """Load a published model: "mnist-k1", "mnist-k2" or "celeba-k64". See the cards in `pretrained`.

    Raises
    ------
    ValueError
        If no published model has this name. The message lists all names.
    """
    known = sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))
    if name not in known:
        raise ValueError(f"no published model {name!r}; known: {', '.join(known)}")
    return load(PRETRAINED / f"{name}.safetensors", device)


def _build(builder: Callable[..., VAE], image_shape: tuple[int, ...], latent_dim: int) -> VAE:
    with seeded(0):  # building must not change the caller's random state; the weights are overwritten
        return builder(image_shape, latent_dim)


def architecture(model: VAE) -> tuple[list[tuple[str, str]], dict[str, tuple[int, ...]]]:
    """Return a model's modules, by class, and the shapes of its weights."""
    modules = [(name, type(module).__qualname__) for name, module in unwrap(model).named_modules()]
    return modules, {name: (*getattr(each, "shape", ()),) for name, each in unwrap(model).state_dict().items()}


def tensor_digest(tensors: dict[str, Tensor]) -> str:
    """Compute the SHA-256 sum of tensors: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())  # NumPy doesn't support bfloat16
    return digest.hexdigest()
