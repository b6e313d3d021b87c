"""CelebA, read from its JPEGs and two lists, cropped as in the paper; decoded once, then mapped from a file."""

import codecs
import hashlib
import io
import json
import math
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from .. import files, progress
from . import paths
from .dataset import Dataset, Split

# Of either size of image (width, height): the box that is kept (left, top, right, bottom), and the reduction to 48 x 64
CROPS = {(178, 218): ((41, 60, 137, 188), 2), (89, 109): ((20, 30, 68, 94), 1)}
SHAPE = (3, 64, 48)
CHUNK = 512  # images that are decoded, by all threads, before they are written
BLANKS = str.maketrans(',;"', "   ")
IMAGES, ARCHIVE = "img_align_celeba", "img_align_celeba.zip"
ATTRIBUTES, PARTITION = "list_attr_celeba", "list_eval_partition"
ADVICE = "put a good copy there, from http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


def load(folder: Path | str, skip_damaged: bool = False) -> Dataset:
    """Faces, 3 x 64 x 48, with 40 attributes (bool) as labels: 162,770 training and 19,962 test images, or a subset.

    The files lie in `folder/celeba`, or in `folder`: `img_align_celeba/*.jpg` (all of 178 x 218 pixels, or all of half
    that size, 89 x 109; also one folder deeper, as Kaggle has them, or still in `img_align_celeba.zip`), and the lists
    `list_attr_celeba` and `list_eval_partition`, as `.txt` or `.csv`. What is missing is downloaded (1.4 GB).

    The split is the official one, whose validation images are left out of both parts. Where a subset has no training
    images, those for validation take their place; where it has no test images, those for validation, else the last
    tenth of the others by name.

    The images are decoded once, into a file beside the lists, or in the folder VAELIB_CACHE, by default
    `~/.cache/vaelib`, if that one is read-only; it is mapped into memory, so any number of images takes little. The
    file and the fingerprint know the images by their names and sizes on disk, so that they need not be read again.
    The file itself is compared with its checksum at every load.

    Parameters
    ----------
    folder : the folder that has, or gets, `celeba` in it
    skip_damaged : leave damaged JPEGs out, with a warning, instead of refusing them

    Raises
    ------
    ValueError
        If a list is malformed or has no line on an image, or an image is damaged, grey or of another size.
    FileNotFoundError
        If files are missing, and cannot be downloaded.
    OSError
        If an image cannot be read, or the decoded images cannot be written.
    """
    folder = Path(folder)
    here = (IMAGES, ARCHIVE, *(f"{name}.{kind}" for name in (ATTRIBUTES, PARTITION) for kind in ("txt", "csv")))
    if not any((folder / name).exists() for name in here):
        folder = folder / "celeba"
    images = _images(folder)
    _fetch(folder, images is None)
    sizes, read = images or _images(folder)
    path, header, labels, listed = _table(folder, ATTRIBUTES, {"-1": 0, "0": 2, "1": 1}, 40, list(sizes))
    names = tuple(header[-40:])
    if len(set(names)) != 40:
        raise ValueError(f"{path}: expected a line with 40 different names of attributes; {ADVICE}")
    if (labels == 0).any() and (labels == 2).any():
        raise ValueError(f"{path}: expected -1 and 1, or 0 and 1, but there are all three; {ADVICE}")
    _, _, parts, _ = _table(folder, PARTITION, {"0": 0, "1": 1, "2": 2}, 1, list(sizes))
    train, test, how = _split(folder, parts[:, 0])
    order = np.concatenate([train, test])
    items = list(sizes.items())
    items = [items[i] for i in order.tolist()]
    cached, pixels, damaged = _decoded(folder, items, read, skip_damaged)
    whole = ~np.isin([name for name, _ in items], damaged)
    boundary = int(whole[: len(train)].sum())
    if not 0 < boundary < len(pixels):
        raise ValueError(f"{folder} has too few whole images: {boundary} for training, {len(pixels) - boundary} others")
    labels = torch.from_numpy(labels[order][whole] == 1)
    digest = hashlib.sha256(f"{cached.stem} {boundary} {names}{damaged or ''}".encode() + labels.numpy().tobytes())
    origin = f"{boundary:,} images for training and {len(pixels) - boundary:,} for testing, {how}"
    if listed > len(sizes):
        origin += f"; {len(sizes):,} of the {listed:,} listed images are there"
    print(f"{folder.name}: {origin}", flush=True)
    dataset = Dataset(
        name="celeba",
        train=Split(pixels[:boundary], labels[:boundary]),
        test=Split(pixels[boundary:], labels[boundary:]),
        names=names,
        origin=origin,
    )
    dataset.__dict__["fingerprint"] = digest.hexdigest()[:16]  # of the files, so that not every pixel has to be read
    return dataset


def _images(folder: Path) -> tuple[dict[str, int], Callable[[str], bytes]] | None:
    """The JPEGs' names, sorted, with their sizes in bytes, and what reads one of a name; None if there are none."""
    for place in (folder / IMAGES, folder / IMAGES / IMAGES):
        if place.is_dir():
            try:
                with os.scandir(place) as entries:
                    sizes = {entry.name: entry.stat().st_size for entry in entries if _is_image(entry.name)}
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{error.filename} is a link to a file that is not there; {ADVICE}") from None
            if sizes:
                return dict(sorted(sizes.items())), lambda name, place=place: (place / name).read_bytes()
    if not (path := folder / ARCHIVE).exists():
        return None
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged, or not all of it is there ({error}); {ADVICE}") from error
    members = {PurePosixPath(each.filename).name: each for each in archive.infolist()}
    members = {name: members[name] for name in sorted(members) if _is_image(name)}

    def read(name: str) -> bytes:
        try:
            return archive.read(members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError):
            return b""  # no image

    return {name: member.file_size for name, member in members.items()}, read


def _is_image(name: str) -> bool:
    return name.lower().endswith(".jpg") and not name.startswith(".")


def _list(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.txt", folder / f"{name}.csv") if path.exists()), None)


def _fetch(folder: Path, with_images: bool) -> None:
    """Download the lists that are missing, and the images, but nothing else."""
    missing = [f"{name}.txt" for name in (PARTITION, ATTRIBUTES) if not _list(folder, name)]
    missing += [ARCHIVE] if with_images else []
    if missing:
        import gdown  # both take their time, and are needed for this alone
        from torchvision.datasets import CelebA

        by_hand = (
            f"Put them there, from http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (lists may be .csv, as Kaggle has "
            f"them, and the images unpacked, in a folder {IMAGES})"
        )
        if packed := [path.name for path in folder.glob("*.zip") if path.name != ARCHIVE]:
            by_hand = f"Unpack {', '.join(packed)}, if they are in there. Else: {by_hand}"
        with paths.fetching(missing, folder, by_hand):
            for name, (identity, md5) in {name: rest for *rest, name in CelebA.file_list}.items():
                if name in missing:
                    # Goes on where an earlier attempt ended; without cookies, nothing is written elsewhere
                    options = {"resume": True, "timeout": paths.PATIENCE, "use_cookies": False}
                    paths.fetch(folder / name, md5, partial(gdown.download, None, id=identity, **options))


def _table(
    folder: Path, name: str, values: dict[str, int], count: int, images: list[str]
) -> tuple[Path, list[str], np.ndarray, int]:
    """A list's path, the words above its rows, the values beside the images' names, uint8 (N, count), and its length.

    Words are parted by blanks, commas or semicolons and may be quoted; a row begins with the name of an image.
    """
    path = _list(folder, name)
    header, rows = [], {}
    raw = path.read_bytes()
    encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    text = raw.decode(encoding, "replace").translate(BLANKS)  # what is no text becomes a malformed line
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not rows and not _is_image(words[0]):
            header = words
        elif words:
            image, row = words[0].lower(), [*map(values.get, words[1:])]
            if None in row or len(row) != count or not _is_image(image) or image in rows:
                what = f"the name of an image, for the first time, and {count} of the numbers {', '.join(values)}"
                raise ValueError(f"{path}, line {number}: expected {what}, not {line!r}; {ADVICE}")
            rows[image] = bytes(row)
    if lacking := [image for image in images if image.lower() not in rows]:
        raise ValueError(f"{path} has no line on {_some(lacking)} of the images beside it. Change either, or {ADVICE}")
    content = b"".join(rows[image.lower()] for image in images)
    return path, header, np.frombuffer(content, np.uint8).reshape(-1, count), len(rows)


def _some(names: Collection[str]) -> str:
    return f"{len(names)} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"


def _split(folder: Path, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """The numbers of the images for training, of those for testing, and how these are told, in words."""
    train, valid, test = (np.flatnonzero(parts == part) for part in (0, 1, 2))
    how = "as marked"
    if not len(train):
        train, valid, how = valid, train, "as marked, with those for validation as training images"
    if not len(test) and len(valid):
        test, how = valid, "as marked, with those for validation as test images"
    elif not len(test):
        train, test = np.split(train, [-max(1, len(train) // 10)])
        how = "the last tenth by name, as none is marked as a test image"
    if not len(train):
        marks = f"{len(test)} marked for testing in {PARTITION}" if len(test) > 1 else "at least two are needed"
        raise ValueError(f"{folder} has no image to train on: {marks}")
    return train, test, how


def _decoded(
    folder: Path, images: list[tuple[str, int]], read: Callable[[str], bytes], skip_damaged: bool
) -> tuple[Path, torch.Tensor, list[str]]:
    """Where the decoded images are, themselves, uint8 (N, 3, 64, 48), and the damaged ones, which are not among them.

    Another crop, order or set of images (names and sizes) has another file.
    """
    digest = hashlib.sha256(repr((CROPS, SHAPE, images)).encode()).hexdigest()[:16]
    path = folder / f"celeba-{digest}.npy"
    # A folder that nobody may write to is to stay as it is, though root could write to it
    writable = os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222
    damaged = _known(path, read)
    if damaged is None and not writable:
        path = paths.cache() / path.name
        damaged = _known(path, read)
    if damaged is None:
        with ExitStack() as stack:
            with _writing(path, len(images)):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.locked(path.parent, wait=True))
            damaged = _known(path, read)  # another process may have decoded them while this one waited
            if damaged is None:
                damaged = _decode([name for name, _ in images], read, path, skip_damaged)
    if damaged and not skip_damaged:
        raise ValueError(
            f"{folder} has damaged images: {_some(damaged)}; replace them, or leave them out: data.load(..., "
            f"skip_damaged=True), or --skip-damaged on the command line"
        )
    if damaged:
        listed = f"{_some(damaged)}, all listed in {path.with_suffix('.json')}"
        warnings.warn(f"damaged images in {folder}, left out: {listed}", stacklevel=3)
    # "c": what is written to the tensor stays in memory, and the file as it is
    return path, torch.from_numpy(np.load(path, mmap_mode="c")), damaged


def _known(path: Path, read: Callable[[str], bytes]) -> list[str] | None:
    """The damaged images that a file was decoded without; None if there is no such file, or not as it was written.

    That holds too if a damaged image was replaced since, by one of the same size.
    """
    record = path.with_suffix(".json")
    if not (path.exists() and record.exists()):
        return None
    try:
        written = json.loads(record.read_bytes())
        whole = _checksum(path) == written["crc32"]
        replaced = any(zlib.crc32(read(name)) != sum for name, sum in written["damaged"].items())
    except (ValueError, TypeError, LookupError, AttributeError, FileNotFoundError):
        whole = False
    if not whole:
        warnings.warn(f"{path}, or {record.name} beside it, is damaged; the images are decoded again", stacklevel=4)
    return list(written["damaged"]) if whole and not replaced else None


def _decode(names: list[str], read: Callable[[str], bytes], path: Path, skip_damaged: bool) -> list[str]:
    """Write the images, cropped, to a `.npy` file, and its checksum beside it; returns the damaged ones.

    Nothing stays if there are such and they are not to be skipped. Threads, as Pillow lets others run while it decodes.
    """
    for leftover in path.parent.glob("celeba-*.part"):  # of killed processes: nobody else decodes here now
        leftover.unlink()
    temporary, record = path.with_name(f"{path.name}.part"), path.with_suffix(".json")
    damaged, sizes = [], {}  # each size of image, with the name of one that has it
    try:
        with _writing(temporary, len(names)):
            temporary.write_bytes(_header(len(names)))
        with (
            ThreadPoolExecutor() as pool,
            progress.bar(total=len(names), desc="decoding CelebA, once", unit="image") as bar,
        ):
            for start in range(0, len(names), CHUNK):
                chunk = names[start : start + CHUNK]
                images = dict(zip(chunk, pool.map(partial(_image, read), chunk), strict=True))
                damaged += [name for name, image in images.items() if image is None]
                whole = {name: image for name, image in images.items() if image is not None}
                sizes |= {size: name for name, (size, _) in whole.items()}
                if len(sizes) > 1:
                    found = " and ".join(f"{w} x {h} ({name})" for (w, h), name in sizes.items())
                    raise ValueError(f"{path.parent} has images of different sizes, {found}; all must have the same")
                with _writing(temporary, len(names)), temporary.open("ab") as file:
                    file.writelines(pixels for _, pixels in whole.values())
                bar.update(len(chunk))
        if skip_damaged or not damaged:
            with _writing(temporary, len(names)), temporary.open("r+b") as file:
                file.write(_header(len(names) - len(damaged)))
            written = {"crc32": _checksum(temporary), "damaged": {name: zlib.crc32(read(name)) for name in damaged}}
            record.unlink(missing_ok=True)  # of another file of this name
            files.place(temporary, path)
            files.write(record, json.dumps(written, indent=1))
    finally:
        temporary.unlink(missing_ok=True)
    return damaged


def _header(count: int) -> bytes:
    """The start of a `.npy` file of images, as long for any count below 10^20."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *SHAPE)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:  # read, not mapped, which would count as memory of this process
        while block := file.read(2**20):
            checksum = zlib.crc32(block, checksum)
    return checksum


@contextmanager
def _writing(path: Path, count: int) -> Iterator[None]:
    """Have an error, as of a full disk, tell what was being written, how large it is, and how to choose its place."""
    try:
        yield
    except OSError as error:
        size = f"{count * math.prod(SHAPE) / 1e6:,.0f} MB"
        what = f"{error.strerror}: the decoded images take {size}; VAELIB_CACHE names a folder for them where that of "
        what += "the data is read-only"
        raise OSError(error.errno, what, str(path)) from error


def _image(read: Callable[[str], bytes], name: str) -> tuple[tuple[int, int], bytes] | None:
    """Of a whole image its size and the pixels that are kept, 3 x 64 x 48; None if it is damaged, or no JPEG."""
    content = io.BytesIO(read(name))  # that it cannot be read is no damage
    try:
        with Image.open(content, formats=["JPEG"]) as image:
            if image.mode != "RGB" or image.size not in CROPS:
                raise ValueError(
                    f"{name} is {image.size[0]} x {image.size[1]} pixels in mode {image.mode}; expected colour (RGB) "
                    f"and {' or '.join(f'{width} x {height}' for width, height in CROPS)}; replace or remove it"
                )
            image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for broken files
        return None
    box, factor = CROPS[image.size]
    # `reduce` takes the mean of each square of pixels, which is antialiasing enough for a whole factor
    return image.size, np.asarray(image.crop(box).reduce(factor)).transpose(2, 0, 1).tobytes()
