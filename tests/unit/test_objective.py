"""The objective's functions, against torch.distributions, closed forms and Monte Carlo."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal
from torch.distributions import kl_divergence as reference_kl

from vaelib import objective


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _posterior(*shape, seed=0, dtype=torch.float64):
    generator = _generator(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(2))


def test_bernoulli_log_prob_is_that_of_torch_distributions_for_binary_pixels():
    logits = 3 * torch.randn(5, 1, 28, 28, generator=_generator())
    x = torch.bernoulli(torch.full_like(logits, 0.4), generator=_generator(1))
    expected = Bernoulli(logits=logits.double()).log_prob(x.double()).sum((1, 2, 3))
    torch.testing.assert_close(objective.bernoulli_log_prob(x, logits).double(), expected, rtol=1e-5, atol=0)


def test_bernoulli_log_prob_is_the_formula_for_grey_pixels():
    logits = 3 * torch.randn(5, 1, 7, 7, generator=_generator(), dtype=torch.float64)
    x = torch.rand(5, 1, 7, 7, generator=_generator(1), dtype=torch.float64)
    p = 1 / (1 + torch.exp(-logits))
    expected = (x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(objective.bernoulli_log_prob(x, logits), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("x", "logit", "per_pixel"), [(1, 100, 0), (0, 100, -100), (1, -100, -100), (0, -100, 0)])
def test_bernoulli_log_prob_is_exact_where_the_decoder_is_sure(x, logit, per_pixel):
    logits = torch.full((2, 1, 4, 4), float(logit), requires_grad=True)
    value = objective.bernoulli_log_prob(torch.full((2, 1, 4, 4), float(x)), logits)
    value.sum().backward()
    torch.testing.assert_close(value, torch.full((2,), 16.0 * per_pixel), rtol=0, atol=1e-30)
    torch.testing.assert_close(logits.grad, torch.full((2, 1, 4, 4), float(x - (logit > 0))), rtol=0, atol=1e-30)


@pytest.mark.parametrize("shape", [(6, 4), (6, 1, 3, 3), (1, 3, 2, 2)])
def test_bernoulli_log_prob_is_one_number_an_image(shape):
    assert (
        objective.bernoulli_log_prob(torch.rand(shape, generator=_generator()), torch.zeros(shape)).shape == shape[:1]
    )


def test_gaussian_log_prob_is_that_of_torch_distributions():
    mean, log_variance = _posterior(6, 3)
    z = torch.randn(6, 3, generator=_generator(2), dtype=torch.float64)
    expected = Normal(mean, (log_variance / 2).exp()).log_prob(z).sum(-1)
    torch.testing.assert_close(objective.gaussian_log_prob(z, mean, log_variance), expected, rtol=1e-12, atol=1e-12)


def test_gaussian_log_prob_broadcasts_one_posterior_over_many_samples():
    mean, log_variance = _posterior(6, 3)
    z = torch.randn(4, 6, 3, generator=_generator(2), dtype=torch.float64)
    value = objective.gaussian_log_prob(z, mean, log_variance)
    assert value.shape == (4, 6)
    torch.testing.assert_close(value[1], objective.gaussian_log_prob(z[1], mean, log_variance))


def test_kl_divergence_is_that_of_torch_distributions():
    mean, log_variance = _posterior(6, 3)
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = reference_kl(Normal(mean, (log_variance / 2).exp()), prior).sum(-1)
    torch.testing.assert_close(objective.kl_divergence(mean, log_variance), expected, rtol=1e-12, atol=1e-12)


def test_kl_divergence_lies_within_four_standard_errors_of_a_monte_carlo_estimate():
    mean, log_variance = _posterior(5, 2)
    noise = torch.randn(100_000, 5, 2, generator=_generator(3), dtype=torch.float64)
    standard_deviation = (log_variance / 2).exp()
    z = mean + standard_deviation * noise
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    log_ratio = (Normal(mean, standard_deviation).log_prob(z) - prior.log_prob(z)).sum(-1)
    error = log_ratio.std(0) / math.sqrt(len(z))
    assert ((log_ratio.mean(0) - objective.kl_divergence(mean, log_variance)).abs() < 4 * error).all()


def test_kl_divergence_is_zero_at_the_prior_and_positive_elsewhere():
    assert torch.equal(objective.kl_divergence(torch.zeros(4, 3), torch.zeros(4, 3)), torch.zeros(4))
    assert (objective.kl_divergence(*_posterior(50, 3)) > 0).all()


def test_kl_divergence_has_the_gradient_of_finite_differences():
    inputs = tuple(tensor.requires_grad_() for tensor in _posterior(4, 3))
    assert torch.autograd.gradcheck(objective.kl_divergence, inputs)


def test_reparameterize_has_the_mean_and_spread_of_the_posterior():
    mean, log_variance = torch.tensor([-3.0, 0.0, 2.0]), torch.tensor([-4.0, 0.0, 1.5])
    count = 100_000
    z = objective.reparameterize(mean.expand(count, 3), log_variance.expand(count, 3), _generator())
    standard_deviation = (log_variance / 2).exp()
    assert ((z.mean(0) - mean).abs() < 4 * standard_deviation / math.sqrt(count)).all()
    assert ((z.std(0) / standard_deviation - 1).abs() < 4 / math.sqrt(2 * count)).all()
    assert (torch.corrcoef(z.T).triu(1).abs() < 4 / math.sqrt(count)).all()


def test_reparameterize_lets_gradients_flow_to_mean_and_log_variance():
    mean, log_variance = (tensor.requires_grad_() for tensor in _posterior(4, 3))
    z = objective.reparameterize(mean, log_variance, _generator(5))
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones_like(mean))
    torch.testing.assert_close(log_variance.grad, (z - mean).detach() / 2)


def test_reparameterize_draws_from_its_generator_alone():
    mean, log_variance = _posterior(4, 3)
    before = torch.get_rng_state()
    first, again, other = (objective.reparameterize(mean, log_variance, _generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_elbo_is_the_two_functions():
    mean, log_variance = _posterior(4, 3, dtype=torch.float32)
    x, logits = torch.rand(4, 1, 5, 5, generator=_generator()), torch.randn(4, 1, 5, 5, generator=_generator(1))
    reconstruction, kl = objective.elbo(x, logits, mean, log_variance)
    assert torch.equal(reconstruction, objective.bernoulli_log_prob(x, logits))
    assert torch.equal(kl, objective.kl_divergence(mean, log_variance))


def test_importance_weighted_bound_of_one_sample_is_its_log_weight():
    log_weights = torch.randn(1, 6, generator=_generator())
    torch.testing.assert_close(objective.importance_weighted_bound(log_weights), log_weights[0])


def test_importance_weighted_bound_is_the_formula():
    log_weights = torch.randn(7, 6, generator=_generator(), dtype=torch.float64)
    torch.testing.assert_close(objective.importance_weighted_bound(log_weights), log_weights.exp().mean(0).log())


@pytest.mark.parametrize("constant", [-1e4, -1.5, 0.0, 1e4])
def test_importance_weighted_bound_of_constant_weights_is_the_constant(constant):
    bound = objective.importance_weighted_bound(torch.full((50, 3), constant, dtype=torch.float64))
    torch.testing.assert_close(bound, torch.full((3,), constant, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_importance_weighted_bound_moves_with_the_weights_however_small_they_are():
    log_weights = torch.randn(20, 6, generator=_generator(), dtype=torch.float64)
    shifted = objective.importance_weighted_bound(log_weights - 1e4)
    torch.testing.assert_close(shifted, objective.importance_weighted_bound(log_weights) - 1e4, rtol=0, atol=1e-9)


def test_importance_weighted_bound_is_at_least_the_mean_of_the_log_weights():
    log_weights = 5 * torch.randn(20, 50, generator=_generator())
    assert (objective.importance_weighted_bound(log_weights) > log_weights.mean(0)).all()


def test_importance_weighted_bound_with_the_exact_posterior_is_the_log_likelihood():
    slope, noise_variance = 1.7, 0.3  # z ~ N(0, 1), x | z ~ N(slope z, noise_variance)
    x = torch.randn(8, 1, generator=_generator(), dtype=torch.float64)
    variance = 1 / (1 + slope**2 / noise_variance)
    mean, log_variance = variance * slope / noise_variance * x, torch.full_like(x, math.log(variance))
    many = mean.expand(10, 8, 1)
    z = objective.reparameterize(many, log_variance.expand_as(many), _generator(1))
    zero = torch.zeros_like(z)
    log_weights = (
        objective.gaussian_log_prob(x, slope * z, torch.full_like(z, math.log(noise_variance)))
        + objective.gaussian_log_prob(z, zero, zero)
        - objective.gaussian_log_prob(z, mean, log_variance)
    )
    total_variance = torch.full_like(x, slope**2 + noise_variance)
    expected = Normal(torch.zeros_like(x), total_variance.sqrt()).log_prob(x)[:, 0]
    torch.testing.assert_close(objective.importance_weighted_bound(log_weights), expected, rtol=1e-10, atol=1e-10)
