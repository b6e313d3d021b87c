"""CelebA, read from its JPEGs and two lists, cropped as in the paper; decoded once, then mapped from a file."""

import hashlib
import io
import math
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import CelebA
from tqdm import tqdm

from .. import files
from .dataset import Dataset, Split

# Of either size of image (width, height): the box that is kept (left, top, right, bottom), and the reduction to 48 x 64
CROPS = {(178, 218): ((41, 60, 137, 188), 2), (89, 109): ((20, 30, 68, 94), 1)}
SHAPE = (3, 64, 48)
LEFT_OUT = -1  # instead of the part that a damaged image is in
CHUNK = 256  # images that a thread decodes at a time
IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
ADVICE = "put a good copy there, from http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


def load(folder: Path, skip_damaged: bool = False) -> Dataset:
    """Faces, 3 x 64 x 48, with 40 attributes (bool) as labels: 162,770 training and 19,962 test images, or a subset.

    The files lie in `folder/celeba`, as torchvision lays them: `img_align_celeba/*.jpg` (all of 178 x 218 pixels, or
    all of half that size, 89 x 109), `list_attr_celeba.txt` and `list_eval_partition.txt`. If there is no image,
    a download is tried (1.4 GB; it needs the package gdown).

    The split is the official one, whose validation images are left out of both parts. A subset that lacks one of the
    three parts is split by name instead: the last tenth is for testing, all others are for training.

    The images are decoded once, into a file beside the lists, or in `~/.cache/vaelib` if that folder is read-only;
    it is mapped into memory, so any number of images takes little. The file and the fingerprint know the images by
    their names and sizes on disk, so that they need not be read again.

    Parameters
    ----------
    folder : the folder that has, or gets, `celeba` in it
    skip_damaged : leave damaged JPEGs out, with a warning, instead of refusing them

    Raises
    ------
    ValueError
        If a list is malformed, does not fit the images, or an image is damaged, grey or of another size.
    FileNotFoundError
        If files are missing, and cannot be downloaded.
    OSError
        If the decoded images cannot be written.
    """
    folder = folder / "celeba"
    if not (sizes := _sizes(folder)):
        _download(folder)
        sizes = _sizes(folder)
    names, labels = _attributes(folder / ATTRIBUTES, list(sizes))
    parts = _values(folder / PARTITION, _lines(folder / PARTITION), 0, (0, 1, 2), 1, list(sizes))[:, 0]
    order, boundary = _split(folder, parts)
    images, path = _place(folder, sizes, order)
    while not path.exists() and (damaged := _decode(folder / IMAGES, images, path, skip_damaged)):
        listed = f"{_some(damaged)}, all listed in {path.with_suffix('.damaged')}"
        warnings.warn(f"damaged images in {folder / IMAGES}, left out: {listed}", stacklevel=2)
        parts[np.isin(list(sizes), damaged)] = LEFT_OUT
        order, boundary = _split(folder, parts)
        images, path = _place(folder, sizes, order)
    try:  # "c": what is written to the tensor stays in memory, and the file as it is
        pixels = torch.from_numpy(np.load(path, mmap_mode="c"))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to have the images decoded again") from error
    labels = torch.from_numpy(labels[order])
    digest = hashlib.sha256(f"{path.stem} {boundary} {names}".encode() + labels.numpy().tobytes())
    return Dataset(
        name="celeba",
        train=Split(pixels[:boundary], labels[:boundary]),
        test=Split(pixels[boundary:], labels[boundary:]),
        names=names,
        fingerprint=digest.hexdigest()[:16],
    )


def _sizes(folder: Path) -> dict[str, int]:
    """The JPEGs' names, sorted, with their sizes in bytes; empty if there is no folder of images."""
    if not (folder / IMAGES).is_dir():
        return {}
    descriptor = os.open(folder / IMAGES, os.O_RDONLY)
    try:  # relative to the folder, as 200,000 whole paths take longer to follow
        with os.scandir(descriptor) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(".jpg"))
        return {name: os.stat(name, dir_fd=descriptor).st_size for name in names}
    finally:
        os.close(descriptor)


def _download(folder: Path) -> None:
    """Fetch into a temporary folder beside the final one, so that a broken download leaves nothing behind."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            CelebA(temporary, split="all", download=True)
            for name in (PARTITION, ATTRIBUTES, IMAGES):
                if name == IMAGES or not (folder / name).exists():
                    Path(temporary, "celeba", name).replace(folder / name)
    except Exception as error:  # gdown, which torchvision calls, has exceptions of its own
        raise FileNotFoundError(
            f"no images (*.jpg) in {folder / IMAGES}, and the download failed ({' '.join(str(error).split())}). Fetch "
            f"img_align_celeba.zip, {ATTRIBUTES} and {PARTITION} from http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html "
            f"and put them into {folder}, the first one unpacked; or name another folder (argument `folder`, or "
            f"VAELIB_DATA)"
        ) from error


def _attributes(path: Path, images: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The 40 names, and which image has which, bool (N, 40). The number on the first line is not needed, nor read."""
    lines = _lines(path)
    names = tuple(lines[1].split()) if len(lines) > 1 else ()
    if not len(set(names)) == len(names) == 40:
        raise ValueError(f"{path}, line 2: expected 40 different names of attributes; {ADVICE}")
    return names, _values(path, lines, 2, (-1, 1), 40, images) == 1


def _lines(path: Path) -> list[str]:
    try:  # what is no text becomes a malformed line, and a byte order mark nothing
        return path.read_text("utf-8-sig", "replace").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; {ADVICE}") from None


def _values(path: Path, lines: list[str], skip: int, allowed: tuple, count: int, images: list[str]) -> np.ndarray:
    """The numbers beside the images' names, int8 (N, count), in the order of the images."""
    try:
        table = np.loadtxt(lines[skip:], [("name", object), ("values", "i1", count)], comments=None, ndmin=1)
        fits = np.isin(table["values"], allowed).all()
    except ValueError:
        fits = False
    if not fits:
        pattern = re.compile(rf"\s*\S+(\s+({'|'.join(map(str, allowed))})){{{count}}}\s*")
        number, line = next((n, line) for n, line in enumerate(lines, 1) if n > skip and not pattern.fullmatch(line))
        what = f"a file name and {count} of the numbers {allowed}"
        raise ValueError(f"{path}, line {number}: expected {what}, not {line!r}; {ADVICE}")
    table = table[np.argsort(table["name"], kind="stable")]  # the sort that is quick where all is in order already
    if (listed := table["name"].tolist()) != images:
        lacking, surplus = Counter(images) - Counter(listed), Counter(listed) - Counter(images)
        raise ValueError(
            f"{path} must have one line on each image in {path.parent / IMAGES}; no line on: {_some(lacking)}; no "
            f"image, or more lines than one: {_some(surplus)}. Change the lines or the images, or {ADVICE}"
        )
    return table["values"]


def _some(names: Collection[str]) -> str:
    return f"{len(names)} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})" if names else "none"


def _split(folder: Path, parts: np.ndarray) -> tuple[np.ndarray, int]:
    """The images' numbers, those for training first, and how many these are."""
    if {0, 1, 2} <= set(parts.tolist()):
        train, test = np.flatnonzero(parts == 0), np.flatnonzero(parts == 2)
    else:
        whole = np.flatnonzero(parts != LEFT_OUT)
        if len(whole) < 2:
            raise ValueError(f"{folder / IMAGES} has too few whole images, {len(whole)}: at least two are needed")
        train, test = np.split(whole, [-max(1, len(whole) // 10)])
    return np.concatenate([train, test]), len(train)


def _place(folder: Path, sizes: dict[str, int], order: np.ndarray) -> tuple[list[str], Path]:
    """The images in that order, and where they are decoded, or else will be.

    Another crop, order or set of images has another file.
    """
    items = list(sizes.items())
    items = [items[i] for i in order.tolist()]
    digest = hashlib.sha256(repr((CROPS, SHAPE, items)).encode())
    home = Path.home() / ".cache" / "vaelib"
    places = [place / f"celeba-{digest.hexdigest()[:16]}.npy" for place in (folder, home)]
    # A folder that nobody may write to is to stay as it is, though root could write to it
    writable = os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222
    path = next((path for path in places if path.exists()), places[0 if writable else 1])
    return [name for name, _ in items], path


def _decode(folder: Path, names: list[str], path: Path, skip_damaged: bool) -> list[str]:
    """Write uint8 images (N, 3, 64, 48) to a `.npy` file, by threads: Pillow lets others run while it decodes.

    If some are damaged, they are noted beside that file instead, so that they are looked for only once, and returned.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, note = path.with_name(f"{path.name}.part"), path.with_suffix(".damaged")
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), *SHAPE)}
    found = {}  # each size of image, with the name of the first one
    damaged = []

    def work(first: int) -> int:
        chunk = names[first : first + CHUNK]
        pixels = np.zeros((len(chunk), *SHAPE), np.uint8)
        for row, name in enumerate(chunk):
            if image := _image(folder / name):
                found.setdefault(image.size, name)
                box, factor = CROPS[image.size]
                # `reduce` takes the mean of each square of pixels, which is antialiasing enough for a whole factor
                pixels[row] = np.asarray(image.crop(box).reduce(factor)).transpose(2, 0, 1)
            else:
                damaged.append(name)
        with _writing(temporary, len(names)), temporary.open("r+b") as file:
            file.seek(start + first * pixels[0].nbytes)
            file.write(pixels)
        return len(chunk)

    with files.locked(path.parent, wait=True):
        if path.exists():  # another process has decoded them while this one waited
            return []
        if skip_damaged and note.exists():
            return note.read_text().split()
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            with _writing(temporary, len(names)), temporary.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                start = file.tell()
            with tqdm(total=len(names), desc="decoding CelebA, once", unit="image") as bar:
                for count in pool.map(work, range(0, len(names), CHUNK)):
                    bar.update(count)
                    if len(found) > 1:
                        sizes = " and ".join(f"{w} x {h} ({name})" for (w, h), name in found.items())
                        raise ValueError(f"{folder} has images of different sizes, {sizes}; all must have the same")
            if not damaged:
                temporary.replace(path)
            elif skip_damaged:
                files.write(note, "\n".join(damaged))
            else:
                raise ValueError(
                    f"{folder} has damaged images: {_some(damaged)}; replace them, or leave them out with "
                    f"vaelib.data.celeba.load(folder, skip_damaged=True)"
                )
        finally:
            pool.shutdown(cancel_futures=True)
            temporary.unlink(missing_ok=True)
    return damaged


@contextmanager
def _writing(path: Path, count: int) -> Iterator[None]:
    """Have an error, as of a full disk, tell what was being written, and how large it is."""
    try:
        yield
    except OSError as error:
        what = f"{error.strerror}: the decoded images take {count * math.prod(SHAPE) / 1e6:,.0f} MB"
        raise OSError(error.errno, what, str(path)) from error


def _image(path: Path) -> Image.Image | None:
    """The whole image; None if it is damaged."""
    content = io.BytesIO(path.read_bytes())  # that it cannot be read is no damage
    try:
        with Image.open(content) as image:
            image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for broken files
        return None
    if image.mode != "RGB" or image.size not in CROPS:
        raise ValueError(
            f"{path} is {image.size[0]} x {image.size[1]} pixels in mode {image.mode}; expected colour (RGB) and "
            f"{' or '.join(f'{width} x {height}' for width, height in CROPS)}; replace it, or remove it and its lines"
        )
    return image
