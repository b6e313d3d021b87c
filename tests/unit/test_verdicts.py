"""Verdicts of fresh seeds: what is resampled, and what is computed from each resample."""

import json
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from book.experiments import likelihoods, verdicts
from book.machinery import claims
from vaelib import features, runs

RECORDS = Path(__file__).parents[2] / "book" / "records"
VERDICTS = sorted((RECORDS / "verdicts").glob("*.json"))
X, Y = (torch.randn(50, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))


def test_a_resample_has_as_many_items_and_the_first_has_each_once():
    counts = verdicts.counts(verdicts.IMAGES, 50)
    assert (counts[0] == 1).all() and (counts.sum(1) == 50).all()


def test_means_of_resamples_have_the_standard_error_of_the_mean():
    means = verdicts.mean(X[:, 0], verdicts.IMAGES)
    assert means[0].item() == pytest.approx(X[:, 0].mean().item(), abs=1e-6)
    assert means[1:].std().item() == pytest.approx(X[:, 0].std().item() / 50**0.5, rel=0.1)


def test_a_measure_of_a_resample_is_that_of_the_images_that_were_drawn():
    drawn = torch.arange(50).repeat_interleave(verdicts.counts(verdicts.IMAGES, 50)[7].long())
    present, images = X[:, 1] > 0, X.reshape(50, 1, 2, 4)
    areas = verdicts.area(X[:, 0], present)
    assert areas[0].item() == pytest.approx(roc_auc_score(present, X[:, 0]), abs=1e-6)
    assert areas[7].item() == pytest.approx(roc_auc_score(present[drawn], X[drawn, 0]), abs=1e-6)
    variances = verdicts.variance(images, verdicts.IMAGES)
    assert variances[7].item() == pytest.approx(images[drawn].var(0, correction=0).sum().item(), rel=1e-5)
    kernels = verdicts.kernel(X, Y, (verdicts.IMAGES, verdicts.IMAGES))
    apart = verdicts.counts(verdicts.IMAGES, 50)[7].outer(verdicts.counts(verdicts.IMAGES, 50)[7]).fill_diagonal_(0)
    assert kernels[7].item() == pytest.approx(
        ((X @ Y.T / 8 + 1) ** 3 * apart).sum().item() / apart.sum().item(), rel=1e-4
    )


def test_the_kernel_distance_is_that_of_the_package():
    of = {
        kind: verdicts.kernel(*pair, kinds)[0]
        for kind, pair, kinds in (("real", (X, X), (0, 0)), ("samples", (Y, Y), (1, 1)), ("between", (X, Y), (0, 1)))
    }
    distance = of["real"] + of["samples"] - 2 * of["between"]
    assert distance.item() == pytest.approx(features.kernel_distance(X, Y), abs=1e-4)


def test_the_gain_that_comes_late_is_told_apart_from_the_first():
    assert verdicts.late([torch.tensor([value]) for value in (0.0, 6.0, 10.0, 8.0)]).item() == pytest.approx(0.4)


def test_rank_correlations_of_resamples_are_spearmans():
    found = verdicts.rank_correlation(X[:, :5], Y[:, :5])
    expected = [spearmanr(x, y).statistic for x, y in zip(X[:, :5], Y[:, :5], strict=True)]
    assert found.tolist() == pytest.approx(expected)


def test_dequantization_is_undone_by_rounding_down_and_a_uniform_density_needs_eight_bits():
    levels = torch.arange(256.0).view(1, 1, 16, 16)
    spread = likelihoods.Dequantized.preprocess(None, levels / 255)
    assert torch.equal((256 * spread).floor().clamp(max=255), levels)
    assert likelihoods.bits("Gaussian, σ = 1", torch.zeros(3), 784).tolist() == pytest.approx([8.0] * 3)
    assert likelihoods.bits("logistic mixture", torch.tensor(-784 * math.log(256)), 784).item() == pytest.approx(8)


def test_an_edge_is_sharper_than_a_ramp():
    ramp = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    assert likelihoods.laplacian(ramp).std() < 1e-6 < likelihoods.laplacian(ramp.round()).std()


@pytest.mark.parametrize("path", VERDICTS, ids=lambda path: path.stem)
def test_a_published_verdict_rests_on_the_rules_and_on_fresh_seeds(path):
    judged, rules = claims.published(path.stem), claims.next_rules()
    assert judged.values.keys() == judged.errors.keys() == rules["claims"][path.stem]["conditions"].keys()
    for name, fingerprint in judged.runs.items():
        run = runs.load(RECORDS / "fresh" / name, builder=None)
        assert run.config.seed >= 10 and run.record["tags"]["rules"] == claims.digest(rules)
        assert claims.fingerprint(run) == fingerprint


def test_a_verdict_of_other_rules_is_refused(tmp_path):
    (tmp_path / "verdicts").mkdir()
    (tmp_path / "verdicts" / "C7.json").write_text(json.dumps({"rules": "0" * 16}))
    with pytest.raises(ValueError, match="measured under other rules"):
        claims.published("C7", tmp_path)
