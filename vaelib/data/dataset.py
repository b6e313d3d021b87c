"""The data that every loader returns: splits of images, their labels, and a fingerprint."""

import hashlib
import re
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import combinations

import numpy as np
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
        images, labels = self.images, self.labels
        if labels is None:
            labels = torch.empty(len(images), 0, dtype=torch.bool)
        if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
            raise ValueError("images and labels must be tensors; convert arrays and lists by torch.as_tensor")
        kind, white = f"{images.dtype} of shape {tuple(images.shape)}", WHITE.get(images.dtype)
        if not (white or images.is_floating_point()) or images.ndim not in (4, 2) or not images.numel():
            raise ValueError(f"images must be uint8, uint16 or floats, (N, C, H, W) or rows (N, D), N > 0, not {kind}")
        if images.ndim == 4 and images.shape[3] <= 4 < images.shape[1]:
            raise ValueError(f"images {kind} look like (N, H, W, C); (N, C, H, W) is images.permute(0, 3, 1, 2)")
        if not white and not all(part.isfinite().all() for part in images.split(10_000)):
            raise ValueError("the images have values that are not finite; remove or replace them")
        if len(labels) != len(images):
            raise ValueError(f"got {len(images)} images but {len(labels)} labels; expected one label per image")
        # The first images usually suffice, so that a file of many gigabytes isn't read for this
        if white and all((most := part.to(torch.int32).max().item()) <= white // 2 for part in (images[:100], images)):
            warnings.warn(
                f"the largest pixel value is {most}; white is {white}: are they on another scale?", stacklevel=3
            )
        if not (labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex()):
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
        If the name can't be part of a folder's name, the splits have images of different shapes, or labels don't fit
        the names.

    Warns
    -----
    UserWarning
        If two splits have the same images.
    """

    name: str
    train: Split
    test: Split
    names: tuple[str, ...] = ()
    validation: Split | None = None
    origin: str = ""
    # For loaders that identify images by their files: the checksum of the loaded data, and its fingerprint
    loaded: tuple[int, str] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self):
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"a name becomes part of a folder's, so it has letters, digits, . - _ only: {self.name!r}")
        for part, split in self.splits().items():
            kinds = [f"{each.images.dtype} {tuple(each.images.shape[1:])}" for each in (self.train, split)]
            if len(set(kinds)) > 1:
                raise ValueError(f"train and {part} images must have one shape and type, not {' and '.join(kinds)}")
            labels, count = split.labels, len(self.names)
            if labels.dtype == torch.int64:
                fits = labels.ndim == 1 and labels.min() >= 0 and labels.max() < count
            else:
                fits = labels.dtype == torch.bool and labels.shape[1:] == (count,)
            if not fits:
                span = f", from {labels.min()} to {labels.max()}" if labels.numel() and not labels.is_complex() else ""
                raise ValueError(
                    f"the {part} labels are {labels.dtype} of shape {tuple(labels.shape)}{span}; with {count} names "
                    f"they must be whole numbers (N,) from 0 to {count - 1}, or torch.bool (N, {count})"
                )
        for (part, split), (other, same) in combinations(self.splits().items(), 2):
            if torch.equal(split.images, same.images):
                warnings.warn(f"{self.name}: the {other} images are the {part} images", stacklevel=3)

    @property
    def fingerprint(self) -> str:
        """Hash of all pixels and labels and of the positions of the splits (16 hex digits).

        It is computed from the present content of the tensors, in 0.1 s for MNIST and 2 s for all of CelebA.
        """
        if self.loaded and self.loaded[0] == self.checksum():
            return self.loaded[1]
        digest = hashlib.sha256(repr(self.image_shape).encode())
        for part, split in self.splits().items():
            # Without labels between the images of two splits, only the shapes mark the boundary. Eight attributes take
            # as many bytes as a class number. Other labelled bytes keep the fingerprints of version 0.1.0
            if part == "validation" or split.labels[:1].numel() in (0, 8) or split.images.dtype != torch.uint8:
                digest.update(repr((part, split.images.shape, split.images.dtype, split.labels.shape)).encode())
            for content in _bytes(split):
                digest.update(content)
        return digest.hexdigest()[:16]

    def checksum(self) -> int:
        """Compute the CRC-32 of all images and labels."""
        checksum = 0
        for split in self.splits().values():
            for content in _bytes(split):
                checksum = zlib.crc32(content, checksum)
        return checksum

    def splits(self) -> dict[str, Split]:
        """Return the existing splits by name."""
        named = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: split for name, split in named.items() if split is not None}

    def hold_out(self, count: int, seed: int = 0) -> "Dataset":
        """Move `count` random training images to the validation split."""
        if not 0 < count < len(self.train):
            raise ValueError(f"expected to hold out from 1 to {len(self.train) - 1} training images, not {count}")
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
            near = ", ".join(get_close_matches(name, self.names) or self.names)
            raise ValueError(f"{name!r} is none of the {len(self.names)} attributes of {self.name!r}; known: {near}")
        return self.names.index(name)


def _bytes(split: Split) -> Iterator[np.ndarray]:
    for tensor in (split.images, split.labels):
        yield tensor.detach().cpu().contiguous().view(torch.uint8).numpy()  # NumPy lacks bfloat16


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 and uint16 pixels to float32 in [0, 1], and floats to at least float32."""
    if images.is_floating_point():
        return images.to(torch.promote_types(images.dtype, torch.float32))
    if images.dtype not in WHITE:
        raise ValueError(f"expected uint8 or uint16 pixels, or floats, got {images.dtype}")
    return images.to(torch.float32).div_(WHITE[images.dtype])
