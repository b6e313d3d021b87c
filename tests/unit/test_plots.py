"""Figures of data whose classes have other names and numbers than MNIST's."""

from itertools import pairwise

import pytest
import torch

from vaelib import plots


def test_every_class_has_a_colour_and_is_in_the_legend():
    codes, labels, names = torch.randn(30, 2), torch.arange(30) % 3, ["_hidden", "cat", "$dog"]
    shown = plots.codes(codes, labels, names).legends[0].get_texts()
    assert [text.get_text().strip() for text in shown] == names
    with pytest.raises(ValueError, match="ten classes at most, as there are ten colours, not 11"):
        plots.codes(codes, labels, list("abcdefghijk"))


def test_each_curve_has_its_name_at_its_end_in_its_colour_and_apart_from_others():
    curves = {f"K = {K}": [0.0, 1 + K / 1e4] for K in (2, 8, 96)} | {"prior": [1.0, 0.0]}
    (panel,) = plots.lines([1, 2], curves, "", "").axes
    ends = {text.get_text(): text for text in panel.texts}
    assert {name: text.get_color() for name, text in ends.items()} == {
        line.get_label(): line.get_color() for line in panel.lines
    }
    heights = [ends[name].get_position()[1] for name in ("prior", "K = 2", "K = 8", "K = 96")]
    assert all(high - low > 0.08 for low, high in pairwise(heights))
