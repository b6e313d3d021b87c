"""The drawn faces: what is in them, that they come out the same every time, and that each factor does its own work."""

import re

import pytest
import torch

from vaelib import data
from vaelib.data import synthetic_faces, to_float

FINGERPRINT = "5b41f28a5bd9e4c7"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    drawn_faces = data.load("faces-small", folder / "nothing")
    assert list(folder.iterdir()) == []
    return drawn_faces


# The data set


def test_faces_have_a_fingerprint_which_any_change_of_a_pixel_or_a_label_would_change(drawn):
    assert drawn.fingerprint == FINGERPRINT
    assert (drawn.name, drawn.image_shape) == ("faces-small", (3, 64, 48))
    assert drawn.names == tuple(synthetic_faces.ATTRIBUTES)
    assert (len(drawn.train), len(drawn.test)) == (1024, 160)
    assert drawn.test.labels.dtype == torch.bool


def test_the_small_set_is_the_first_of_the_large_one(drawn, monkeypatch):
    """Of which few are drawn, since all would take ten seconds; torch draws the same in multiples of 16."""
    assert synthetic_faces.COUNTS["faces"] == (4000, 1000)
    monkeypatch.setitem(synthetic_faces.COUNTS, "faces", (32, 16))
    large = data.load("faces")
    for few, all_ in ((large.train, drawn.train), (large.test, drawn.test)):
        assert torch.equal(few.images, all_.images[: len(few)])
        assert torch.equal(few.labels, all_.labels[: len(few)])


def test_every_attribute_is_there_and_not_there_in_a_tenth_of_both_splits(drawn):
    for split in (drawn.train, drawn.test):
        shares = split.labels.float().mean(0)
        assert (torch.minimum(shares, 1 - shares) >= 0.1).all(), dict(zip(drawn.names, shares.tolist(), strict=True))


def test_no_test_face_is_also_a_training_one(drawn):
    known = {image.numpy().tobytes() for image in drawn.train.images}
    assert len(known) == 1024
    assert not any(image.numpy().tobytes() in known for image in drawn.test.images)


# Drawing at random


def test_the_chunk_size_changes_no_pixel(monkeypatch):
    images, factors = synthetic_faces.generate(60, 3)
    monkeypatch.setattr(synthetic_faces, "CHUNK", 7)
    again, same = synthetic_faces.generate(60, 3)
    assert torch.equal(images, again) and torch.equal(factors, same)


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (-1, 0), (2.0, 0), ("3", 0), (1, -1), (1, 2**63), (1, None)])
def test_a_bad_count_or_seed_is_refused(count, seed):
    with pytest.raises(ValueError, match=r"(count|seed) must be (a whole number|below 2\*\*31)"):
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
    factors = torch.zeros(2, len(synthetic_faces.FACTORS))
    factors[:, synthetic_faces.FACTORS.index(name)] = torch.tensor([-2.0, 2.0])
    low, high = to_float(synthetic_faces.render(factors))
    assert (low - high).abs().max() > 0.15
    assert (low - high).abs().mean() > 0.002
