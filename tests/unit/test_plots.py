"""Figures of data whose names and numbers of classes aren't MNIST's."""

import pytest
import torch

from vaelib import plots


def test_every_class_is_in_the_legend():
    names = ["_hidden", "cat", "$dog"]
    figure = plots.codes(torch.randn(30, 2), torch.arange(30) % 3, names)
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == names


def test_more_classes_than_colours_are_refused():
    with pytest.raises(ValueError, match="ten classes at most, as there are ten colours, not 26"):
        plots.codes(torch.randn(52, 2), torch.arange(52) % 26, [chr(97 + n) for n in range(26)])
