"""The objective's functions against plain formulas, and what training minimises against closed forms."""

import math
from functools import partial
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from conftest import NormalPixels, StickingTheLanding, small
from torch import nn
from torch.autograd import gradcheck
from torch.distributions import MultivariateNormal, Normal
from torch.distributions import kl_divergence as torch_kl
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vaelib import encoders, objective, priors
from vaelib.models import VAE
from vaelib.seeding import seeded

PAPER = objective.negative_elbo
X = torch.rand(5, 1, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _drawn(count, *shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(6, 4), (5, 1, 3, 3), (1, 3, 2, 2)])
def test_bernoulli_log_prob_is_the_formula_one_number_an_image(shape):
    logits, x = 3 * _drawn(2, *shape)
    x, p = x.sigmoid(), logits.sigmoid()
    expected = (x * p.log() + (1 - x) * (1 - p).log()).flatten(1).sum(1)
    torch.testing.assert_close(objective.bernoulli_log_prob(x, logits), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("x", "logit", "per_pixel"), [(1, 100, 0), (0, 100, -100), (1, -100, -100), (0, -100, 0)])
def test_bernoulli_log_prob_is_exact_where_the_decoder_is_sure(x, logit, per_pixel):
    logits = torch.full((2, 1, 4, 4), float(logit), requires_grad=True)
    value = objective.bernoulli_log_prob(torch.full((2, 1, 4, 4), float(x)), logits)
    value.sum().backward()
    torch.testing.assert_close(value, torch.full((2,), 16.0 * per_pixel), rtol=0, atol=1e-30)
    torch.testing.assert_close(logits.grad, torch.full((2, 1, 4, 4), float(x - (logit > 0))), rtol=0, atol=1e-30)


def test_gaussian_log_prob_also_of_many_samples_of_each_and_kl_divergence_are_torchs():
    (mean, log_variance), z = _drawn(2, 6, 3), _drawn(4, 6, 3)
    normal, close = Normal(mean, (log_variance / 2).exp()), partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    close(objective.gaussian_log_prob(z, mean, log_variance), normal.log_prob(z).sum(-1))
    close(objective.kl_divergence(mean, log_variance), torch_kl(normal, Normal(0.0, 1.0)).sum(-1))


def test_reparameterize_moves_and_scales_the_noise_of_its_generator_and_lets_gradients_through():
    mean, log_variance = (each.requires_grad_() for each in _drawn(2, 4, 3))
    before = torch.get_rng_state()
    z = objective.reparameterize(mean, log_variance, torch.Generator().manual_seed(7))
    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    torch.testing.assert_close(z, mean + (log_variance / 2).exp() * noise)
    assert torch.equal(torch.get_rng_state(), before)
    gradients = torch.autograd.grad(z.sum(), (mean, log_variance))
    torch.testing.assert_close(gradients, (torch.ones_like(mean), (z - mean) / 2))


def test_elbo_is_the_two_functions():
    (mean, log_variance), (x, logits) = _drawn(2, 4, 3), _drawn(2, 4, 1, 5, 5)
    reconstruction, kl = objective.elbo(x, logits, mean, log_variance)
    assert torch.equal(reconstruction, objective.bernoulli_log_prob(x, logits))
    assert torch.equal(kl, objective.kl_divergence(mean, log_variance))


@pytest.mark.parametrize("samples", [1, 7])
def test_importance_weighted_bound_is_the_formula_however_small_the_weights_are(samples):
    log_weights = _drawn(samples, 6)
    expected = log_weights.exp().mean(0).log()
    torch.testing.assert_close(objective.importance_weighted_bound(log_weights), expected)
    torch.testing.assert_close(objective.importance_weighted_bound(log_weights - 1e4), expected - 1e4)


# What training minimises


@pytest.fixture
def linear():
    """A VAE of two pixels in double precision: p(x) is known, and weights are few enough for finite differences."""
    with seeded(0):
        decoder = NormalPixels(nn.Sequential(nn.Linear(2, 2), nn.Unflatten(1, (1, 1, 2))))
        return VAE(encoders.Gaussian(nn.Flatten(), 2, 2), decoder, priors.Standard(2), (1, 1, 2)).double()


def _loss(model, aim, fraction=0.0, x=X, seed=1):
    """What a training step minimises, and the terms that it is made of."""
    with seeded(seed):
        terms = model(x, **objective.options(aim))
    return aim(terms, fraction), terms


@pytest.mark.parametrize(
    ("aim", "prior"),
    [
        *product((objective.BetaELBO(4, warm_up=0.5), objective.ImportanceWeighted(3)), ("mixture", "VampPrior")),
        (objective.FreeBits(0.01), "standard"),  # the KL is above that
        (objective.MeanELBO(3), "standard"),
    ],
)
def test_gradients_are_those_of_finite_differences(linear, aim, prior):
    if prior == "mixture":
        linear.prior = priors.Mixture(2, components=2).double()
    elif prior == "VampPrior":
        linear.prior = priors.Vamp(linear.encoder, (1, 1, 2), components=2).double()
    names, weights = zip(*linear.named_parameters(), strict=True)

    def loss(*weights):
        called = partial(functional_call, linear, dict(zip(names, weights, strict=True)))
        return _loss(lambda x, **options: called((x,), options), aim, 0.25)[0].mean()

    assert gradcheck(loss, weights)


def test_beta_weighs_the_kl_and_annealing_lets_it_grow(linear):
    _, plain = _loss(linear, PAPER)
    for aim, fraction, beta in (
        (PAPER, 0, 1),
        (objective.BetaELBO(4), 0, 4),
        (objective.BetaELBO(2, warm_up=0.5), 0, 0),
        (objective.BetaELBO(2, warm_up=0.5), 0.25, 1),
        (objective.BetaELBO(2, warm_up=0.5), 0.75, 2),
    ):
        loss, _ = _loss(linear, aim, fraction)
        torch.testing.assert_close(loss, beta * plain.divergence - plain.reconstruction)


def test_free_bits_charge_every_dimension_at_least_its_nats(linear):
    q = linear.posterior(X)
    by_hand = torch_kl(Normal(q.mean, q.variance.sqrt()), Normal(0.0, 1.0)).mean(0)
    nats = by_hand.mean().item()  # between the two dimensions' KL
    loss, terms = _loss(linear, objective.FreeBits(nats))
    torch.testing.assert_close(loss + terms.reconstruction, (nats + by_hand.max()).expand(5))
    torch.testing.assert_close(terms.divergence.mean(), by_hand.sum())


def test_free_bits_need_a_kl_in_closed_form(linear):
    linear.prior = priors.Mixture(2).double()
    with pytest.raises(ValueError, match=r"free bits need each dimension's KL.*lacks.*warm_up"):
        _loss(linear, objective.FreeBits())


def test_one_importance_sample_is_the_elbo_and_many_are_log_p(linear):
    loss, terms = _loss(linear, objective.ImportanceWeighted(1))
    torch.testing.assert_close(loss, (terms.log_posterior - terms.log_prior)[0] - terms.reconstruction)
    weight, bias = (each.detach() for each in linear.decoder.parameters())
    exact = MultivariateNormal(bias, weight @ weight.T + 0.25 * torch.eye(2))
    many, terms = _loss(linear, objective.ImportanceWeighted(10_000))
    torch.testing.assert_close(-many, exact.log_prob(X.view(5, 2)), atol=0.05, rtol=0)
    assert (terms.reconstruction - terms.divergence < -many).all()  # what is recorded is the ELBO


def test_a_mean_of_samples_is_the_elbo_of_their_mean_reconstruction(linear):
    one, plain = (_loss(linear, aim)[0] for aim in (objective.MeanELBO(1), PAPER))
    assert torch.equal(one, plain)
    loss, terms = _loss(linear, objective.MeanELBO(3))
    torch.testing.assert_close(loss, linear.terms(X).divergence - terms.log_likelihood.mean(0))
    linear.prior = priors.Mixture(2).double()  # without a closed form: equation 8 instead of 10
    loss, terms = _loss(linear, objective.MeanELBO(3))
    torch.testing.assert_close(loss, -terms.log_weights.mean(0))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: objective.BetaELBO(-1),
        lambda: objective.BetaELBO(math.nan),
        lambda: objective.BetaELBO(1, warm_up=2),
        lambda: objective.FreeBits(-0.1),
        lambda: objective.ImportanceWeighted(0),
        lambda: objective.ImportanceWeighted(2.5),
        lambda: objective.MeanELBO(0),
    ],
)
def test_objectives_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^(expected|samples must be a whole number of at least 1)"):
        wrong()


# A fixed posterior


def test_with_a_fixed_posterior_gradients_pass_through_codes_alone(linear):
    (_, free), (_, fixed) = (_loss(linear, aim) for aim in (objective.ImportanceWeighted(2), StickingTheLanding(2)))
    torch.testing.assert_close(free.log_posterior, fixed.log_posterior)
    loss, bias = fixed.log_posterior.sum(), linear.encoder.log_variance.bias
    (through,) = torch.autograd.grad(loss, fixed.codes, retain_graph=True)
    noise = (fixed.codes - linear.encode(X)[0]).detach()
    expected = (through * noise / 2).sum((0, 1))  # z = mean + exp(log_variance / 2) ε
    torch.testing.assert_close(torch.autograd.grad(loss, bias, retain_graph=True)[0], expected)
    z, q = fixed.codes.detach().requires_grad_(), linear.posterior(X)
    weights = linear.prior().log_prob(z) - objective.gaussian_log_prob(z, q.mean, q.log_variance)
    weights = weights + torch.stack([linear.decoder(each).log_prob(X) for each in z])
    found = torch.autograd.grad(fixed.log_weights.sum(), fixed.codes)
    # A hook on the codes, as of DReG, gets the whole gradient
    torch.testing.assert_close(found, torch.autograd.grad(weights.sum(), z))


class Averaged(nn.Module):
    """A running average of an encoder's weights, moved at each call in training."""

    def __init__(self, network):
        super().__init__()
        ema = get_ema_multi_avg_fn(0.9)
        self.network, self.average = network, AveragedModel(network, multi_avg_fn=ema).requires_grad_(False)

    def forward(self, x):
        if self.training:
            self.average.update_parameters(self.network)
        return (self.network if self.training else self.average)(x)


def test_a_fixed_posterior_moves_a_running_average_once(tiny, x):
    model = small(tiny.image_shape, 2)
    model.encoder = Averaged(model.encoder)
    for _ in range(2):
        model.terms(x, fixed_posterior=True)
    assert model.encoder.average.n_averaged == 2
    model.encoder.network.mean.bias.data += 1
    before = model.encoder.average.module.mean.bias.clone()
    model.terms(x, fixed_posterior=True)
    torch.testing.assert_close(model.encoder.average.module.mean.bias, before + 0.1)


@pytest.mark.parametrize("samples", [0, -1, 2.5, True])
def test_an_objective_that_asks_for_no_whole_number_of_samples_is_refused(samples):
    with pytest.raises(ValueError, match="the objective's samples must be a whole number of at least 1"):
        objective.options(SimpleNamespace(samples=samples))
