"""Verdicts of fresh seeds: what is resampled, and what is computed from each resample."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch.distributions import Normal

from book.experiments import gradients, likelihoods, verdicts
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


def test_the_median_of_a_resample_is_that_of_the_items_that_were_drawn():
    drawn = torch.arange(50).repeat_interleave(verdicts.counts(verdicts.IMAGES, 50)[7].long())
    found = verdicts.median(X[:, 0], verdicts.IMAGES)
    assert found[0] == X[:, 0].median() and found[7] == X[drawn, 0].median()


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
    likelihood = SimpleNamespace(mean=spread, sample=lambda: spread)
    model = SimpleNamespace(prior=lambda: Normal(torch.zeros(1), 1.0), decoder=lambda codes: likelihood)
    assert torch.equal(likelihoods.sample(model, 1)[1], levels / 255)
    assert likelihoods.bits("Gaussian, σ = 1", torch.zeros(3), 784).tolist() == pytest.approx([8.0] * 3)
    assert likelihoods.bits("logistic mixture", torch.tensor(-784 * math.log(256)), 784).item() == pytest.approx(8)


def test_an_edge_is_sharper_than_a_ramp():
    ramp = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    assert likelihoods.laplacian(ramp).std() < 1e-6 < likelihoods.laplacian(ramp.round()).std()


def test_light_from_the_right_and_from_below_is_positive():
    image = torch.zeros(1, 3, 64, 48)
    image[:, :, 32:, 24:] = 1
    found = verdicts.properties(image)
    assert found["right half less left half"] == found["lower half less upper half"] == 0.5


def test_a_classifier_is_sure_above_nine_tenths(monkeypatch):
    monkeypatch.setattr(verdicts, "logits", lambda name, samples: samples.log())
    assert verdicts.sure(torch.tensor([[[0.95, 0.05]], [[0.3, 0.7]], [[0.11, 0.89]], [[0.0, 1.0]]]))[0] == 0.5


@pytest.mark.parametrize(("claim", "seeds"), [("C1", [10, 11, 12]), ("C4", [10, 11, 12, 13, 14]), ("B2", [10, 11, 12])])
def test_a_claim_is_measured_on_its_seeds_and_its_error_is_that_of_their_mean(monkeypatch, tmp_path, claim, seeds):
    resampled = torch.randn(5, 1001, generator=torch.Generator().manual_seed(0)) + 100 * torch.arange(5)[:, None]
    resampled[:, 0] = 1e6 + torch.arange(5)
    measured = []

    def measure(trained):
        measured.append(trained.seed)
        return {"gain": resampled[len(measured) - 1]}

    monkeypatch.setattr(verdicts, "RECORDS", tmp_path)
    monkeypatch.setitem(verdicts.MEASURES, claim, measure)
    verdicts.measure(claim, 10)  # is kept, and not measured again
    found = verdicts.decide(claim)
    assert measured == seeds and found.values["gain"] == [1e6 + number for number in range(len(seeds))]
    assert found.errors["gain"] == pytest.approx(1 / len(seeds) ** 0.5, rel=0.1)


def test_the_noise_of_codes_is_told_apart_from_that_of_images(monkeypatch):
    digits = torch.randint(2, (1000, 1, 1, 1), generator=torch.Generator().manual_seed(0), dtype=torch.uint8) * 255
    monkeypatch.setattr(gradients, "flat_gradient", lambda model, x: (128 / 0.25) ** 0.5 * x.mean() + torch.randn(1))
    by_codes, whole = gradients.codes_and_all(torch.nn.Identity(), digits, 0)
    assert by_codes.mean().item() == pytest.approx(1, rel=0.3) and whole.mean().item() == pytest.approx(2, rel=0.3)


def test_variances_of_gradients_are_those_of_a_parabola(monkeypatch):
    images = torch.zeros(gradients.IMAGES_EACH, 1, 2, 2)
    normal = torch.zeros(2, gradients.IMAGES_EACH, 1)
    monkeypatch.setattr(gradients.evaluation, "encode", lambda model, images: normal)
    model = SimpleNamespace(decoder=lambda z: SimpleNamespace(log_prob=lambda x: z.square().sum(1) / 2))
    found = gradients.ratios(model, images, torch.ones(1, gradients.DRAWS_EACH), 0)
    assert found[0].tolist() == pytest.approx([15 / 4, 37 / 4], rel=0.2)
    assert 0.5 < gradients.largest_z(0, 10_000) < 5


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
