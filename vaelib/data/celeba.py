"""CelebA, read from its JPEGs and two lists, cropped as in the paper; decoded once, then mapped from a file."""

import hashlib
import io
import os
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
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
    names, attributes = _attributes(folder / ATTRIBUTES, sizes)
    parts = _partition(folder / PARTITION, sizes)
    chosen, boundary = _split(folder, list(sizes), parts)
    path = _place(folder, chosen, sizes)
    if skip_damaged and (damaged := _damaged(folder / IMAGES, chosen, path)):
        warnings.warn(f"{len(damaged)} damaged in {folder / IMAGES}, left out: {_some(damaged)}", stacklevel=2)
        chosen, boundary = _split(folder, sorted(sizes.keys() - damaged), parts)
        path = _place(folder, chosen, sizes)
    if not path.exists():
        _decode(folder / IMAGES, chosen, path)
    try:  # "c": what is written to the tensor stays in memory, and the file as it is
        images = torch.from_numpy(np.load(path, mmap_mode="c"))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to have the images decoded again") from error
    bits = np.frombuffer("".join(attributes[name] for name in chosen).encode(), np.uint8) == ord("1")
    labels = torch.from_numpy(bits.reshape(len(chosen), len(names)))
    return Dataset(
        name="celeba",
        train=Split(images[:boundary], labels[:boundary]),
        test=Split(images[boundary:], labels[boundary:]),
        names=names,
        fingerprint=hashlib.sha256(f"{path.stem} {boundary} {names}".encode() + bits.tobytes()).hexdigest()[:16],
    )


def _sizes(folder: Path) -> dict[str, int]:
    """The JPEGs' names, sorted, with their sizes in bytes; empty if there is no folder of images."""
    if not (folder / IMAGES).is_dir():
        return {}
    with os.scandir(folder / IMAGES) as entries:
        return dict(sorted((entry.name, entry.stat().st_size) for entry in entries if entry.name.endswith(".jpg")))


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


def _attributes(path: Path, images: dict[str, int]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The 40 names, and each image's attributes as 40 characters, 0 or 1."""
    lines = _lines(path)
    count, header = (*lines, "", "")[:2]
    names, attributes = tuple(header.split()), {}
    if not count.strip().isdecimal() or len(set(names)) != 40 or len(names) != 40:
        raise ValueError(f"{path} must begin with the number of images, then a line of 40 different names; {ADVICE}")
    for number, line in enumerate(lines[2:], 3):
        name, *values = line.split() or [""]
        attributes[name] = "".join(values).replace("-1", "0")
        if len(values) != 40 or len(attributes[name]) != 40 or attributes[name].strip("01"):
            raise ValueError(
                f"{path}, line {number}: expected a file name and 40 times 1 or -1, not {line!r}; {ADVICE}"
            )
    if not len(lines) - 2 == len(attributes) == int(count):
        raise ValueError(
            f"{path} announces {int(count)} images, but has {len(lines) - 2} lines on {len(attributes)} different "
            f"ones; correct its first line, or {ADVICE}"
        )
    _compare(path, attributes, images)
    return names, attributes


def _partition(path: Path, images: dict[str, int]) -> dict[str, str]:
    """Which part each image is in: "0" training, "1" validation, "2" test."""
    parts = {}
    for number, line in enumerate(_lines(path), 1):
        name, part = (*line.split(), "", "")[:2]
        if len(line.split()) != 2 or part not in ("0", "1", "2") or name in parts:
            raise ValueError(f"{path}, line {number}: expected a new file name and 0, 1 or 2, not {line!r}; {ADVICE}")
        parts[name] = part
    _compare(path, parts, images)
    return parts


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; {ADVICE}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}); {ADVICE}") from error


def _compare(path: Path, listed: dict, images: dict[str, int]) -> None:
    if unlisted := sorted(images.keys() - listed.keys()):
        raise ValueError(f"{path} has no line on {len(unlisted)} of the images: {_some(unlisted)}; {ADVICE}")
    if absent := sorted(listed.keys() - images.keys()):
        raise ValueError(
            f"{path} lists {len(absent)} images that are not in {path.parent / IMAGES}: {_some(absent)}; "
            f"add the images, or cut the list to those that are there"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _split(folder: Path, names: list[str], parts: dict[str, str]) -> tuple[list[str], int]:
    """The names, those for training first, and how many these are."""
    if len(names) < 2:
        raise ValueError(
            f"{folder / IMAGES} has {len(names)} whole image; at least two are needed, to train and to test"
        )
    if {parts[name] for name in names} == {"0", "1", "2"}:
        train = [name for name in names if parts[name] == "0"]
        return train + [name for name in names if parts[name] == "2"], len(train)
    return names, len(names) - max(1, len(names) // 10)


def _place(folder: Path, names: list[str], sizes: dict[str, int]) -> Path:
    """Where the decoded images are, or else where they go; another crop, order or set of images has another name."""
    digest = hashlib.sha256(repr((CROPS, SHAPE, [(name, sizes[name]) for name in names])).encode())
    home = Path.home() / ".cache" / "vaelib"
    places = [place / f"celeba-{digest.hexdigest()[:16]}.npy" for place in (folder, home)]
    # A folder that nobody may write to is to stay as it is, though root could write to it
    writable = os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222
    return next((path for path in places if path.exists()), places[0 if writable else 1])


def _damaged(folder: Path, names: list[str], path: Path) -> list[str]:
    """The damaged ones among the images; noted beside the decoded ones, so that they are looked for only once."""
    note = path.with_suffix(".damaged")
    if not path.exists() and not note.exists():
        damaged = []
        _decode(folder, names, path, damaged)
        if damaged:
            files.write(note, "\n".join(damaged))
    return note.read_text().split() if note.exists() else []


def _decode(folder: Path, names: list[str], path: Path, damaged: list[str] | None = None) -> None:
    """Write uint8 images (N, 3, 64, 48) to a `.npy` file, by threads: Pillow lets others run while it decodes.

    Given a list of damaged ones, it is added to; with any in it, nothing is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), *SHAPE)}
    found = {}  # each size of image, with the name of the first one

    def work(first: int) -> int:
        chunk = names[first : first + CHUNK]
        pixels = np.zeros((len(chunk), *SHAPE), np.uint8)
        for row, name in enumerate(chunk):
            try:
                pixels[row], size = _image(folder / name)
                found.setdefault(size, name)
            except _Damaged:
                if damaged is None:
                    raise
                damaged.append(name)
        try:
            with temporary.open("r+b") as file:
                file.seek(start + first * pixels[0].nbytes)
                file.write(pixels)
        except OSError as error:
            what = f"{error.strerror}: the decoded images take {len(names) * pixels[0].nbytes / 1e6:,.0f} MB"
            raise OSError(error.errno, what, str(temporary)) from error
        return len(chunk)

    with files.locked(path.parent, wait=True):
        if path.exists():  # another process has decoded them while this one waited
            return
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            with temporary.open("wb") as file:
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
        finally:
            pool.shutdown(cancel_futures=True)
            temporary.unlink(missing_ok=True)


class _Damaged(ValueError):
    pass


def _image(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """The paper's crop of one image, (3, 64, 48), and the width and height of the whole."""
    content = io.BytesIO(path.read_bytes())
    try:
        with Image.open(content) as image:
            image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises for broken files
        raise _Damaged(
            f"{path} is damaged ({error}); replace it, or leave out damaged images with "
            f"vaelib.data.celeba.load(folder, skip_damaged=True)"
        ) from error
    if image.mode != "RGB" or image.size not in CROPS:
        raise ValueError(
            f"{path} is {image.size[0]} x {image.size[1]} pixels in mode {image.mode}; expected colour (RGB) and "
            f"{' or '.join(f'{width} x {height}' for width, height in CROPS)}; replace it, or remove it and its lines"
        )
    box, factor = CROPS[image.size]
    # `reduce` takes the mean of each square of pixels, which is antialiasing enough for a whole factor
    return np.asarray(image.crop(box).reduce(factor)).transpose(2, 0, 1), image.size
