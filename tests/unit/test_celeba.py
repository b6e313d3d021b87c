"""CelebA: the crop, the split, the decoded images' file, and every state that the folder may be in."""

import hashlib
import shutil
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import celeba_attributes, flipped, lay_out_celeba
from PIL import Image
from torchvision.datasets import CelebA

from vaelib import data
from vaelib.data import celeba

IMAGES = "img_align_celeba"
ARCHIVE, ATTRIBUTES, PARTITION = "img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"
NAMES = tuple(f"Attribute_{number}" for number in range(40))
FULL, HALF = (178, 218), (89, 109)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No download works, and the user's cache is a folder of the test's own; returns the home that it is in."""

    def fail(*_, **__):
        raise RuntimeError("no network\nhere")

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("gdown.download", fail)
    monkeypatch.delenv("VAELIB_CACHE", raising=False)
    return tmp_path / "home"


def _lay_out(root, count=20, size=HALF, parts=None):
    """Images each of one grey, 5 times its number, and their lists; returns their folder."""
    pictures = (Image.new("RGB", size, (5 * number,) * 3) for number in range(1, count + 1))
    return lay_out_celeba(root, pictures, parts or [0] * count)


def _numbers(split):
    """Which images these are, told from their greys."""
    assert split.images.float().std((1, 2, 3)).max() < 1
    return (split.images[:, 0, 0, 0] / 5).round().int().tolist()


def _caches(folder):
    return [*folder.glob("celeba-*.npy")]


def _refused(root, error, *words, **options):
    """The loader refuses with all these words."""
    with pytest.raises(error) as caught:
        celeba.load(root, **options)
    assert all(str(word) in str(caught.value) for word in words), str(caught.value)


# What is read


@pytest.mark.parametrize(("size", "step", "top", "left"), [(FULL, 2, 60, 41), (HALF, 1, 30, 20)])
def test_the_crop_is_the_papers(tmp_path, size, step, top, left):
    folder = _lay_out(tmp_path, 2, size)
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(width), np.arange(height)[:, None]
    Image.fromarray(ramp).save(folder / IMAGES / "000001.jpg", quality=100, subsampling=0)
    image = celeba.load(tmp_path).train.images[0].double().numpy()
    assert image.shape == (3, 64, 48)
    middle = (step - 1) / 2  # of the pixels that make one
    columns = image[0] - (left + middle + step * np.arange(48))
    rows = image[1] - (top + middle + step * np.arange(64)[:, None])
    for difference in (columns, rows):  # a JPEG is some levels off; an image displaced by one pixel, all one way
        assert np.abs(difference).max() <= 4
        assert abs(difference.mean()) < 0.6 * step - 0.1
    assert image[2].max() <= 4


def test_the_official_split_leaves_the_validation_images_out(tmp_path):
    _lay_out(tmp_path, 8, parts=[2, 0, 1, 0, 2, 0, 1, 0])
    faces = data.load("celeba", tmp_path)
    assert (_numbers(faces.train), _numbers(faces.test)) == ([2, 4, 6, 8], [1, 5])
    expected = celeba_attributes(8)
    assert faces.train.labels.dtype == torch.bool
    assert np.array_equal(faces.train.labels.numpy(), expected[[1, 3, 5, 7]])
    assert np.array_equal(faces.test.labels.numpy(), expected[[0, 4]])
    assert (faces.name, faces.names, faces.image_shape) == ("celeba", NAMES, (3, 64, 48))


@pytest.mark.parametrize(
    ("parts", "train", "test", "how"),
    [
        ([0, 2] * 5, [1, 3, 5, 7, 9], [2, 4, 6, 8, 10], "as marked"),
        ([1, 2] * 5, [1, 3, 5, 7, 9], [2, 4, 6, 8, 10], "those for validation as training images"),
        ([1, 0] * 5, [2, 4, 6, 8, 10], [1, 3, 5, 7, 9], "those for validation as test images"),
        ([0] * 20, list(range(1, 19)), [19, 20], "the last tenth by name"),
        ([1] * 20, list(range(1, 19)), [19, 20], "the last tenth by name"),
    ],
)
def test_no_image_that_is_marked_for_testing_is_trained_on(tmp_path, capsys, parts, train, test, how):
    _lay_out(tmp_path, len(parts), parts=parts)
    faces = celeba.load(tmp_path)
    assert (_numbers(faces.train), _numbers(faces.test)) == (train, test)
    assert f"{len(train)} images for training and {len(test)} for testing" in faces.origin and how in faces.origin
    assert faces.origin in capsys.readouterr().out


# The file of decoded images


def test_other_labels_images_or_crops_have_another_fingerprint_and_but_for_labels_another_file(tmp_path, monkeypatch):
    folder = _lay_out(tmp_path)
    prints = {celeba.load(tmp_path).fingerprint}
    head, last = (folder / ATTRIBUTES).read_text().rstrip().rsplit(" ", 1)
    (folder / ATTRIBUTES).write_text(f"{head} {-int(last)}")
    prints.add(celeba.load(tmp_path).fingerprint)
    assert len(_caches(folder)) == 1
    Image.effect_noise(HALF, 50).convert("RGB").save(folder / IMAGES / "000001.jpg")
    prints.add(celeba.load(tmp_path).fingerprint)
    monkeypatch.setattr(celeba, "CROPS", {HALF: ((0, 0, 48, 64), 1)})
    prints.add(celeba.load(tmp_path).fingerprint)
    assert len(prints) == 4 and len(_caches(folder)) == 3


@pytest.mark.parametrize("tensor", ["images", "labels"])
def test_what_is_changed_in_place_has_another_fingerprint(tmp_path, tensor):
    """Though the images are known by their files."""
    _lay_out(tmp_path)
    faces = celeba.load(tmp_path)
    before, (decoded,) = faces.fingerprint, tmp_path.rglob("*.npy")
    content = decoded.read_bytes()
    getattr(faces.test, tensor).numpy().flat[-1] ^= 1
    assert faces.fingerprint not in (before, replace(faces, test=replace(faces.train)).fingerprint)
    assert decoded.read_bytes() == content  # the change stays in memory


@pytest.mark.parametrize(("suffix", "place"), [(".npy", 0), (".npy", 60), (".npy", -1), (".json", 7), (".json", -40)])
def test_a_flipped_bit_of_what_was_decoded_is_found(tmp_path, place, suffix):
    folder = _lay_out(tmp_path)
    (folder / IMAGES / "000003.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match="left out"):
        before = celeba.load(tmp_path, skip_damaged=True)
    expected, known = before.train.images.clone(), before.fingerprint  # before the mapped file changes
    (path,) = _caches(folder)
    whole = path.read_bytes()
    spoilt = path.with_suffix(suffix)
    spoilt.write_bytes(flipped(spoilt.read_bytes(), place))
    with pytest.warns(UserWarning, match="left out"):
        after = celeba.load(tmp_path, skip_damaged=True)
    assert torch.equal(after.train.images, expected) and after.fingerprint == known
    assert path.read_bytes() == whole


def test_a_read_only_folder_is_left_alone_and_another_can_be_named(tmp_path, monkeypatch, home):
    folder = _lay_out(tmp_path)
    folder.chmod(0o555)
    celeba.load(tmp_path)
    monkeypatch.setenv("VAELIB_CACHE", str(tmp_path / "other"))
    celeba.load(tmp_path)
    monkeypatch.setenv("VAELIB_CACHE", str(folder / ATTRIBUTES))
    _refused(tmp_path, OSError, folder / ATTRIBUTES)
    folder.chmod(0o755)
    assert _caches(folder) == []
    assert len(_caches(home / ".cache" / "vaelib")) == len(_caches(tmp_path / "other")) == 1


# Damaged and missing files


def test_a_truncated_jpeg_is_refused_or_skipped(tmp_path, monkeypatch):
    folder = _lay_out(tmp_path)
    path = folder / IMAGES / "000003.jpg"
    path.write_bytes(path.read_bytes()[:-150])
    (folder / IMAGES / "000005.jpg").write_bytes(b"")
    words = "2 images in", "cannot be read", "000003.jpg", "000005.jpg", "skip_damaged=True", "--skip-damaged"
    _refused(tmp_path, ValueError, *words)
    with pytest.warns(UserWarning, match="left out\n  000003.jpg\n  000005.jpg$"):
        faces = data.load("celeba", str(tmp_path), skip_damaged=True)
    kept = [number for number in range(1, 21) if number not in (3, 5)]
    assert _numbers(faces.train) + _numbers(faces.test) == kept
    labels = torch.cat([faces.train.labels, faces.test.labels]).numpy()
    assert np.array_equal(labels, celeba_attributes(20)[np.array(kept) - 1])
    monkeypatch.setattr(celeba, "_decode", None)  # they are decoded once
    with pytest.warns(UserWarning, match="left out"):
        assert celeba.load(str(tmp_path), skip_damaged=True).fingerprint == faces.fingerprint
    with pytest.raises(ValueError, match=r"2 images in .* cannot be read"):
        celeba.load(tmp_path)


def test_a_mended_image_is_no_longer_left_out(tmp_path):
    """Though it is as large as the damaged one."""
    folder = _lay_out(tmp_path)
    path = folder / IMAGES / "000003.jpg"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    with pytest.warns(UserWarning, match="left out"):
        assert 3 not in _numbers(celeba.load(tmp_path, skip_damaged=True).train)
    path.write_bytes(whole)
    assert 3 in _numbers(celeba.load(tmp_path, skip_damaged=True).train)
    assert 3 in _numbers(celeba.load(tmp_path).train)


def test_only_celeba_has_images_to_skip(tmp_path):
    with pytest.raises(ValueError, match="skip_damaged is for CelebA"):
        data.load("digits", skip_damaged=True)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (Image.new("L", HALF), "mode L and size (89, 109)"),
        (Image.new("RGB", (64, 64)), "mode RGB and size (64, 64)"),
        (Image.new("RGB", FULL), "different sizes"),
    ],
)
def test_an_image_of_another_kind_is_named(tmp_path, image, found):
    image.save(_lay_out(tmp_path) / IMAGES / "000007.jpg")
    _refused(tmp_path, ValueError, "000007.jpg", found)


# What is missing, and fetched


@pytest.mark.parametrize("make", [False, True])
def test_without_images_all_that_is_needed_is_named(tmp_path, make):
    if make:
        (tmp_path / "celeba" / IMAGES).mkdir(parents=True)
    _refused(tmp_path, FileNotFoundError, "no network here", "img_align_celeba.zip", ATTRIBUTES, PARTITION, tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] in ([], [".lock"])


@pytest.fixture
def drive(tmp_path, monkeypatch):
    """A Google Drive that has CelebA's files; returns its folder and the names of those that were asked for."""
    folder, asked = _lay_out(tmp_path / "drive"), []
    with zipfile.ZipFile(folder / ARCHIVE, "w") as archive:
        for path in sorted((folder / IMAGES).iterdir()):
            archive.write(path, f"{IMAGES}/{path.name}")
    (folder / "list_landmarks_align_celeba.txt").write_text("over its quota")
    names = [ARCHIVE, ATTRIBUTES, "list_landmarks_align_celeba.txt", PARTITION]
    sums = [hashlib.md5((folder / name).read_bytes()).hexdigest() for name in names]
    monkeypatch.setattr(CelebA, "file_list", [(f"id of {n}", md5, n) for n, md5 in zip(names, sums, strict=True)])

    def download(output, id, **options):
        assert options["timeout"] and options["resume"]
        asked.append(id.removeprefix("id of "))
        shutil.copy(folder / asked[-1], output)

    monkeypatch.setattr("gdown.download", download)
    return folder, asked


def test_what_is_read_is_fetched_and_nothing_else(tmp_path, drive, capsys):
    faces = celeba.load(tmp_path)
    assert _numbers(faces.train) == list(range(1, 19))
    assert sorted(drive[1]) == [ARCHIVE, ATTRIBUTES, PARTITION]
    assert capsys.readouterr().out.startswith(f"fetching {ARCHIVE}, {ATTRIBUTES}, {PARTITION} into {tmp_path}")
    names = sorted(path.name for path in (tmp_path / "celeba").iterdir() if not path.name.startswith("celeba-"))
    assert names == [".lock", ARCHIVE, ATTRIBUTES, PARTITION]
    celeba.load(tmp_path)
    assert len(drive[1]) == 3


@pytest.mark.parametrize("name", [ATTRIBUTES, PARTITION, ARCHIVE])
def test_what_arrived_stays_when_another_file_fails(tmp_path, drive, name):
    folder, asked = drive
    (folder / name).write_bytes(b"<html>too many users have viewed this file</html>")
    _refused(tmp_path, FileNotFoundError, name, "the downloaded file is not", "the download failed")
    arrived = {path.name for path in (tmp_path / "celeba").iterdir()} - {".lock"}
    assert arrived == set(asked) - {name}


def test_without_gdown_it_is_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    (_lay_out(tmp_path) / PARTITION).unlink()
    _refused(tmp_path, FileNotFoundError, "pip install 'vaelib[celeba]'", PARTITION, "archive.zip", "may be .csv")


# Copies as people have them


def test_images_are_read_from_the_archive(tmp_path, drive):
    folder = _lay_out(tmp_path)
    expected = celeba.load(tmp_path)
    shutil.rmtree(folder / IMAGES)
    (folder / IMAGES).mkdir()
    (folder / IMAGES / ".DS_Store").write_bytes(b"what a Macintosh leaves")
    shutil.copy(drive[0] / ARCHIVE, folder)
    _caches(folder)[0].unlink()
    faces = celeba.load(tmp_path)
    assert torch.equal(faces.train.images, expected.train.images) and faces.fingerprint == expected.fingerprint
    assert drive[1] == []


def test_a_part_of_the_archive_is_named(tmp_path, drive):
    folder = _lay_out(tmp_path)
    shutil.rmtree(folder / IMAGES)
    content = (drive[0] / ARCHIVE).read_bytes()
    (folder / ARCHIVE).write_bytes(content[: len(content) // 2])
    _refused(tmp_path, ValueError, folder / ARCHIVE, "damaged")
    (folder / ARCHIVE).write_bytes(flipped(content, content.index(b"\xff\xd8") + 300))
    _refused(tmp_path, ValueError, "1 images in", "000001.jpg")


@pytest.mark.parametrize(
    ("nested", "zeros", "direct"), [(True, False, False), (False, True, False), (True, False, True)]
)
def test_kaggles_copy_is_read(tmp_path, nested, zeros, direct):
    """Comma-separated lists with a header, and the images one folder deeper; also with 0 for -1."""
    folder = _lay_out(tmp_path, parts=[0, 1, 2, 0] * 5)
    expected = celeba.load(tmp_path)
    for name, header in ((ATTRIBUTES, "image_id," + ",".join(NAMES)), (PARTITION, "image_id,partition")):
        rows = [line.split() for line in (folder / name).read_text().splitlines() if ".jpg" in line]
        if zeros:
            rows = [[value.replace("-1", "0") for value in row] for row in rows]
        text = "\n".join([header, *(",".join(row) for row in rows)])
        (folder / name).unlink()
        (folder / name).with_suffix(".csv").write_text(text)
    if nested:
        (folder / IMAGES).rename(folder / "images")
        (folder / IMAGES).mkdir()
        (folder / "images").rename(folder / IMAGES / IMAGES)
    faces = celeba.load(folder if direct else tmp_path)
    assert (faces.names, faces.fingerprint) == (NAMES, expected.fingerprint)
    assert torch.equal(faces.train.labels, expected.train.labels)
    assert torch.equal(faces.test.images, expected.test.images)


def test_a_part_of_the_images_takes_its_part_of_the_lists(tmp_path, capsys):
    folder = _lay_out(tmp_path, 30, parts=[0] * 15 + [1] * 5 + [2] * 10)
    for number in (2, 4, 6, 21, 22):
        (folder / IMAGES / f"{number:06}.jpg").unlink()
    (folder / IMAGES / "._000004.jpg").write_bytes(b"what a Macintosh leaves")
    faces = celeba.load(tmp_path)
    assert _numbers(faces.test) == list(range(23, 31))
    assert np.array_equal(faces.test.labels.numpy(), celeba_attributes(30)[22:])
    assert "25 of the 30 listed images are there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n", b"\r\n"),
        (b"20\n", b"\xef\xbb\xbf20\n"),  # a byte order mark, as Windows' editors write it
        (b"20\n", b""),  # no number of lines
        (b" -1", b" 0"),
        (b" ", b";"),
        (b" ", b'" "'),
        (b"Attribute", b"  Attribute"),
        (b" ", b"\t"),
        (b"\n000001", b"\n\n 000001"),
        (b"jpg", b"JPG"),
        (b"", b""),  # in UTF-16, as PowerShell writes
    ],
)
def test_lists_in_another_manner_are_read(tmp_path, old, new):
    folder = _lay_out(tmp_path)
    expected = celeba.load(tmp_path).train
    for name in (ATTRIBUTES, PARTITION):
        text = (folder / name).read_bytes().replace(old, new) if old else (folder / name).read_text().encode("utf-16")
        (folder / name).write_bytes(text)
    if new == b"JPG":
        for path in list((folder / IMAGES).iterdir()):
            path.rename(path.with_suffix(".JPG"))
    train = celeba.load(tmp_path).train
    assert torch.equal(train.images, expected.images) and torch.equal(train.labels, expected.labels)


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        (ATTRIBUTES, lambda text: "", "20 (000001.jpg, 000002.jpg, 000003.jpg, ...)"),
        (ATTRIBUTES, lambda text: text.replace(" ".join(NAMES), ""), "40 different names"),
        (ATTRIBUTES, lambda text: text.replace(NAMES[3], NAMES[4]), "40 different names"),
        (ATTRIBUTES, lambda text: text.rsplit("\n", 2)[0], "1 (000020.jpg)"),
        (ATTRIBUTES, lambda text: text.replace("1\n000002", "2\n000002"), "1 (000001.jpg)"),
        (ATTRIBUTES, lambda text: text.replace("000002", "000001"), "2 (000001.jpg, 000002.jpg)"),
        (ATTRIBUTES, lambda text: text.replace("000002.jpg", "000002"), "1 (000002.jpg)"),
        (ATTRIBUTES, lambda text: text.replace(" 1\n", " 0\n", 1), "-1 or 0 for no, but not both"),
        (PARTITION, lambda text: text.replace("000002.jpg 0", "000002.jpg 3"), "1 (000002.jpg)"),
    ],
)
def test_a_malformed_list_is_refused(tmp_path, name, change, found):
    path = _lay_out(tmp_path) / name
    path.write_text(change(path.read_text()))
    _refused(tmp_path, ValueError, path, found)
