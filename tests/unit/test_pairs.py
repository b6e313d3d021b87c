"""Every pair of model, objective, precision, device and compilation: all of them train, resume and are scored right."""

import math
import os
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import combinations, product

import pytest
import torch
import zuko
from pretended import PretendedGPU
from test_core import Geco, ScoreFunction, StickingTheLanding, _conditional, _tied
from torch import nn
from torch.distributions import Independent, StudentT

from vaelib import TrainConfig, decoders, encoders, evaluation, models, objective, priors, runs, training
from vaelib.binarization import binarized
from vaelib.data import Dataset, Split, to_float
from vaelib.seeding import seeded

mlp = models.mlp


class Student(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, z):
        return Independent(StudentT(3.0, self.mean(z), 0.5), 3)


def vamp(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.prior = priors.Vamp(model.encoder, image_shape, components=5)
    return model


def normalised(image_shape, latent_dim):
    model = mlp(image_shape, latent_dim)
    model.encoder.features.append(nn.BatchNorm1d(512))
    model.decoder.logits.insert(1, nn.BatchNorm1d(512))
    return model


MODELS = {
    "paper": models.build,
    "batch norm": normalised,
    "binarized": binarized,
    "conditional": _conditional,
    "tied weights": _tied,
    "Student-t": partial(mlp, decoder=Student, prior=priors.Mixture),
    "continuous Bernoulli": partial(mlp, decoder=decoders.ContinuousBernoulli),
    "Gaussian": partial(mlp, decoder=decoders.Gaussian),
    "optimal Gaussian": partial(mlp, decoder=decoders.OptimalGaussian),
    "logistic mixture": partial(mlp, decoder=decoders.DiscretizedLogisticMixture),
    "VampPrior": vamp,
    "flows": partial(mlp, encoder=encoders.InverseAutoregressive, prior=zuko.flows.MAF),
}
OBJECTIVES = {
    "paper": objective.negative_elbo,
    "annealing": objective.BetaELBO(2.0, warm_up=0.5),
    "free bits": objective.FreeBits(0.1),
    "mean of samples": objective.MeanELBO(2),
    "importance-weighted": objective.ImportanceWeighted(3),
    "sticking the landing": StickingTheLanding(2),
    "score function": ScoreFunction(),
    "constraint": Geco,
}
FACTORS = {
    "model": MODELS,
    "aim": OBJECTIVES,
    "compiled": ("", "compiled"),
    "precision": ("float32", "bfloat16", "float64"),
    "device": ("cpu", "cuda"),
}
CLOSED = {"paper", "batch norm", "binarized", "conditional", "tied weights", "continuous Bernoulli", "Gaussian"}
CLOSED |= {"optimal Gaussian", "logistic mixture"}


def _possible(case):
    """Dynamo does not trace the pretended GPU, and takes long for flows; and that GPU's weights cannot be shared."""
    if case["device"] == "cuda" and (case["compiled"] or case["model"] == "tied weights"):
        return False
    return not (case["compiled"] and case["model"] == "flows")


def _covering():
    """Cases in which every possible pair of two factors' levels occurs; few of them are compiled, which takes long."""

    def pairs(case):
        return {frozenset(pair) for pair in combinations(case.items(), 2)}

    every = [dict(zip(FACTORS, levels, strict=True)) for levels in product(*FACTORS.values())]
    every = [case for case in every if _possible(case)]
    missing, chosen = set().union(*map(pairs, every)), []
    while missing:
        best = max(every, key=lambda case: len(pairs(case) & missing) - 0.5 * bool(case["compiled"]))
        missing -= pairs(best)
        chosen.append(best)
    return chosen


CASES = _covering()


@pytest.fixture(scope="module")
def few(tiny):
    return Dataset(
        "few", *(Split(split.images[:30], split.labels[:30]) for split in (tiny.train, tiny.test)), tiny.names
    )


def _changed(image_shape, latent_dim, build, precision):
    model = build(image_shape, latent_dim)
    return model.double() if precision == "float64" else model


def _compiled(image_shape, latent_dim, build, backend="eager"):
    return torch.compile(build(image_shape, latent_dim), backend=backend)


def _exact(model, images, labels):
    """log p(x) by the trapezoidal rule over one latent dimension."""
    grid = torch.linspace(-15, 15, 1201, dtype=next(model.parameters()).dtype).view(-1, 1)
    prepared, found = model.prepare(to_float(images)), []
    for x, y in zip(prepared, labels, strict=True):
        given = model.labels(y.expand(len(grid)), len(grid))
        joint = model.decoder(grid, *given).log_prob(x.expand(len(grid), *x.shape)) + model.prior(*given).log_prob(grid)
        found.append(joint.double().logsumexp(0) + math.log(30 / 1200))
    return torch.stack(found).mean().item()


@pytest.mark.filterwarnings("ignore:.*but CUDA is not available:UserWarning")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(filter(None, case.values())))
def test_every_pair_trains_resumes_and_is_scored_right(case, few, tmp_path, monkeypatch):
    torch._dynamo.reset()
    build = partial(_changed, build=MODELS[case["model"]], precision=case["precision"])
    builder = partial(_compiled, build=build) if case["compiled"] else build
    aim = OBJECTIVES[case["aim"]]
    config = TrainConfig(1, 2, batch_size=15)
    if case["precision"] == "bfloat16" or case["device"] == "cuda":
        config = replace(config, precision="bfloat16" if case["precision"] == "bfloat16" else "float32")
    gpu = PretendedGPU("cuda", monkeypatch) if case["device"] == "cuda" else nullcontext()
    device = "cpu" if case["device"] == "cpu" else gpu.device
    options = {"builder": builder, "objective": aim}

    def train(root, **more):
        with gpu:
            return runs.train(few, config, root, device, **options, **more)

    if case["model"] not in CLOSED and case["aim"] in ("free bits", "mean of samples"):
        with pytest.raises(ValueError, match="in closed form"):
            train(tmp_path)
        assert not list(tmp_path.iterdir())
        return
    monkeypatch.setattr(evaluation, "evaluate", partial(evaluation.evaluate, samples=10))
    run = train(tmp_path / "whole")
    assert all(map(math.isfinite, run.evaluation.values()))
    _check_terms(build, aim, case["precision"], few)
    model = run.model()
    estimate, _ = evaluation.log_prob(model, few.test.images[:10], 1000, labels=few.test.labels[:10])
    with torch.no_grad():
        exact = _exact(model, few.test.images[:10], few.test.labels[:10])
    assert exact - 0.5 < estimate.mean().item() < exact + 0.05
    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", on_epoch=_stop, checkpoint_seconds=0)
    weights = train(tmp_path / "parts").model().state_dict()
    assert all(torch.equal(weights[name], each) for name, each in model.state_dict().items())


def _stop(model, line):
    raise KeyboardInterrupt


def _check_terms(build, aim, precision, few):
    """Terms are finite and in full precision, and each weight gets a gradient."""
    with seeded(0):
        model = build(few.image_shape, 1)
    aim = training.make(aim)
    expected = torch.float64 if precision == "float64" else torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        terms = model(to_float(few.train.images), labels=few.train.labels, **objective.options(aim))
    for each in terms:
        assert each is None or (each.dtype == expected and each.isfinite().all())
    aim(terms, 0.7).mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


def test_the_cases_have_every_pair():
    assert len(CASES) < 1.2 * len(MODELS) * len(OBJECTIVES)
    for one, two in combinations(FACTORS, 2):
        for pair in product(FACTORS[one], FACTORS[two]):
            possible = _possible(dict.fromkeys(FACTORS, "") | dict(zip((one, two), pair, strict=True)))
            assert possible == any((case[one], case[two]) == pair for case in CASES), pair


@pytest.mark.skipif("VAELIB_INDUCTOR" not in os.environ, reason="it compiles for a minute: set VAELIB_INDUCTOR=1")
def test_a_model_compiled_by_inductor_trains_as_one_that_is_not(few, tmp_path):
    config = TrainConfig(2, 2, batch_size=15)
    compiled = partial(_compiled, build=models.build, backend="inductor")
    run, plain = (runs.train(few, config, tmp_path, "cpu", builder=each) for each in (compiled, models.build))
    assert run.evaluation["test_elbo"] == pytest.approx(plain.evaluation["test_elbo"], rel=0.02)
