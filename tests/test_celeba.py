"""CelebA: the crop, the split, the decoded images' file, and every state that the folder may be in."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from vaelib import data
from vaelib.data import celeba

NAMES = tuple(f"Attribute_{number}" for number in range(40))
FULL, HALF = (178, 218), (89, 109)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No download works, and the user's cache is a folder of the test's own."""

    def fail(*_, **__):
        raise RuntimeError("no network\nhere")

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(celeba, "CelebA", fail)
    return tmp_path / "home"


def _attributes(count):
    return np.random.default_rng(0).integers(0, 2, (count, 40), bool)


def _lay_out(root, count=20, size=HALF, parts=None):
    """Images each of one grey, 5 times its number, from 000001.jpg on, and their lists; returns their folder."""
    folder = root / "celeba"
    (folder / celeba.IMAGES).mkdir(parents=True)
    names = [f"{number:06}.jpg" for number in range(1, count + 1)]
    for number, name in enumerate(names, 1):
        Image.new("RGB", size, (5 * number,) * 3).save(folder / celeba.IMAGES / name, quality=95)
    rows = [
        " ".join([name, *("1" if v else "-1" for v in row)])
        for name, row in zip(names, _attributes(count), strict=True)
    ]
    (folder / celeba.ATTRIBUTES).write_text("\n".join([str(count), " ".join(NAMES) + " ", *rows, ""]))
    lines = [f"{name} {part}\n" for name, part in zip(names, parts or [0] * count, strict=True)]
    (folder / celeba.PARTITION).write_text("".join(lines))
    return folder


def _numbers(split):
    """Which images these are, told from their greys."""
    assert split.images.float().std((1, 2, 3)).max() < 1
    return (split.images[:, 0, 0, 0] / 5).round().int().tolist()


def _caches(folder):
    return sorted(path.name for path in folder.glob("celeba-*"))


def _never(*_, **__):
    raise AssertionError("decoded again")


def _refused(root, error, *words, **options):
    """The loader refuses with all these words, and leaves nothing."""
    with pytest.raises(error) as caught:
        celeba.load(root, **options)
    assert all(str(word) in str(caught.value) for word in words), str(caught.value)
    assert _caches(root / "celeba") == []


# What is read


@pytest.mark.parametrize(("size", "step", "top", "left"), [(FULL, 2, 60, 41), (HALF, 1, 30, 20)])
def test_the_crop_is_the_papers(tmp_path, size, step, top, left):
    folder = _lay_out(tmp_path, 2, size)
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(width), np.arange(height)[:, None]
    Image.fromarray(ramp).save(folder / celeba.IMAGES / "000001.jpg", quality=100, subsampling=0)
    image = celeba.load(tmp_path).train.images[0].double().numpy()
    assert image.shape == (3, 64, 48)
    middle = (step - 1) / 2  # of the pixels that make one
    columns = image[0] - (left + middle + step * np.arange(48))
    rows = image[1] - (top + middle + step * np.arange(64)[:, None])
    for difference in (
        columns,
        rows,
    ):  # a JPEG is some levels off; an image displaced by one pixel, all in one direction
        assert np.abs(difference).max() <= 4
        assert abs(difference.mean()) < 0.6 * step - 0.1
    assert image[2].max() <= 4


def test_reduction_takes_the_mean_of_four_pixels(tmp_path):
    folder = _lay_out(tmp_path, 2, FULL)
    stripes = np.zeros((218, 178, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(folder / celeba.IMAGES / "000001.jpg", quality=100, subsampling=0)
    assert (celeba.load(tmp_path).train.images[0].int() - 100).abs().max() <= 2


def test_the_official_split_leaves_the_validation_images_out(tmp_path):
    _lay_out(tmp_path, 8, parts=[2, 0, 1, 0, 2, 0, 1, 0])
    faces = data.load("celeba", tmp_path)
    assert (_numbers(faces.train), _numbers(faces.test)) == ([2, 4, 6, 8], [1, 5])
    expected = _attributes(8)
    assert faces.train.labels.dtype == torch.bool
    assert np.array_equal(faces.train.labels.numpy(), expected[[1, 3, 5, 7]])
    assert np.array_equal(faces.test.labels.numpy(), expected[[0, 4]])
    assert (faces.name, faces.names, faces.image_shape) == ("celeba", NAMES, (3, 64, 48))


@pytest.mark.parametrize("parts", [[0] * 20, [0, 2] * 10])
def test_without_three_parts_the_last_tenth_is_for_testing(tmp_path, parts):
    _lay_out(tmp_path, 20, parts=parts)
    faces = celeba.load(tmp_path)
    assert (_numbers(faces.train), _numbers(faces.test)) == (list(range(1, 19)), [19, 20])


def test_the_order_of_the_lists_does_not_matter(tmp_path):
    first = celeba.load(_lay_out(tmp_path / "a").parent)
    folder = _lay_out(tmp_path / "b")
    for name, head in ((celeba.ATTRIBUTES, 2), (celeba.PARTITION, 0)):
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join(lines[:head] + lines[head:][::-1]))
    second = celeba.load(tmp_path / "b")
    assert torch.equal(first.train.labels, second.train.labels)
    assert first.fingerprint == second.fingerprint


def test_many_chunks_are_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(celeba, "CHUNK", 3)
    _lay_out(tmp_path, 40)
    assert _numbers(celeba.load(tmp_path).train) == list(range(1, 37))


# The file of decoded images


def test_images_are_decoded_once(tmp_path, monkeypatch):
    folder = _lay_out(tmp_path)
    first = celeba.load(tmp_path)
    monkeypatch.setattr(celeba, "_image", _never)
    second = celeba.load(tmp_path)
    assert torch.equal(first.train.images, second.train.images)
    assert first.fingerprint == second.fingerprint
    assert len(_caches(folder)) == 1


def test_writing_to_the_tensor_leaves_the_file_alone(tmp_path):
    _lay_out(tmp_path)
    celeba.load(tmp_path).train.images.zero_()
    assert _numbers(celeba.load(tmp_path).train) == list(range(1, 19))


def test_another_crop_or_set_of_images_has_another_file(tmp_path, monkeypatch):
    folder = _lay_out(tmp_path)
    prints = {celeba.load(tmp_path).fingerprint}
    Image.effect_noise(HALF, 50).convert("RGB").save(folder / celeba.IMAGES / "000001.jpg")
    prints.add(celeba.load(tmp_path).fingerprint)
    monkeypatch.setattr(celeba, "CROPS", {HALF: ((0, 0, 48, 64), 1)})
    prints.add(celeba.load(tmp_path).fingerprint)
    assert len(prints) == len(_caches(folder)) == 3


def test_other_labels_have_another_fingerprint_but_the_same_file(tmp_path):
    folder = _lay_out(tmp_path)
    before = celeba.load(tmp_path).fingerprint
    text = (folder / celeba.ATTRIBUTES).read_text()
    lines = text.splitlines()
    name, value, rest = lines[2].split(" ", 2)
    lines[2] = f"{name} {-int(value)} {rest}"
    (folder / celeba.ATTRIBUTES).write_text("\n".join(lines))
    assert celeba.load(tmp_path).fingerprint != before
    assert len(_caches(folder)) == 1


def test_a_read_only_folder_is_left_alone(tmp_path, home):
    folder = _lay_out(tmp_path)
    folder.chmod(0o555)
    celeba.load(tmp_path)
    folder.chmod(0o755)
    assert _caches(folder) == []
    assert len(_caches(home / ".cache" / "vaelib")) == 1


def test_an_interrupted_decoding_leaves_nothing(tmp_path, monkeypatch):
    folder = _lay_out(tmp_path)

    def interrupt(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(celeba, "_image", interrupt)
        with pytest.raises(KeyboardInterrupt):
            celeba.load(tmp_path)
    assert _caches(folder) == []
    assert len(celeba.load(tmp_path).train) == 18


def test_what_a_killed_process_left_is_replaced(tmp_path):
    folder = _lay_out(tmp_path)
    celeba.load(tmp_path)
    (path,) = folder.glob("celeba-*.npy")
    path.unlink()
    path.with_name(f"{path.name}.part").write_bytes(b"half" * 100_000)
    assert _numbers(celeba.load(tmp_path).train) == list(range(1, 19))
    assert _caches(folder) == [path.name]


def test_a_damaged_file_of_decoded_images_is_named(tmp_path):
    folder = _lay_out(tmp_path)
    celeba.load(tmp_path)
    (path,) = folder.glob("celeba-*.npy")
    for length in (0, 60, 5000):
        path.write_bytes(path.read_bytes()[:length].ljust(length, b"\0"))
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged.*delete it"):
            celeba.load(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("begun", [False, True])
def test_a_full_disk_is_told_with_the_path(tmp_path, monkeypatch, begun):
    folder = _lay_out(tmp_path)
    celeba.load(tmp_path)
    (path,) = folder.glob("celeba-*.npy")
    path.unlink()
    part = path.with_name(f"{path.name}.part")

    def fill(*_, **options):
        part.unlink(missing_ok=True)
        part.symlink_to("/dev/full")
        return tqdm(**options)

    if begun:  # the file has its header when the progress bar starts
        monkeypatch.setattr(celeba, "tqdm", fill)
    else:
        fill()
    _refused(tmp_path, OSError, "No space left", "MB", part)


# Damaged and missing files


def test_a_truncated_jpeg_is_refused_or_skipped(tmp_path, monkeypatch):
    folder = _lay_out(tmp_path)
    path = folder / celeba.IMAGES / "000003.jpg"
    path.write_bytes(path.read_bytes()[:-150])
    (folder / celeba.IMAGES / "000005.jpg").write_bytes(b"")
    _refused(tmp_path, ValueError, "2 (000003.jpg, 000005.jpg)", "skip_damaged=True")
    with pytest.warns(UserWarning, match=r"left out: 2 \(000003.jpg, 000005.jpg\)"):
        faces = celeba.load(tmp_path, skip_damaged=True)
    kept = [number for number in range(1, 21) if number not in (3, 5)]
    assert _numbers(faces.train) + _numbers(faces.test) == kept
    assert np.array_equal(
        torch.cat([faces.train.labels, faces.test.labels]).numpy(), _attributes(20)[np.array(kept) - 1]
    )
    monkeypatch.setattr(celeba, "_image", _never)
    with pytest.warns(UserWarning, match="left out: 2"):
        assert celeba.load(tmp_path, skip_damaged=True).fingerprint == faces.fingerprint


def test_all_may_be_damaged(tmp_path):
    for path in (_lay_out(tmp_path) / celeba.IMAGES).iterdir():
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="left out: 20"), pytest.raises(ValueError, match="too few whole images, 0"):
        celeba.load(tmp_path, skip_damaged=True)


def test_nothing_to_skip_is_nothing_to_warn_of(tmp_path, recwarn):
    _lay_out(tmp_path)
    assert len(celeba.load(tmp_path, skip_damaged=True).train) == 18
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (Image.new("L", HALF), "89 x 109 pixels in mode L"),
        (Image.new("RGB", (64, 64)), "64 x 64 pixels in mode RGB"),
        (Image.new("RGB", FULL), "different sizes"),
    ],
)
def test_an_image_of_another_kind_is_named(tmp_path, image, found):
    image.save(_lay_out(tmp_path) / celeba.IMAGES / "000007.jpg")
    _refused(tmp_path, ValueError, "000007.jpg", found)


@pytest.mark.parametrize("make", [False, True])
def test_without_images_all_that_is_needed_is_named(tmp_path, make):
    if make:
        (tmp_path / "celeba" / celeba.IMAGES).mkdir(parents=True)
    _refused(tmp_path, FileNotFoundError, "no network here", "img_align_celeba.zip", celeba.ATTRIBUTES, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_download_is_moved_into_place(tmp_path, monkeypatch):
    monkeypatch.setattr(celeba, "CelebA", lambda root, **_: _lay_out(Path(root)))
    assert len(celeba.load(tmp_path).train) == 18
    names = sorted(path.name for path in (tmp_path / "celeba").iterdir() if path.suffix != ".npy")
    assert names == [celeba.IMAGES, celeba.ATTRIBUTES, celeba.PARTITION]


@pytest.mark.parametrize("name", [celeba.ATTRIBUTES, celeba.PARTITION])
def test_a_missing_list_is_named(tmp_path, name):
    (_lay_out(tmp_path) / name).unlink()
    _refused(tmp_path, FileNotFoundError, tmp_path / "celeba" / name, "put a good copy there")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n", b"\r\n"),
        (b"20\n", b"\xef\xbb\xbf20\n"),  # a byte order mark, as Windows' editors write it
        (b"20\n", b"19\n"),
        (b"Attribute", b"  Attribute"),
        (b" ", b"\t"),
        (b"\n000001", b"\n\n 000001"),
        (b"jpg", b"JPG"),
    ],
)
def test_lists_in_another_manner_are_read(tmp_path, old, new):
    folder = _lay_out(tmp_path)
    expected = celeba.load(tmp_path).train
    for name in (celeba.ATTRIBUTES, celeba.PARTITION):
        (folder / name).write_bytes((folder / name).read_bytes().replace(old, new))
    if new == b"JPG":
        for path in list((folder / celeba.IMAGES).iterdir()):
            path.rename(path.with_suffix(".JPG"))
    train = celeba.load(tmp_path).train
    assert torch.equal(train.images, expected.images) and torch.equal(train.labels, expected.labels)


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        (celeba.ATTRIBUTES, lambda text: "", "line 2"),
        (celeba.ATTRIBUTES, lambda text: text.replace("20\n", "", 1), "line 2"),
        (celeba.ATTRIBUTES, lambda text: text.replace(NAMES[3], NAMES[4]), "40 different names"),
        (celeba.ATTRIBUTES, lambda text: text.rsplit("\n", 2)[0], "no line on: 1 (000020.jpg)"),
        (celeba.ATTRIBUTES, lambda text: text[:-5], "line 22"),
        (celeba.ATTRIBUTES, lambda text: text.replace("1\n000002", "2\n000002"), "line 3"),
        (celeba.ATTRIBUTES, lambda text: text.replace("000002", "000001"), "more lines than one: 1 (000001.jpg)"),
        (celeba.ATTRIBUTES, lambda text: text.replace("000002", "other"), "no line on: 1 (000002.jpg)"),
        (celeba.PARTITION, lambda text: "", "no line on: 20 (000001.jpg, 000002.jpg, 000003.jpg, ...)"),
        (celeba.PARTITION, lambda text: text.replace("000002.jpg 0\n", ""), "no line on: 1 (000002.jpg)"),
        (celeba.PARTITION, lambda text: text.replace("000002.jpg 0", "000002.jpg 3"), "line 2"),
        (celeba.PARTITION, lambda text: text.replace("000002.jpg 0", "000002.jpg"), "line 2"),
        (celeba.PARTITION, lambda text: text.replace("000002", "000001"), "more lines than one: 1 (000001.jpg)"),
    ],
)
def test_a_malformed_list_is_refused(tmp_path, name, change, found):
    path = _lay_out(tmp_path) / name
    path.write_text(change(path.read_text()))
    _refused(tmp_path, ValueError, path, found)


def test_a_list_that_is_no_text_is_refused(tmp_path):
    path = _lay_out(tmp_path) / celeba.PARTITION
    path.write_bytes(b"\xff\xfe\x00")
    _refused(tmp_path, ValueError, path, "line 1")


def test_listed_images_that_are_absent_are_named(tmp_path):
    folder = _lay_out(tmp_path)
    for number in (4, 6, 8, 9):
        (folder / celeba.IMAGES / f"{number:06}.jpg").unlink()
    _refused(tmp_path, ValueError, "no image", "4 (000004.jpg, 000006.jpg, 000008.jpg, ...)", "Change the lines")


def test_one_image_is_too_few(tmp_path):
    _lay_out(tmp_path, 1)
    _refused(tmp_path, ValueError, "at least two")
