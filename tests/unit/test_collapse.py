"""The ways to train that the page on unused dimensions compares."""

import pytest
import torch
from conftest import BOOK

from book.experiments import collapse
from vaelib import data, evaluation, runs
from vaelib.seeding import seeded

RECORD = BOOK / "records" / "paper" / "mnist-k2-e10-s0"
DIGITS = data.load("digits")
IMAGES = DIGITS.test.images[:40]


def build(way):
    with seeded(0):
        return way.functions(DIGITS)["builder"](DIGITS.image_shape, way.latent_dim).eval()


def test_all_ways_have_as_many_weights():
    counts = [sum(each.numel() for each in build(way).parameters()) for way in collapse.WAYS.values()]
    assert max(counts) < 1.001 * min(counts)


def test_a_chain_has_the_density_of_both_levels_in_posterior_and_prior():
    model = build(collapse.WAYS["two levels"])
    x = data.to_float(IMAGES[:3])
    q, p = model.posterior(x), model.prior()
    z = q.rsample()
    low, top = z.split([50, 25], 1)
    of_top = q.then(low)
    assert torch.allclose(q.log_prob(z), q.first.log_prob(low) + of_top.log_prob(top))
    of_low = p.then(top)
    assert torch.allclose(p.log_prob(z), p.first.log_prob(top) + of_low.log_prob(low))
    assert torch.equal(model.decode(z), model.decode(torch.cat([low, top + 1], 1)))  # the decoder sees the first level


def test_the_sampled_kl_is_that_of_the_drawn_code():
    model, way = build(collapse.WAYS["plain"]), collapse.WAYS["sampled KL"]
    terms = model.terms(data.to_float(IMAGES))
    sampled = (terms.log_posterior - terms.log_prior)[0] - terms.reconstruction
    assert torch.allclose(way.objective(terms, 0.5), sampled)


def test_the_score_counts_directions_and_not_axes(monkeypatch):
    model = build(collapse.WAYS["plain"])
    with torch.no_grad():  # all means are multiples of one vector
        model.encoder.mean.weight[:] = model.encoder.mean.weight[0] * torch.ones(50, 1)
    run = runs.load(RECORD, builder=None)
    monkeypatch.setattr(runs.Run, "model", lambda self: model)
    log_prob, scored = collapse.score(run, IMAGES, 10)
    found = scored.evaluation
    means, _ = evaluation.encode(model, IMAGES)
    assert found["variances"] == pytest.approx(means.var(0).tolist(), rel=1e-4)
    assert found["active_directions"] == 1 < evaluation.active_units(means)
    assert found["log_prob"] == pytest.approx(log_prob.mean().item()) and len(found["kl_by_dimension"]) == 50
    assert found["log_prob_of_200"] == run.evaluation["log_prob"]
