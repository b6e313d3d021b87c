"""Every pair of model, objective, precision, device and compilation: all of them train, resume and are scored right."""

import math
import os
from contextlib import nullcontext
from functools import partial
from itertools import combinations, product

import pytest
import torch
from conftest import MODELS, NOT_CLOSED, OBJECTIVES, compiled, exact_log_prob, interrupt, same_runs
from pretended import PretendedGPU

from vaelib import TrainConfig, evaluation, models, runs, training
from vaelib.data import Dataset, Split, to_float
from vaelib.objective import options
from vaelib.seeding import seeded

PRECISIONS = ("float32", "bfloat16", "float64")


def _cases():
    """Every model with every objective: each next model, and each next objective, is tested at the next place.

    Few are on pretended GPUs or compiled, which take long, and every second one is resumed.
    """
    for (m, model), (a, aim) in product(enumerate(MODELS), enumerate(OBJECTIVES)):
        places = [("cpu", each) for each in PRECISIONS]
        if model != "tied weights":  # a pretended GPU's weights cannot be shared, and Apple's GPUs have no float64
            places += [("cuda", PRECISIONS[m % 3]), ("mps", "float32"), *places[:2]]
        yield model, aim, *places[(m + a) % len(places)], "", (m + a) % 2 == 0
        if model != "flows" and m % len(OBJECTIVES) == a:  # flows take minutes, and Dynamo traces no pretended GPU
            yield model, aim, "cpu", PRECISIONS[m % 3], "compiled", m % 2 == 0


CASES = list(_cases())


@pytest.fixture(scope="module")
def few(tiny):
    splits = (Split(split.images[:30], split.labels[:30]) for split in (tiny.train, tiny.test))
    return Dataset("few", *splits, tiny.names)


def _changed(image_shape, latent_dim, build, precision):
    model = build(image_shape, latent_dim)
    return model.double() if precision == "float64" else model


@pytest.mark.filterwarnings("ignore:.*but CUDA is not available:UserWarning")
@pytest.mark.skipif(torch.cuda.is_available() or torch.mps.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("model", "aim", "device", "precision", "how", "resumed"), CASES)
def test_every_pair_trains_resumes_and_is_scored_right(
    model, aim, device, precision, how, resumed, few, tmp_path, monkeypatch
):
    build, objective = partial(_changed, build=MODELS[model], precision=precision), OBJECTIVES[aim]
    builder = partial(compiled, builder=build) if how else build
    config = TrainConfig(1, 2, batch_size=15, precision="bfloat16" if precision == "bfloat16" else "float32")
    gpu = nullcontext() if device == "cpu" else PretendedGPU(device, monkeypatch)

    def train(root, **options):
        torch._dynamo.reset()
        with gpu:
            place = torch.device("cpu") if device == "cpu" else gpu.device
            return runs.train(few, config, tmp_path / root, place, builder, objective, **options)

    if model in NOT_CLOSED and aim == "free bits":
        with pytest.raises(ValueError, match="free bits need each dimension's KL"):
            train("refused")
        assert not list(tmp_path.rglob("*.json*"))
        return
    monkeypatch.setattr(evaluation, "evaluate", partial(evaluation.evaluate, samples=10))
    run = train("whole")
    assert all(map(math.isfinite, run.evaluation.values()))
    _check_terms(build, objective, precision, few)
    images, labels = few.test.images[:5], few.test.labels[:5]
    estimate, error = evaluation.log_prob(run.model(), images, 100, labels=labels)
    off = estimate - exact_log_prob(run.model(), to_float(images), labels)
    slack = 3 if model == "flows" else 0.01  # few samples of a flow that has hardly learned miss where its mass is
    assert (off < 5 * error + 0.01).all() and (off > -5 * error - slack).all()
    if not resumed:
        return
    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        interrupt(patch, training._State, "take_step", 4)  # in the second epoch
        train("parts", checkpoint_seconds=0)
    assert same_runs(train("parts"), run)


def _check_terms(build, aim, precision, few):
    """Terms are finite and in full precision, and each weight gets a gradient."""
    with seeded(0):
        model, aim = build(few.image_shape, 1), training.make(aim)
    expected = torch.float64 if precision == "float64" else torch.float32
    with seeded(0), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        terms = model(to_float(few.train.images), labels=few.train.labels, **options(aim))
    for each in terms:
        assert each is None or (each.dtype == expected and each.isfinite().all())
    aim(terms, 0.7).mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


def test_the_cases_have_every_pair_but_the_impossible():
    missing = set()
    for one, two in combinations(zip(*CASES, strict=True), 2):
        missing |= set(product(one, two)) - set(zip(one, two, strict=True))
    impossible = {("tied weights", "cuda"), ("tied weights", "mps"), ("flows", "compiled")}
    assert missing == impossible | {("mps", "bfloat16"), ("mps", "float64"), ("cuda", "compiled"), ("mps", "compiled")}


@pytest.mark.skipif("VAELIB_INDUCTOR" not in os.environ, reason="it compiles for a minute: set VAELIB_INDUCTOR=1")
def test_a_model_compiled_by_inductor_trains_as_one_that_is_not(few, tmp_path):
    config = TrainConfig(2, 2, batch_size=15)
    inductor = partial(compiled, builder=models.build, backend="inductor")
    run, plain = (runs.train(few, config, tmp_path, "cpu", builder=each) for each in (inductor, models.build))
    assert run.evaluation["test_elbo"] == pytest.approx(plain.evaluation["test_elbo"], rel=0.02)
