"""What does not fit is told before anything is trained or scored."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import Cauchy, Independent, Normal, Poisson

from vaelib import TrainConfig, evaluation, models, priors, runs
from vaelib.checks import check_model


class _Returns(nn.Module):
    """A decoder that has a network and returns something else than a likelihood."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z):
        return WRONG[self.kind](self.network(z))


class _Tensor(_Returns):
    kind = "tensor"


class _Loose(_Returns):
    kind = "loose"


class _Flat(_Returns):
    kind = "flat"


class _Wide(nn.Module):
    def __init__(self, latent_dim):
        super().__init__()

    def forward(self):
        return Independent(Normal(torch.zeros(5), 1.0), 1)


class _Discrete(nn.Module):
    """An encoder whose codes are counts."""

    def __init__(self, features, size, latent_dim):
        super().__init__()
        self.rate = nn.Sequential(features, nn.Linear(size, latent_dim))

    def forward(self, x):
        return Independent(Poisson(self.rate(x).exp()), 1)


class _Greedy(_Returns):
    """A decoder that wants two numbers for each pixel, and has not said so."""

    def forward(self, z):
        middle, width = self.network(z).chunk(2, 1)
        return Independent(Normal(middle, width.exp()), 3)


class _Cauchy(_Returns):
    kind = "cauchy"


WRONG = {
    "cauchy": lambda x: Independent(Cauchy(x, 1.0), 3),
    "tensor": lambda x: x,
    "loose": lambda x: Normal(x, 1.0),
    "flat": lambda x: Independent(Normal(x.flatten(1), 1.0), 1),
}


def _no_vae(image_shape, latent_dim):
    return nn.Linear(3, 3)


class _Making:
    def build(self, image_shape, latent_dim):
        return models.mlp(image_shape, latent_dim)


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (
            partial(models.mlp, decoder=_Tensor),
            "the decoder must return a torch.distributions.Distribution, not a Tensor",
        ),
        (
            partial(models.mlp, decoder=_Loose),
            r"the decoder .* batch_shape \(2, 1, 7, 7\) and event_shape \(\) .* expected .*Independent\(..., 3\)",
        ),
        (
            partial(models.mlp, decoder=_Flat),
            r"the decoder .* event_shape \(49,\) .* expected .* event_shape \(1, 7, 7\)$",
        ),
        (partial(models.mlp, prior=_Wide), "the encoder's codes have K = 3 numbers, the prior's have 5"),
        (partial(models.mlp, encoder=_Discrete), "the encoder returned Independent, which has no rsample"),
        (partial(models.mlp, decoder=_Greedy), r"the decoder failed .*\(2, 3\).* not enough values .* `outputs`"),
        (partial(models.mlp, decoder=_Cauchy), "the decoder returned a distribution without a finite mean"),
        (partial(models.mlp, prior=priors.Standard(3)), "an object of Standard, which has no name"),
        (models.mlp((1, 7, 7), 3), "an object of VAE, which has no name"),
        (_Making().build, "a method of an object of _Making, which has no name"),
        (_no_vae, "_no_vae must build a vaelib.models.VAE, not a Linear"),
    ],
)
def test_a_model_whose_parts_do_not_fit_is_told_before_anything_is_written(tiny, tmp_path, builder, message):
    with pytest.raises(ValueError, match=message):
        runs.train(tiny, TrainConfig(3, epochs=1), tmp_path, "cpu", builder=builder)
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_fit_stays_in_training_mode():
    model = models.mlp((1, 7, 7), 3, decoder=_Loose)
    with pytest.raises(ValueError, match="the decoder"):
        check_model(model)
    assert model.training


@pytest.mark.parametrize("scored", [evaluation.elbo, partial(evaluation.log_prob, samples=10), evaluation.encode])
def test_a_model_put_together_by_hand_is_checked_before_it_is_scored(tiny, scored):
    model = models.mlp((1, 7, 7), 3, decoder=_Loose)
    with pytest.raises(ValueError, match=r"the decoder .*Independent\(..., 3\) makes it so"):
        scored(model, tiny.test.images)
