"""A folder of your own images, as viewers show them: upright, on white, all of one size."""

import os
import re
import zlib
from contextlib import suppress
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from .. import progress
from ..files import expanded
from ..objective import positive_number, whole_number
from .dataset import Dataset, Split
from .paths import leave_out, say, some

# The names of split folders, alone or within names such as trainset, test_images, seg_train or trainA
PARTS = {
    "train": "train|training|trainval|trn",
    "test": "test|testing|tst|eval|evaluation|holdout",
    "validation": "val|valid|validation|dev",
}
# Classes whose names differ only in such a word may be splits as well, or folds, which share images
TWIN = re.compile(r"train|test|val|t[res]|gallery|query|(un)?seen|(fold|split|cv)[\W_]*([0-9]+|[a-z])$")
LARGEST = 8192  # pixels of a side
STUBS = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}  # formats that Pillow recognises but can't read
HINTS = {
    UnidentifiedImageError: "empty, damaged or of unknown kind; convert HEIC to JPEG, or see pillow_heif: ",
    Image.DecompressionBombError: "a larger PIL.Image.MAX_IMAGE_PIXELS is needed: ",
}


def image_folder(
    path: str | Path,
    size: int | tuple[int, int],
    name: str = "",
    grey: bool = False,
    skip_damaged: bool = False,
    maximum: float | None = None,
) -> Dataset:
    """Read all images in a folder and its subfolders, cropped to the middle and scaled.

    Any format that Pillow reads will do. Subfolders are classes. If some images are in no subfolder, there is one
    class, "all". Every tenth image by path, from the first, is a test image. Folders such as `train` and `test` (or
    `val`), at any depth, replace this split, if their names agree otherwise. Images outside these two folders are then
    omitted.

    Links are followed, and each folder is read once. Only one image at a time is held at full size. Hidden files and
    files without an image's suffix are omitted. Colours are converted to sRGB. A printed line lists what was read and
    omitted.

    Parameters
    ----------
    path : the folder
    size : (height, width) in pixels, or one number for both
    name : the data's name in the names of runs; by default the folder's name with the size
    grey : whether to make images with one channel instead of three
    skip_damaged : whether to omit unreadable files and folders, with a warning, instead of raising an error
    maximum : value of white in files of one channel with more than 8 bits, such as 4095 for 12 bits. By default it's
        65535 for integers of 16 bits. Files of 32 bits or floats require it, and so do files of 16 bits if all of them
        are darker than the middle of this scale. PGM and JPEG 2000 files contain it

    Raises
    ------
    ValueError
        If the path is empty, the size is invalid, there are fewer than two images, some images or folders can't be read
        (all are named), or the name of a class may be that of a split or a fold.
    FileNotFoundError
        If the folder doesn't exist.
    """
    if not str(path):
        raise ValueError("the folder's name is empty; expected the path of a folder of images")
    path = expanded(path).absolute()
    sides = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    height, width = (whole_number("size, or each of (height, width),", side) for side in sides)
    if max(height, width) > LARGEST:
        raise ValueError(f"size must be at most {LARGEST} pixels, not {size}")
    maximum = None if maximum is None else positive_number("maximum", maximum)
    files, others, damaged = _files(path)
    images, stacks, brightest = {}, 0, -1.0
    for file in progress.bar(files, desc="reading images", unit="image"):
        try:
            image, pages, white = _open(path / file, (width, height), "L" if grey else "RGB", maximum)
            images[file] = torch.from_numpy(np.array(image)).reshape(height, width, -1).permute(2, 0, 1)
            stacks += pages > 1
            brightest = max(brightest, white)
        except Exception as error:  # Pillow's readers raise errors of many kinds
            damaged.append(f"{file} ({HINTS.get(type(error), '')}{' '.join(str(error).split())})")
    leave_out(damaged, path, skip_damaged)
    if maximum and brightest < 0:
        raise ValueError("`maximum` is for files of one channel with more than 8 bits; omit it")
    if not maximum and 0 <= brightest < 2**15:
        raise ValueError(f"no pixel of 16 bits is above {brightest}; set `maximum` to their value of white")
    if len(images) < 2:
        found = f"{len(images)} readable images and {some(others)} other files"
        raise ValueError(f"{path} has {found}; training needs at least 11 files (a file of several pages counts once)")
    train, test, names, labels = _split([*images])
    origin = f"{len(train):,} images for training, {len(test):,} for testing, classes: {some(names, 10)}"
    if unused := len(images) - len(train) - len(test):
        origin += f"; {unused:,} images are in neither of the two folders, and not used"
    pixels = [*images.values()]
    if stacks:
        origin += f"; of {stacks:,} files with several pages only the first is read"
    if left_out := [*damaged, *others]:
        origin += f"; left out: {some(left_out)} files"
    say(f"{path.name}: {origin}")
    splits = (Split(torch.stack([pixels[row] for row in rows]), labels[rows]) for rows in (train, test))
    name = name or f"{_plain(path.name)}-{height}x{width}{'-grey' if grey else ''}"
    return Dataset(name, *splits, tuple(names), origin=origin)


def _files(path: Path) -> tuple[list[Path], list[str], list[str]]:
    """List files with an image's suffix, omitted paths (other files and repeated folders), and unreadable folders."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} doesn't exist or isn't a folder")
    suffixes = {end for end, kind in Image.registered_extensions().items() if kind in {*Image.OPEN} - STUBS}
    suffixes |= {".heic", ".heif"}  # often a JPEG
    found, others, seen, errors = [], [], set(), []
    for here, folders, names in os.walk(path, onerror=errors.append, followlinks=True):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        if (real := os.path.realpath(here)) in seen:  # otherwise a link to a parent folder would be followed forever
            others.append(here)
            folders[:], names = [], []
        seen.add(real)
        for name in (name for name in names if not name.startswith(".")):
            (found if Path(name).suffix.lower() in suffixes else others).append(Path(here, name))
    others = sorted(os.path.relpath(each, path) for each in others)
    damaged = [f"{os.path.relpath(each.filename, path)} (folder: {each.strerror})" for each in errors]
    return sorted(each.relative_to(path) for each in found), others, damaged


def _open(file: Path, size: tuple[int, int], mode: str, maximum: float | None) -> tuple[Image.Image, int, float]:
    """Read an image as viewers show it, with this size (width, height) and mode, "RGB" or "L".

    Also returns its file's number of pages, and its largest pixel if these have more than 8 bits, otherwise -1.
    """
    if file.exists() and not file.is_file():
        raise ValueError("not a file, but a pipe or a device")
    if file.stat().st_size > 2**30:  # some of Pillow's readers take twice the memory
        raise ValueError("larger than 1 GB; save a smaller image")
    with Image.open(file) as image:
        pages, profile = getattr(image, "n_frames", 1), image.info.get("icc_profile")
        # These contain their maximum, which Pillow scales to 65535, but PFM, whose pixels are floats, does not
        known = image.format in ("PPM", "JPEG2000") and image.mode != "F"
        image.draft("RGB", (2 * max(size), 2 * max(size)))  # decodes a JPEG at a fraction of its size
        tags = getattr(image, "tag_v2", {})
        white_is_zero = tags.get(PHOTOMETRIC_INTERPRETATION) == 0  # Pillow handles this in files of 8 bits only
        image = ImageOps.exif_transpose(image)
    hidden = image.info.get("transparency")
    if (image.mode[0] in "IF" and hidden is not None) or (isinstance(hidden, tuple) and max(hidden) > 255):
        raise ValueError("a transparent colour of 16 bits, which Pillow ignores; save the image with an alpha channel")
    brightest = -1.0
    if image.mode[0] in "IF":  # more than 8 bits
        if not (maximum or known or image.mode.startswith("I;16")):
            raise ValueError(f"pixels of kind {image.mode}; set `maximum` to their value of white")
        pixels = np.asarray(image)
        brightest = 65535.0 if known else float(pixels.max())
        pixels = pixels * (255 / (65535 if known else maximum or 65535))
        if not (pixels.min() >= 0 and pixels.max() <= 255.5):  # also refuses NaN
            raise ValueError("pixels below 0, above `maximum`, not finite, or of 32 unsigned bits; convert them")
        pixels = 255 - pixels if white_is_zero else pixels
        image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    elif 2 in tags.get(SAMPLEFORMAT, ()):
        raise ValueError("signed pixels of 8 bits, which Pillow reads as unsigned; convert them")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if not (profile and image.mode in ("L", "CMYK")):
        image = image.convert("RGB")
    image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if profile:
        with suppress(ImageCms.PyCMSError):  # a damaged profile, or one for another kind of pixels
            image = ImageCms.profileToProfile(image, BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert(mode), pages, brightest


def _split(read: list[Path]) -> tuple[list[int], list[int], list[str], torch.Tensor]:
    """Return the rows of the training and of the test images, the classes' names, and each image's class."""
    folders = [file.parts[:-1] for file in read]
    # For each image, the split of the first folder that names one, and the rest of this folder's name
    marks = [next(filter(None, map(_part, each)), ("", "")) for each in folders]
    rows = {part: [row for row, (each, _) in enumerate(marks) if each == part] for part in PARTS}
    train, test = rows["train"], rows["test"] or rows["validation"]
    several = len({marks[row][1] for row in (*train, *test)}) > 1  # such as test and test_labels
    if train and test and not several:
        marked = zip(folders, marks, strict=True)
        folders = [tuple(folder for folder in each if _part(folder) != mark) for each, mark in marked]
    else:
        train, test = [row for row in range(len(read)) if row % 10], list(range(0, len(read), 10))
    # A class is the first folder below those that all images share, or "" without such a folder
    shared = os.path.commonpath([Path(*folders[row][:-1]) for row in (*train, *test)])
    depth = len(Path(shared).parts)
    classes = ["".join(each[depth : depth + 1]) for each in folders]
    names = sorted({classes[row] for row in (*train, *test)})
    told = sorted({*chain(*folders)}) if several else names
    if len(told) > 1 and (any(map(_part, told)) or len({TWIN.sub("*", name.lower()) for name in told}) < len(told)):
        unclear = f"it is unclear whether the folders {', '.join(told[:10])} are classes"
        raise ValueError(f"{unclear}; name split folders train and test, classes otherwise, and give one fold's folder")
    names = names if all(names) else ["all"]
    return train, test, names, torch.tensor([names.index(each) if each in names else 0 for each in classes])


def _part(folder: str) -> tuple[str, str] | None:
    """Return the split that a folder's name contains, and the rest of the name."""
    negated = re.match(r"(?i)(no|non|not|without)[\W_]", folder)
    for word in re.finditer(r"[A-Z]?[a-z]+|[A-Z]+", "" if negated else folder):
        for part, known in PARTS.items():
            if re.fullmatch(f"({known})(s?(set|data|daten|images?|imgs?))?", word[0].lower()):
                return part, (folder[: word.start()] + folder[word.end() :]).lower()
    return None


def _plain(name: str) -> str:
    """Replace blanks and the like in a folder's name by hyphens, and non-letters such as emoji by a checksum."""
    name = os.fsencode(name or "images").decode(errors="backslashreplace")  # the same in every locale
    return re.sub(r"[^\w.-]+", lambda it: "-" if it[0].isascii() else f"{zlib.crc32(it[0].encode()):08x}", name)
