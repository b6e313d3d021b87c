"""The data that every loader returns: splits of images, their labels, and a fingerprint."""

import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from ..objective import whole_number

WHITE = {torch.uint8: 255, torch.uint16: 65535}


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Parameters
    ----------
    images : Tensor of shape (N, C, H, W), uint8 or uint16 pixels, or floats; or floats of shape (N, D), rows of
        numbers. Most decoders expect floats in [0, 1]
    labels : Tensor of shape (N,) with class numbers, converted to int64, or bool Tensor of shape (N, A), one column per
        attribute; by default, no attributes

    Raises
    ------
    ValueError
        If the images have another type or shape, their channels last, or non-finite values, or the numbers of labels
        and images differ.

    Warns
    -----
    UserWarning
        If no uint8 or uint16 pixel reaches the middle of the scale.
    """

    images: Tensor
    labels: Tensor = None

    def __post_init__(self):
        images = _dense("images", self.images)
        no_labels = torch.empty(len(images), 0, dtype=torch.bool)
        labels = _dense("labels", no_labels if self.labels is None else self.labels)
        kind, white = f"{images.dtype} of shape {tuple(images.shape)}", WHITE.get(images.dtype)
        floats = images.is_floating_point() and images.element_size() > 1  # torch computes nothing in 8 bits
        if not (white or floats) or images.ndim not in (4, 2) or not images.numel():
            raise ValueError(f"images must be uint8, uint16 or floats, (N, C, H, W) or rows (N, D), N > 0, not {kind}")
        if images.ndim == 4 and images.shape[3] <= 4 < images.shape[1]:
            raise ValueError(f"images {kind} look like (N, H, W, C); (N, C, H, W) is images.permute(0, 3, 1, 2)")
        if len(labels) != len(images):
            raise ValueError(f"got {len(images)} images but {len(labels)} labels; expected one label per image")
        if not white and not all(extreme.isfinite() for extreme in images.aminmax()):
            raise ValueError("the images have values that are not finite; remove or replace them")
        if white and (most := images.numpy(force=True).max()) <= white // 2:  # torch lacks the maximum of uint16
            warnings.warn(f"the largest pixel value is {most}; white is {white}: is it another scale?", stacklevel=3)
        if labels.dtype != torch.bool and torch.can_cast(labels.dtype, torch.int64):
            labels = labels.long()  # so that equal numbers have one fingerprint
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A training split, a test split, and optionally a validation split, of the same kind of image.

    Parameters
    ----------
    name : the data's name in the names of runs; letters, digits, dots, hyphens and underscores
    train, test : Split
    names : the names of the classes, which labels index, or of the attributes, one per column; by default none
    validation : Split for early stopping, optional
    origin : the source of the data and its split, in words

    Raises
    ------
    ValueError
        If the name can't be part of a folder's name, the splits have images of different shapes, two names are the
        same, or labels don't fit the names.

    Warns
    -----
    UserWarning
        If two splits share images.
    """

    name: str
    train: Split
    test: Split
    names: tuple[str, ...] = ()
    validation: Split | None = None
    origin: str = ""
    # For loaders that identify images by their files: the fingerprint of the files by that of the loaded content
    loaded: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"a name becomes part of a folder's, so it has letters, digits, . - _ only: {self.name!r}")
        if other := [type(each).__name__ for each in self.splits().values() if not isinstance(each, Split)]:
            raise ValueError(f"the parts of a data set must be data.Split(images, labels), not {other[0]}")
        names = tuple(self.names) if isinstance(self.names, Sequence) else (self.names,)
        if not all(isinstance(each, str) for each in names) or len(set(names)) < len(names):
            raise ValueError(f"the names must be different strings, in the labels' order, not {self.names!r:.200}")
        object.__setattr__(self, "names", names)
        for part, split in self.splits().items():
            kinds = [f"{each.images.dtype} {tuple(each.images.shape[1:])}" for each in (self.train, split)]
            if len(set(kinds)) > 1:
                raise ValueError(f"train and {part} images must have one shape and type, not {' and '.join(kinds)}")
            labels, count = split.labels, len(names)
            if labels.dtype == torch.int64:
                fits = labels.ndim == 1 and labels.min() >= 0 and labels.max() < count
            else:
                fits = labels.dtype == torch.bool and labels.shape[1:] == (count,)
            if not fits:
                span = f", from {labels.min()} to {labels.max()}" if labels.dtype == torch.int64 else ""
                advice = f"{count} names=(...) need integers (N,) from 0 to {count - 1}, or torch.bool (N, {count})"
                advice = advice if count else "give names=(...), one for each class or attribute"
                raise ValueError(f"the {part} labels are {labels.dtype} of shape {(*labels.shape,)}{span}; {advice}")
        images = {part: {hash(row.tobytes()) for row in _bytes(each.images)} for part, each in self.splits().items()}
        for part, other in combinations(images, 2):
            if shared := images[part] & images[other]:
                warnings.warn(f"{self.name}: {len(shared)} of the {other} images are {part} images too", stacklevel=3)

    @property
    def fingerprint(self) -> str:
        """Hash of all pixels and labels and of the positions of the splits (16 hex digits).

        It is computed from the present content of the tensors, in 0.1 s for MNIST and 2 s for all of CelebA.
        """
        digest = hashlib.sha256(repr(self.image_shape).encode())
        for part, split in self.splits().items():
            # Without labels between the images of two splits, only the shapes mark the boundary. Eight attributes take
            # as many bytes as a class number. Other labelled bytes keep the fingerprints of version 0.1.0
            if part == "validation" or split.labels[:1].numel() in (0, 8) or split.images.dtype != torch.uint8:
                digest.update(repr((part, split.images.shape, split.images.dtype, split.labels.shape)).encode())
            digest.update(_bytes(split.images))
            digest.update(_bytes(split.labels))
        content = digest.hexdigest()[:16]
        return self.loaded.get(content, content)

    def splits(self) -> dict[str, Split]:
        """Return the existing splits by name."""
        named = {"train": self.train, "test": self.test}
        return named if self.validation is None else named | {"validation": self.validation}

    def hold_out(self, count: int, seed: int = 0) -> "Dataset":
        """Move `count` random training images to the validation split. Raises ValueError if there is one already."""
        count, seed = whole_number("count", count), whole_number("seed", seed, least=0)
        if count >= len(self.train):
            raise ValueError(f"expected to hold out from 1 to {len(self.train) - 1} training images, not {count}")
        if self.validation is not None:
            raise ValueError(f"{self.name!r} already has a validation split of {len(self.validation)} images")
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed), device="cpu")
        held, kept = order[:count], order[count:].sort()[0]
        validation, train = (Split(self.train.images[rows], self.train.labels[rows]) for rows in (held, kept))
        return replace(self, train=train, validation=validation)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W), or (D,)."""
        return tuple(self.train.images.shape[1:])

    def column(self, name: str) -> int:
        """Return the column of an attribute in the labels.

        Raises
        ------
        ValueError
            If the attribute is unknown. The message lists similar names, or else all.
        """
        if name not in self.names:
            near = ", ".join(get_close_matches(str(name), self.names) or self.names)
            raise ValueError(f"{name!r} is none of the {len(self.names)} attributes of {self.name!r}; known: {near}")
        return self.names.index(name)


def _dense(what: str, values: object) -> Tensor:
    """Return the values. Raise ValueError unless they are a dense tensor with a row for each image."""
    if not isinstance(values, Tensor) or values.layout != torch.strided or values.is_nested or not values.ndim:
        kind = getattr(values, "layout", type(values).__name__)
        raise ValueError(f"the {what} must be a dense tensor of a row for each image, not {kind}; see torch.as_tensor")
    return values


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().view(torch.uint8).numpy(force=True)  # NumPy lacks bfloat16


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 and uint16 pixels to float32 in [0, 1], and floats to at least float32."""
    if not isinstance(images, Tensor) or not (images.is_floating_point() or images.dtype in WHITE):
        raise ValueError(f"expected a Tensor: uint8, uint16, float; not {type(images)} {getattr(images, 'dtype', '')}")
    if images.is_floating_point():
        return images.to(torch.promote_types(images.dtype, torch.float32))
    return images.to(torch.float32).div_(WHITE[images.dtype])
