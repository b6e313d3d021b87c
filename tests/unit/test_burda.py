"""The model that much of the field compares by."""

import torch
from torch import nn

from vaelib import burda
from vaelib.checks import check_model

MEANS = torch.linspace(0, 1, 784).view(1, 28, 28)


def test_their_model_has_their_sizes():
    model = burda.build((1, 28, 28), 50, MEANS)
    check_model(model)
    shapes = [tuple(each.weight.shape) for each in model.modules() if isinstance(each, nn.Linear)]
    assert shapes == [(200, 784), (200, 200), (50, 200), (50, 200), (200, 50), (200, 200), (784, 200)]


def test_weights_are_glorots_and_the_output_begins_at_the_pixels_means():
    model = burda.build((1, 28, 28), 50, MEANS)
    *_, last = (each for each in model.decoder.modules() if isinstance(each, nn.Linear))
    torch.testing.assert_close(last.bias.sigmoid().view(1, 28, 28), MEANS.clamp(0.001, 0.999))
    bound = (6 / (784 + 200)) ** 0.5
    assert 0.99 * bound < last.weight.abs().max() <= bound
