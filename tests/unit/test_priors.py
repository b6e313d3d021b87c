"""Priors that are fitted to codes of a known density."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from book.experiments import priors
from vaelib.distributions import DiagonalNormal
from vaelib.seeding import seeded


@pytest.mark.parametrize("name", priors.FITTED)
def test_a_fitted_prior_has_nearly_the_density_of_the_codes(name):
    options = {"steps": 400} if name in ("flow", "second VAE") else {}
    known = MultivariateNormal(torch.tensor([1.0, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 0.5]]))
    with seeded(0):
        q = DiagonalNormal(known.sample((5000,)), torch.full((5000, 2), -9.0))
        codes = priors.codes_of(q, 1000)
        lost = known.log_prob(codes) - priors.FITTED[name](q, **options).log_prob(codes)
    assert -0.05 < lost.mean() < 0.25 and priors.nearest(codes, q.mean).max() < 0.1
