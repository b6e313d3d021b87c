"""The drawn faces: what is in them, that they come out the same every time, and that each factor does its own work."""

import os
import re
import subprocess
import sys

import pytest
import torch

from vaelib import data
from vaelib.data import synthetic_faces, to_float

FINGERPRINT = "3db61e260b4295d4"
MOUTH = (slice(39, 57), slice(9, 39))  # rows, columns
EYES = (slice(17, 39), slice(None))
LEFT_HALF, RIGHT_HALF = (slice(None), slice(0, 24)), (slice(None), slice(24, 48))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    drawn_faces = data.load("faces", folder / "nothing")
    assert list(folder.iterdir()) == []
    return drawn_faces


def _strip(name, values, base=None):
    """Faces that differ in one factor only, as floats."""
    factors = torch.zeros(len(values), len(synthetic_faces.FACTORS)) if base is None else base.repeat(len(values), 1)
    factors[:, synthetic_faces.FACTORS.index(name)] = torch.tensor(values)
    return to_float(synthetic_faces.render(factors))


def _mean(images, place):
    return images[:, :, *place].mean((1, 2, 3))


# The data set


def test_faces_are_uint8_images_with_a_column_an_attribute(drawn):
    assert drawn.fingerprint == FINGERPRINT
    assert (drawn.name, drawn.image_shape, drawn.names) == ("faces", (3, 64, 48), tuple(synthetic_faces.ATTRIBUTES))
    assert (len(drawn.train), len(drawn.test)) == (4000, 1000)
    for split in (drawn.train, drawn.test):
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.bool)
        assert split.labels.shape == (len(split), len(synthetic_faces.ATTRIBUTES))


def test_the_small_set_is_the_first_of_the_large_one(drawn):
    small = data.load("faces-small")
    assert (small.name, len(small.train), len(small.test)) == ("faces-small", 1024, 160)
    for few, all_ in ((small.train, drawn.train), (small.test, drawn.test)):
        assert torch.equal(few.images, all_.images[: len(few)])
        assert torch.equal(few.labels, all_.labels[: len(few)])


def test_every_attribute_is_there_and_not_there_in_a_tenth_of_both_splits(drawn):
    for split in (drawn.train, drawn.test):
        shares = split.labels.float().mean(0)
        assert (torch.minimum(shares, 1 - shares) >= 0.1).all(), dict(zip(drawn.names, shares.tolist(), strict=True))


def test_no_test_face_is_also_a_training_one(drawn):
    known = {image.numpy().tobytes() for image in drawn.train.images}
    assert len(known) == 4000
    assert not any(image.numpy().tobytes() in known for image in drawn.test.images)


def test_labels_follow_the_table(monkeypatch, drawn):
    render = synthetic_faces.render
    monkeypatch.setattr(synthetic_faces, "render", lambda factors: None)
    factors = synthetic_faces.generate(1000, 1)[1]
    assert torch.equal(render(factors[-50:]), drawn.test.images[-50:])
    for column, (name, low, high) in zip(drawn.test.labels.T, synthetic_faces.ATTRIBUTES.values(), strict=True):
        values = factors[:, synthetic_faces.FACTORS.index(name)].tolist()
        assert column.tolist() == [low < value <= high for value in values]


# Drawing at random


def test_a_seed_gives_the_same_faces_and_another_seed_others():
    (images, factors), (again, same), (others, _) = (synthetic_faces.generate(20, seed) for seed in (3, 3, 4))
    assert torch.equal(images, again) and torch.equal(factors, same)
    assert all((image != other).any() for image in images for other in others)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_chunk_size_changes_no_pixel(monkeypatch, chunk):
    images, factors = synthetic_faces.generate(60, 3)
    monkeypatch.setattr(synthetic_faces, "CHUNK", chunk)
    again, same = synthetic_faces.generate(60, 3)
    assert torch.equal(images, again) and torch.equal(factors, same)


def test_no_part_of_a_face_reaches_beyond_the_rows_that_are_said(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(300, len(synthetic_faces.FACTORS), generator=generator).clamp(-2.5, 2.5)
    factors = torch.cat([drawn, 2.5 * drawn.sign()])  # and the corners of what may be drawn
    images = synthetic_faces.render(factors)
    monkeypatch.setattr(synthetic_faces, "ROWS", {})
    assert torch.equal(images, synthetic_faces.render(factors))


def test_a_processor_without_vector_instructions_draws_the_same_faces():
    images = synthetic_faces.generate(100, 3)[0]
    code = "import sys; from vaelib.data.synthetic_faces import generate\n"
    code += "sys.stdout.buffer.write(generate(100, 3)[0].numpy())"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    plain = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    assert plain == images.numpy().tobytes()


def test_factors_are_independent_standard_normals(monkeypatch):
    monkeypatch.setattr(synthetic_faces, "render", lambda factors: None)
    factors = synthetic_faces.generate(4000, 0)[1]
    assert factors.abs().max() == 2.5
    assert factors.mean(0).abs().max() < 0.06
    assert (factors.std(0) - 0.99).abs().max() < 0.05
    assert (factors.T.corrcoef() - torch.eye(len(synthetic_faces.FACTORS))).abs().max() < 0.06


@pytest.mark.parametrize(
    ("count", "seed"), [(0, 0), (-1, 0), (2.0, 0), ("3", 0), (1, -1), (1, 2**63), (1, 0.0), (1, None)]
)
def test_a_bad_count_or_seed_is_refused(count, seed):
    with pytest.raises(ValueError, match=re.escape(f"not {count!r} and {seed!r}")):
        synthetic_faces.generate(count, seed)


@pytest.mark.parametrize(
    "factors",
    [
        torch.zeros(2, len(synthetic_faces.FACTORS) + 1),
        torch.zeros(len(synthetic_faces.FACTORS)),
        torch.zeros(0, len(synthetic_faces.FACTORS)),
        torch.zeros(2, len(synthetic_faces.FACTORS), dtype=torch.int64),
    ],
)
def test_render_refuses_what_are_no_factors(factors):
    with pytest.raises(ValueError, match=re.escape(f"not {factors.dtype} of shape {tuple(factors.shape)}")):
        synthetic_faces.render(factors)


# What each factor does


@pytest.mark.parametrize("name", synthetic_faces.FACTORS)
def test_every_factor_is_seen(name):
    low, high = _strip(name, [-2.0, 2.0])
    assert (low - high).abs().max() > 0.15
    assert (low - high).abs().mean() > 0.002


@pytest.mark.parametrize(
    ("name", "place"),
    [("smile", MOUTH), ("mouth_opening", MOUTH), ("glasses", EYES)],
    ids=lambda value: str(value)[:13],
)
def test_a_factor_of_a_part_changes_that_part_alone(name, place):
    low, high = _strip(name, [-2.0, 2.0])
    change = (low - high).abs().amax(0)
    inside = change[place].sum()
    assert inside > 0.85 * change.sum()
    assert change[place].max() > 0.3
    assert (change > 0).float().mean() < 0.25
