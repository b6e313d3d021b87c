"""Figures of data whose classes have other names and numbers than MNIST's."""

import pytest
import torch

from vaelib import plots


def test_every_class_has_a_colour_and_is_in_the_legend():
    codes, labels, names = torch.randn(30, 2), torch.arange(30) % 3, ["_hidden", "cat", "$dog"]
    shown = plots.codes(codes, labels, names).legends[0].get_texts()
    assert [text.get_text().strip() for text in shown] == names
    with pytest.raises(ValueError, match="ten classes at most, as there are ten colours, not 11"):
        plots.codes(codes, labels, list("abcdefghijk"))
