"""A model's weights on disk, as safetensors: written whole or not at all, and loaded without executing anything."""

import hashlib
import json
import math
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
    """Write a model as safetensors, whole or not at all, with a checksum and the name of the function that built it.

    A model of half precision (`model.half()`, which is for storing) takes half the space.

    Raises
    ------
    ValueError
        If the function builds another model than this: other modules, or weights of other shapes; or if a weight cannot
        be stored.
    """
    files.write(Path(path), serialize(model, builder))


def serialize(model: VAE, builder: Callable[..., VAE] = build) -> bytes:
    """The bytes that `save` writes; raises as `save`. Weights that several modules share are stored for each."""
    model, twin = unwrap(model), unwrap(_build(builder, model.image_shape, model.latent_dim))
    places = [{id(one), *(each.data_ptr() for each in one.parameters() if each.numel())} for one in (model, twin)]
    if places[0] & places[1]:
        raise ValueError(f"{qualified_name(builder)} must make a new model at each call, and gave one twice")
    if architecture(twin) != architecture(model):
        raise ValueError(f"this model is not what {qualified_name(builder)} builds; give its own function as `builder`")
    recipe = {"builder": qualified_name(builder), "image_shape": [*model.image_shape], "latent_dim": model.latent_dim}
    try:
        tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        twin.load_state_dict(tensors)  # as it will be asked to
        metadata = json.dumps(recipe | {"sha256": tensor_digest(tensors)})
        return safetensors.torch.save(tensors, {"vaelib": metadata})
    except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the model's weights cannot be stored ({type(error).__name__}: {error}); its state_dict must hold tensors "
            f"of real numbers only"
        ) from error


def load(
    path: Path | str,
    device: torch.device | str = "cpu",
    builder: Callable[..., VAE] = build,
    checksum: str | None = None,
) -> VAE:
    """The model that `save` wrote, in single precision and evaluation mode.

    Nothing in the file is executed or imported: to load another model than the paper's, give its builder.

    Parameters
    ----------
    path, device : of the weights
    builder : the function that built the model
    checksum : SHA-256 of the file, if it is known

    Raises
    ------
    ValueError
        If the file is not one of `save`'s, was damaged since, has another checksum, or needs another builder (the
        message names it).
    """
    path, advice = Path(path), "take an undamaged copy, or train again"
    if files.exists(path) and not path.is_file():
        raise ValueError(f"{path} is a folder or a device, not a file of weights")
    if checksum and sha256(path) != checksum:
        raise ValueError(f"{path} is damaged, or of another run: its checksum is not that of the record; {advice}")
    try:
        tensors, metadata = read(path)
        recipe = json.loads(metadata["vaelib"])
        name, shape, latent_dim = current_name(recipe["builder"]), tuple(recipe["image_shape"]), recipe["latent_dim"]
        sizes = (*shape, latent_dim)
        possible = shape and all(isinstance(size, int) and 0 < size < 2**31 for size in sizes)
        if not possible or math.prod(sizes) > 2**40:
            raise ValueError(f"no images have the shape {shape} and {latent_dim!r} latent dimensions")
        if recipe["sha256"] != tensor_digest(tensors):
            raise ValueError("its checksum does not match")
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged, or holds no weights of this vaelib ({error}); {advice}") from error
    if name != qualified_name(builder):
        raise ValueError(
            f"{path} holds weights of a model that {name} built, not {qualified_name(builder)}; "
            f"give that function as `builder`"
        )
    expected = found = {name: (*each.shape,) for name, each in tensors.items()}
    # Shapes alone, before memory is taken for them. A builder that needs values fails here; it is called again below
    with suppress(Exception), torch.device("meta"):
        expected = architecture(_build(builder, shape, latent_dim))[1]
    if found != expected:
        raise ValueError(f"{path} does not fit what {qualified_name(builder)} builds; {advice}")
    model = _build(builder, shape, latent_dim)
    try:
        unwrap(model).load_state_dict(tensors)  # copied into float32
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit what {qualified_name(builder)} builds ({error}); {advice}") from error
    unwrap(model).latent_dim = latent_dim
    return model.to(device).eval()


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a file, and its metadata."""
    with safetensors.safe_open(path, "pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_pretrained(name: str, device: torch.device | str = "cpu") -> VAE:
    """A trained model of the package's: "mnist-k1", "mnist-k2" or "celeba-k64"; see the cards in `pretrained`.

    Raises
    ------
    ValueError
        If there is none of that name; lists those that there are.
    """
    known = sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))
    if name not in known:
        raise ValueError(f"no published model {name!r}; known: {', '.join(known)}")
    return load(PRETRAINED / f"{name}.safetensors", device)


def _build(builder: Callable[..., VAE], image_shape: tuple[int, ...], latent_dim: int) -> VAE:
    with seeded(0):  # building must not disturb the caller's random state; the weights are overwritten anyway
        return builder(image_shape, latent_dim)


def architecture(model: VAE) -> tuple[list[tuple[str, str]], dict[str, tuple[int, ...]]]:
    """What a model consists of: its modules, by class, and the shapes of its weights."""
    modules = [(name, type(module).__qualname__) for name, module in unwrap(model).named_modules()]
    return modules, {name: (*getattr(each, "shape", ()),) for name, each in unwrap(model).state_dict().items()}


def tensor_digest(tensors: dict[str, Tensor]) -> str:
    """The SHA-256 sum of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())  # NumPy knows no bfloat16
    return digest.hexdigest()
