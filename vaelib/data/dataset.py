"""What every loader returns: splits of images, what they are labelled with, and a fingerprint."""

import hashlib
import re
import warnings
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property

import torch
from torch import Tensor

WHITE = {torch.uint8: 255, torch.uint16: 65535}


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Parameters
    ----------
    images : Tensor of shape (N, C, H, W), uint8 or uint16 pixels, or floats; or floats of shape (N, D), rows of
        numbers. Most decoders expect floats in [0, 1]
    labels : Tensor of shape (N,) with class numbers, or bool Tensor of shape (N, A), one column per attribute; by
        default of no attributes

    Raises
    ------
    ValueError
        If the images have another type or shape, their channels last, or values that are not finite, or there are not
        as many labels as images.

    Warns
    -----
    UserWarning
        If no uint8 or uint16 pixel reaches the middle of the scale.
    """

    images: Tensor
    labels: Tensor = None

    def __post_init__(self):
        if self.labels is None:
            object.__setattr__(self, "labels", torch.empty(len(self.images), 0, dtype=torch.bool))
        if not isinstance(self.images, Tensor) or not isinstance(self.labels, Tensor):
            raise ValueError("images and labels must be tensors; torch.as_tensor makes them of arrays and lists")
        is_float = self.images.is_floating_point()
        if not (is_float or self.images.dtype in WHITE) or self.images.ndim not in (4, 2) or self.images.numel() == 0:
            raise ValueError(
                f"images must be a tensor of uint8 or uint16 pixels or of floats, of shape (N, C, H, W) with N > 0 "
                f"(or rows of numbers, (N, D)), not {self.images.dtype} of shape {tuple(self.images.shape)}"
            )
        if is_float and not all(part.isfinite().all() for part in self.images.split(10_000)):
            raise ValueError("the images have values that are not finite; remove or replace them")
        if self.images.ndim == 4 and self.images.shape[3] <= 4 < self.images.shape[1]:
            raise ValueError(
                f"images of shape {tuple(self.images.shape)} look like (N, H, W, C), but (N, C, H, W) is expected: "
                "images.permute(0, 3, 1, 2)"
            )
        if len(self.labels) != len(self.images):
            raise ValueError(f"{len(self.images)} images but {len(self.labels)} labels; there must be as many")
        # Of most data the first images tell; then a file of many gigabytes is not read for this
        white = WHITE.get(self.images.dtype, 0)
        parts = self.images[:100], self.images
        if white and all((largest := part.to(torch.int32).max().item()) <= white // 2 for part in parts):
            warnings.warn(
                f"the largest pixel value is {largest}; white is {white}: are they on another scale?", stacklevel=3
            )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, and perhaps one for validation, of the same kind of image.

    Parameters
    ----------
    name : what the data is called in the names of runs; letters, digits, dots, hyphens and underscores
    train, test : Split
    names : the names of the classes (labels count into it), or of the attributes (a column each); none without labels
    validation : Split, from which an early stop can be decided; none by default
    origin : what was read, and how it was split, in words

    Raises
    ------
    ValueError
        If the name cannot be part of a folder's, the parts have images of different shapes, or labels do not fit the
        names.
    """

    name: str
    train: Split
    test: Split
    names: tuple[str, ...] = ()
    validation: Split | None = None
    origin: str = ""

    def __post_init__(self):
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"a name becomes part of a folder's, so it has letters, digits, . - _ only: {self.name!r}")
        for part, split in self.splits().items():
            if split.images.shape[1:] != self.train.images.shape[1:] or split.images.dtype != self.train.images.dtype:
                kinds = [f"{each.images.dtype} {tuple(each.images.shape[1:])}" for each in (self.train, split)]
                raise ValueError(f"train and {part} images must have one shape and type, not {kinds[0]} and {kinds[1]}")
            self._check_labels(part, split.labels)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any pixel or label of a split, and with where the splits are cut."""
        digest = hashlib.sha256(repr(self.image_shape).encode())
        for part, split in self.splits().items():
            # Without labels between the images of two splits, only the shapes tell where one ends. (Labelled bytes keep
            # the fingerprints that records of version 0.1.0 have.)
            if part == "validation" or not split.labels.numel() or split.images.dtype != torch.uint8:
                digest.update(repr((part, split.images.shape, split.images.dtype, split.labels.shape)).encode())
            for tensor in (split.images, split.labels):
                digest.update(tensor.contiguous().numpy())
        return digest.hexdigest()[:16]

    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        named = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: split for name, split in named.items() if split is not None}

    def hold_out(self, count: int, seed: int = 0) -> "Dataset":
        """The same data with so many training images, drawn at random, moved to the validation split."""
        if not 0 < count < len(self.train):
            raise ValueError(f"expected to hold out from 1 to {len(self.train) - 1} training images, not {count}")
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed), device="cpu")
        validation, train = (
            Split(self.train.images[rows], self.train.labels[rows]) for rows in (order[:count], order[count:].sort()[0])
        )
        return replace(self, train=train, validation=validation)

    def _check_labels(self, part: str, labels: Tensor) -> None:
        count = len(self.names)
        if labels.dtype == torch.bool:
            fits = labels.shape[1:] == (count,)
        else:
            fits = not (labels.is_floating_point() or labels.is_complex()) and labels.ndim == 1
            fits = fits and labels.min() >= 0 and labels.max() < count
        if not fits and not count:
            raise ValueError(f"the {part} images have labels, which need names: Dataset(..., names=...)")
        if not fits:
            span = f", from {labels.min()} to {labels.max()}" if not labels.is_complex() else ""
            raise ValueError(
                f"the {part} labels are {labels.dtype} of shape {tuple(labels.shape)}{span}; with {count} names they "
                f"must be whole numbers of shape (N,), from 0 to {count - 1}, or torch.bool of shape (N, {count})"
            )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W), or (D,)."""
        return tuple(self.train.images.shape[1:])

    def column(self, name: str) -> int:
        """Which column of the labels an attribute is.

        Raises
        ------
        ValueError
            If there is no such attribute; the message has those with names like it, or else all.
        """
        if name not in self.names:
            near = ", ".join(get_close_matches(name, self.names) or self.names)
            raise ValueError(f"{name!r} is none of the {len(self.names)} attributes of {self.name!r}; there is {near}")
        return self.names.index(name)


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels in 0..255, or uint16 in 0..65535, as float32 in [0, 1]; floats as they are, in at least float32."""
    if images.is_floating_point():
        return images.to(torch.promote_types(images.dtype, torch.float32))
    if images.dtype not in WHITE:
        raise ValueError(f"expected uint8 or uint16 pixels, or floats, got {images.dtype}")
    return images.to(torch.float32).div_(WHITE[images.dtype])
