"""Data sets of tensors: which pixels they take, by what they are known, and parts of them."""

import math
from dataclasses import replace

import pytest
import torch

from vaelib import attributes
from vaelib.data import Dataset, Split, to_float


@pytest.mark.parametrize("pixels", [torch.arange(720).view(90, 1, 2, 4).to(torch.uint8), torch.rand(90, 4)])
def test_the_same_pixels_cut_elsewhere_are_other_data(pixels):
    first, again, other = (Dataset("cut", Split(pixels[:cut]), Split(pixels[cut:])) for cut in (60, 60, 30))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_eight_attributes_are_no_class_numbers_of_the_same_bytes(tiny):
    numbers = [Split(each.images, torch.ones(len(each)).long()) for each in (tiny.train, tiny.test)]
    bits = [Split(each.images, each.labels.view(torch.bool).view(-1, 8)) for each in numbers]
    assert Dataset("a", *bits, "01234567").fingerprint != Dataset("a", *numbers, "01").fingerprint


def test_a_part_of_a_data_set_is_other_data(tiny):
    half = replace(tiny, train=Split(tiny.train.images[:100], tiny.train.labels[:100]))
    assert half.fingerprint != tiny.fingerprint == replace(tiny, name="other").fingerprint
    held = tiny.hold_out(20)
    assert held.fingerprint not in (tiny.fingerprint, tiny.hold_out(21).fingerprint, tiny.hold_out(20, 1).fingerprint)
    everything = torch.cat([held.train.images, held.validation.images])
    assert sorted(map(bytes, everything.numpy())) == sorted(map(bytes, tiny.train.images.numpy()))
    rows = [tiny.train.images.flatten(1).tolist().index(image) for image in held.train.images.flatten(1).tolist()]
    assert rows == sorted(rows)  # what is kept stays in its order


@pytest.mark.parametrize(
    ("count", "seed", "found"),
    [
        (200, 0, "hold out from 1 to 199"),
        *((count, 0, "count must be a whole number") for count in (0, -1, "3", True, 2.0, math.nan, None, [3])),
        *((3, seed, "seed must be a whole number") for seed in (-1, "0", 1.5, None)),
    ],
)
def test_what_cannot_be_held_out_is_refused(tiny, count, seed, found):
    with pytest.raises(ValueError, match=found):
        tiny.hold_out(count, seed)


@pytest.mark.parametrize("names", ["aa", (0, 1), ("a", None), (["a"], ["b"]), {"a", "b"}, None, 2, torch.arange(2)])
def test_names_are_different_strings_in_an_order(tiny, names):
    splits = [Split(each.images, each.labels % 2) for each in (tiny.train, tiny.test)]
    with pytest.raises(ValueError, match="the names must be different strings"):
        Dataset("a", *splits, names)
    assert Dataset("a", *splits, ["a", "b"]).names == ("a", "b")


@pytest.mark.parametrize("part", [None, torch.zeros(2, 3), (torch.zeros(2, 3), None)])
def test_a_part_that_is_no_split_is_refused(tiny, part):
    with pytest.raises(ValueError, match=r"parts of a data set must be data.Split\(images, labels\)"):
        Dataset("a", part, tiny.test, tiny.names)


def test_pixels_of_two_bytes_and_floats_are_images():
    words = (torch.arange(64, dtype=torch.int32) * 1000).to(torch.uint16).view(4, 1, 4, 4)
    assert to_float(words).max() == pytest.approx(63000 / 65535)
    assert to_float(torch.rand(2, 3).half()).dtype == torch.float32
    assert to_float(torch.rand(2, 3).double()).dtype == torch.float64
    with pytest.raises(ValueError, match=r"expected a Tensor: uint8, uint16, float; not .*Tensor.* torch.int32"):
        to_float(words.int())
    with pytest.raises(ValueError, match=r"expected a Tensor.* not .*ndarray.* float32"):
        to_float(torch.rand(2, 3).numpy())
    for wrong in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="not finite"):
            Split(torch.tensor([[0.5, wrong]]))


@pytest.mark.parametrize(
    ("kind", "dark", "white"), [(torch.uint8, 0, 128), (torch.uint8, 127, 255), (torch.uint16, 4095, 65535)]
)
def test_pixels_on_a_part_of_the_scale_are_warned_of(kind, dark, white, recwarn):
    images = torch.full((200, 1, 2, 2), dark, dtype=torch.int32)
    with pytest.warns(UserWarning, match=f"the largest pixel value is {dark}; white is"):
        Split(images.to(kind))
    images[-1] = white  # dark images before bright ones are nothing to warn of
    Split(images.to(kind))
    assert not recwarn


def test_equal_mean_codes_have_no_direction():
    codes = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(20, 1)
    labels = torch.tensor([True, True, False, False]).repeat(10)[:, None]
    with pytest.raises(ValueError, match=r"Smiling: 20 images .* with different mean codes"):
        attributes.fit(codes, labels, ["Smiling"])
