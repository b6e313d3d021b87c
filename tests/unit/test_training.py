"""The settings, and the loop: every step is the one that it should be, and it stops and resumes at any moment."""

import copy
import hashlib
import io
import json
import math
import os
import random
import re
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import scipy.stats
import torch
from conftest import Geco, NormalPixels, compiled, flipped, same_weights, small, stop_after
from pretended import PretendedGPU
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, MultiStepLR, OneCycleLR
from torch.utils._pytree import tree_leaves, tree_map_only

from vaelib import TrainConfig, data, distributions, evaluation, models, objective, runs, storage, training
from vaelib.data import Dataset, Split, to_float
from vaelib.models import VAE
from vaelib.seeding import seeded

SETTINGS = TrainConfig(latent_dim=2, epochs=3, batch_size=32)
STEPS = 7  # an epoch, for 200 images


@pytest.fixture
def fit(model, tiny, tmp_path):
    """Train a copy of the small model, in a folder of that name; returns the model and its history."""

    def fit(folder="a", config=SETTINGS, data=tiny, model=model, **options):
        trained = copy.deepcopy(model)
        return trained, training.fit(trained, data, config, tmp_path / folder, **options)

    return fit


@pytest.fixture
def checkpoint(fit, tmp_path):
    """The path of a sound checkpoint, which `fit` goes on from by default."""
    fit(checkpoint_seconds=0)
    return tmp_path / "a" / "checkpoint"


# Settings


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (
            "latent_dim epochs batch_size patience",
            [0, -1, 2.5, 2.0, "three", True],
            "a whole number of at least 1 and below 2**31",
        ),
        ("seed", [-1, 2.5, "three", True, None], "a whole number of at least 0 and below 2**31"),
        ("latent_dim batch_size", [2**31, 10**20], "a whole number of at least 1 and below 2**31"),
        ("seed", [2**31, 10**20], "a whole number of at least 0 and below 2**31"),
        ("seed", [2**30], "below 2**30"),  # an odd and an even seed are derived from it
        ("learning_rate max_grad_norm", [0, -1e-3, math.nan, math.inf, "fast", True], "a positive number"),
        ("precision", ["float16", 16, torch.bfloat16, ""], "'float32', 'bfloat16' or None"),
    ],
)
def test_settings_refuse_what_is_out_of_range(names, values, message):
    for name, value in product(names.split(), values):
        with pytest.raises(ValueError, match=re.escape(f"{name} must be {message}, not {value!r}")):
            TrainConfig(**{"latent_dim": 2, name: value})


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint32])
def test_settings_take_the_least_values_and_numpys_numbers(kind):
    settings = TrainConfig(latent_dim=kind(1), epochs=kind(1), seed=kind(0), learning_rate=np.float32(0.5))
    assert settings == TrainConfig(latent_dim=1, epochs=1, seed=0, learning_rate=0.5)
    assert type(settings.latent_dim) is int and type(settings.learning_rate) is float


# Steps


def test_a_run_is_bit_for_bit_a_loop_of_plain_torch(tiny, tmp_path):
    """Which sees every image once in each epoch, in an order and with noise of its seed."""
    config, before = TrainConfig(2, 2, seed=3, batch_size=32, precision="float32"), torch.get_rng_state()
    run = runs.train(tiny, config, tmp_path, "cpu")
    images, shuffle = tiny.train.images.float() / 255, torch.Generator().manual_seed(6)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        w = dict(models.mlp(tiny.image_shape, 2).named_parameters())
        optimizer = torch.optim.Adam(w.values(), fused=True)
        torch.manual_seed(7)

        def linear(x, name):
            return nn.functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

        for _ in range(2):
            for rows in torch.randperm(200, generator=shuffle).split(32):
                x = images[rows].flatten(1)
                hidden = linear(linear(x, "encoder.features.1").relu(), "encoder.features.3").relu()
                mean, log_variance = linear(hidden, "encoder.mean"), linear(hidden, "encoder.log_variance")
                z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
                hidden = linear(linear(z, "decoder.logits.0").relu(), "decoder.logits.2").relu()
                logits = linear(hidden, "decoder.logits.4")
                bits = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
                kl = (-0.5 * (1 + log_variance - mean**2 - torch.exp(log_variance))).sum(1)
                optimizer.zero_grad()
                (kl + bits).mean().backward()
                optimizer.step()
    assert all(torch.equal(w[name], each) for name, each in run.model().named_parameters())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(7, 3, [3, 4]), (8, 3, [3, 3, 2]), (1, 3, [1]), (7, 1, [1] * 7), (3, 100, [3])]
)
def test_a_single_image_that_is_left_joins_the_batch_before_it(count, size, expected):
    batches = training.batches(torch.arange(count), size)
    assert [len(batch) for batch in batches] == expected and torch.equal(torch.cat(batches), torch.arange(count))


@pytest.mark.parametrize(
    "convert",
    [
        lambda values: (values * 65535).round().to(torch.int32).to(torch.uint16),
        lambda values: values,
        lambda values: values.double(),
        lambda values: values.flatten(1),
    ],
    ids=["uint16", "float32", "float64", "rows"],
)
def test_other_numbers_than_bytes_are_trained_on(convert, tiny, tmp_path):
    other = Dataset("other", *(Split(convert(to_float(each.images))) for each in (tiny.train, tiny.test)))
    run, expected = (runs.train(each, SETTINGS, tmp_path, "cpu", builder=small) for each in (other, tiny))
    assert run.evaluation == pytest.approx(expected.evaluation, rel=1e-4)


def test_the_gradient_is_clipped_to_its_norm(fit, model):
    def norm_of_step(folder, **options):
        config = TrainConfig(2, 1, batch_size=200, learning_rate=1, **options)
        moved, _ = fit(folder, config, optimizer=torch.optim.SGD)
        flat = (torch.nn.utils.parameters_to_vector(each.parameters()) for each in (moved, model))
        return torch.dist(*flat).item()

    assert norm_of_step("clipped", max_grad_norm=0.01) == pytest.approx(0.01, rel=1e-3)
    assert norm_of_step("free") > 0.1


def test_another_optimizer_is_another_run():
    decayed = partial(torch.optim.AdamW, weight_decay=0.5)
    assert "AdamW_weight_decay=0.5" in runs.name("tiny", SETTINGS, optimizer=decayed)


def test_a_compiled_model_trains_compiled(tiny, tmp_path):
    steps = []

    def backend(graph, inputs):
        return lambda *arguments: steps.append(1) or graph(*arguments)

    torch._dynamo.reset()
    training.fit(compiled(tiny.image_shape, 2, backend=backend), tiny, TrainConfig(2, 2, batch_size=50), tmp_path)
    assert len(steps) >= 8


# Precision


def test_bfloat16_trains_otherwise_than_float32_to_about_the_same_elbo(fit):
    coarse, full, unasked = (
        fit(str(each), replace(SETTINGS, precision=each))[1][-1]["test_elbo"] for each in ("bfloat16", "float32", None)
    )
    assert coarse == pytest.approx(full, rel=1e-3) and coarse != full == unasked


def test_bfloat16_is_the_default_only_where_a_gpu_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not training.is_mixed(SETTINGS, torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert training.is_mixed(SETTINGS, torch.device("cuda"))
    assert not training.is_mixed(SETTINGS, torch.device("cpu"))
    assert training.is_mixed(replace(SETTINGS, precision="bfloat16"), torch.device("cpu"))
    assert not training.is_mixed(replace(SETTINGS, precision="float32"), torch.device("cuda"))


@pytest.mark.parametrize(("precision", "order"), [("float32", (512, 16, 4, 1)), ("bfloat16", (512, 1, 128, 32))])
def test_channels_lie_last_where_convolutions_are_in_bfloat16(fit, colour, tmp_path, precision, order):
    model, _ = fit(model=models.conv(colour.image_shape, 2), data=colour, config=TrainConfig(2, 1, precision=precision))
    weight = model.encoder.features[3].weight
    assert weight.stride() == weight.grad.stride() == order
    storage.save(model, tmp_path / "saved")
    assert torch.equal(storage.load(tmp_path / "saved").encoder.features[3].weight, weight)


# What is written


def test_metrics_have_a_line_an_epoch_of_the_documented_figures(fit, tiny, tmp_path):
    model, history = fit(config=replace(SETTINGS, learning_rate=1e-30), checkpoint_seconds=1000)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["metrics.jsonl"]
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert lines == history and [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert line.pop("epoch") and line.pop("seconds") >= 0 and len(line) == 6
        for split in ("train", "test"):
            assert line[f"{split}_elbo"] == line[f"{split}_reconstruction"] - line[f"{split}_kl"]
    reconstruction, kl = evaluation.elbo(model, tiny.test.images)
    assert (lines[-1]["test_reconstruction"], lines[-1]["test_kl"]) == (reconstruction.mean(), kl.mean())
    _, kl = evaluation.elbo(model, tiny.train.images)  # averaged over images, not batches
    assert lines[0]["train_kl"] == pytest.approx(kl.mean().item(), rel=1e-6)
    assert not model.training


def _in_place(terms, fraction):
    terms.log_likelihood.mul_(2)
    return terms.divergence - terms.reconstruction


def test_terms_are_recorded_as_they_were_before_the_objective(fit):
    still = replace(SETTINGS, epochs=1, learning_rate=1e-9)
    (_, (doubled,)), (_, (plain,)) = fit("a", still, objective=_in_place), fit("b", still)
    assert doubled["train_elbo"] == pytest.approx(plain["train_elbo"], rel=1e-5)


def test_what_looks_on_after_an_epoch_changes_neither_weights_nor_the_record(fit, colour):
    def watch(model, line):
        assert not model.training
        model.encode(to_float(colour.test.images))  # batch norm would take these for images of the training
        line.pop("test_elbo")
        with ThreadPoolExecutor() as pool:
            drawn.append(pool.submit(model.sample, 2, seed=0).result(20))

    drawn, options = [], {"data": colour, "config": TrainConfig(2, 2, batch_size=20)}
    start = models.conv(colour.image_shape, 2)
    (watched, history), (alone, _) = (
        fit(str(on_epoch), model=start, on_epoch=on_epoch, **options) for on_epoch in (watch, None)
    )
    assert same_weights(watched, alone) and len(drawn) == 2
    assert all("test_elbo" in line for line in history)


# What is not finite


def test_a_test_elbo_that_is_not_finite_stops_training(fit, tmp_path):
    with pytest.raises(FloatingPointError, match=r"the test ELBO is not finite .* epoch 1, step 1;"):
        fit(config=replace(SETTINGS, batch_size=1000, learning_rate=1e20))
    assert not (tmp_path / "a" / "metrics.jsonl").exists()


@pytest.mark.parametrize("check_every", [1, 2, 50])
def test_the_first_loss_that_is_not_finite_is_named_and_the_checkpoint_before_it_kept(fit, monkeypatch, check_every):
    steps, plain, (whole, _) = [], objective.negative_elbo, fit("whole")

    def spoiled(terms, fraction):
        steps.append(fraction)
        return plain(terms, fraction) * (math.nan if bad and len(steps) == 1 + STEPS + 4 else 1)  # after the check

    spoiled.__qualname__, bad = "spoiled", True
    monkeypatch.setattr(training, "CHECK_EVERY", check_every)
    with pytest.raises(FloatingPointError, match="the loss is nan at epoch 2, step 4;"):
        fit(objective=spoiled, meaning="one", checkpoint_seconds=0)
    assert steps[1:] == pytest.approx([step / STEPS / 3 for step in range(len(steps) - 1)])
    bad = False
    assert same_weights(fit(objective=spoiled, meaning="one")[0], whole)


@pytest.mark.parametrize("when", [1, 3])
def test_weights_that_are_not_finite_are_not_saved(fit, when):
    """The loss is finite, and its gradient isn't, in the last step of an epoch."""

    def trap(terms, fraction):
        loss = objective.negative_elbo(terms, fraction)
        if bad and abs(fraction * 4 - (when + 0.75)) < 0.01:
            return loss + (0 * terms.codes).sum().abs().sqrt()
        return loss

    trap.__qualname__, bad, config = "trap", True, TrainConfig(2, 4, batch_size=50)
    with pytest.raises(FloatingPointError, match=f"a weight is not finite.*epoch {when + 1}"):
        fit(config=config, objective=trap, meaning="one", checkpoint_seconds=0)
    bad = False
    model, history = fit(config=config, objective=trap, meaning="one")  # goes on from the checkpoint before
    assert len(history) == 4 and all(weight.isfinite().all() for weight in model.parameters())


def _deaf(terms, fraction):
    return terms.divergence - terms.reconstruction.nan_to_num()


def test_a_recorded_term_that_is_not_finite_stops_training(fit, tmp_path, monkeypatch):
    def spoiled(model, x, **options):
        return terms(model, x, **options)._replace(log_likelihood=torch.full((1, len(x)), math.nan).requires_grad_())

    terms = VAE.terms
    monkeypatch.setattr(VAE, "terms", spoiled)
    with pytest.raises(FloatingPointError, match="the reconstruction term is nan at epoch 1, step 1;"):
        fit(objective=_deaf)
    assert not (tmp_path / "a" / "metrics.jsonl").exists()


class Growing(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(0))

    def forward(self, x):
        if self.training:
            self.seen = torch.cat([self.seen, x.mean()[None]])
        return x


def test_a_model_that_grows_is_refused_in_its_first_epoch(fit, model, tmp_path):
    model.encoder.features.append(Growing())
    with pytest.raises(ValueError, match="the model's modules, or shapes of weights, change in training"):
        fit(model=model)
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize("seconds", [-1, math.nan, "3", None])
def test_a_time_between_checkpoints_is_a_number(fit, seconds):
    with pytest.raises(ValueError, match="checkpoint_seconds must be 0 or more"):
        fit(checkpoint_seconds=seconds)


# Checkpoints


class Scaled(nn.Module):
    """An objective with a weight that is learned."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, terms, fraction):
        return terms.divergence - terms.reconstruction * self.log_scale.exp() - self.log_scale


def halved(epoch):
    return 0.5**epoch


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": torch.optim.SGD},
        {"optimizer": partial(torch.optim.AdamW, weight_decay=0.1)},
        {"optimizer": torch.optim.RMSprop},
        {"objective": Scaled},
        {"schedule": partial(CosineAnnealingLR, T_max=3)},
        {"schedule": partial(MultiStepLR, milestones=(1, 2))},
        {"schedule": partial(OneCycleLR, max_lr=0.01, total_steps=4)},
        {"schedule": partial(LambdaLR, lr_lambda=halved)},
    ],
)
def test_every_optimizer_and_schedule_and_an_objective_with_state_resume_bit_for_bit(fit, options):
    config = replace(SETTINGS, max_grad_norm=5)
    whole, _ = fit("whole", config, **options)
    with pytest.raises(KeyboardInterrupt):
        fit("parts", config, on_epoch=stop_after(1), checkpoint_seconds=0, **options)
    assert same_weights(fit("parts", config, **options)[0], whole)


class Forgetful(nn.Module):
    """An objective whose state is in no checkpoint."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.beta, self.array = kind, 1.0, np.ones(2)
        self.register_buffer("buffer", torch.ones(()), persistent=False)

    def forward(self, terms, fraction):
        setattr(self, self.kind, getattr(self, self.kind) * 1.01)
        return terms.divergence - terms.reconstruction


class Counting(Forgetful):
    """One that keeps its state in a list."""

    def __init__(self):
        super().__init__("beta")
        self.beta, self.losses = 0, []

    def forward(self, terms, fraction):
        self.losses.append(fraction)
        return terms.divergence - terms.reconstruction


class Sampling(Forgetful):
    """One that draws from its own generator."""

    def __init__(self):
        super().__init__("beta")
        self.source = torch.Generator().manual_seed(0)

    def forward(self, terms, fraction):
        return terms.divergence - terms.reconstruction * torch.rand((), generator=self.source)


FRACTIONS = []


def _listing(terms, fraction):
    FRACTIONS.append(fraction)
    return terms.divergence - terms.reconstruction


def _drawing(terms, fraction, by):
    """An objective that draws from Python's or NumPy's generator."""
    random.random() if by == "random" else scipy.stats.uniform.rvs()  # which draws from NumPy's global generator
    return terms.divergence - terms.reconstruction


@pytest.mark.parametrize(
    ("objective", "what"),
    [
        *((partial(Forgetful, kind), f"objective.{kind}") for kind in ("beta", "buffer", "array")),
        (Counting, "objective.losses"),
        (Sampling, "objective.source"),
        (_listing, "a value that the objective reads"),
        *((partial(_drawing, by=name), f"the state of {name}") for name in ("random", "numpy.random")),
    ],
)
def test_state_that_no_checkpoint_holds_is_warned_of_once(fit, objective, what):
    with pytest.warns(UserWarning, match=f"{what} changes in training and is in no checkpoint") as warned:
        fit(objective=objective, checkpoint_seconds=0)
    assert sum("in no checkpoint" in str(each.message) for each in warned) == 1


def test_on_epoch_must_leave_torch_as_it_was(fit):
    with torch.enable_grad(), pytest.raises(ValueError, match="on_epoch changed torch's default dtype, or disabled"):
        fit(on_epoch=lambda *_: torch.set_grad_enabled(False))


@pytest.mark.filterwarnings("error")
def test_on_epoch_may_draw_random_numbers(fit):
    fit(on_epoch=lambda *_: random.random(), checkpoint_seconds=0)


def _summing(terms, fraction):
    FRACTIONS.append(terms.divergence.mean())
    return terms.divergence - terms.reconstruction + sum(FRACTIONS)


def test_an_objective_that_keeps_a_graph_is_told_to_detach(fit):
    FRACTIONS.clear()
    with pytest.raises(RuntimeError, match="second time") as error:
        fit(objective=_summing, meaning="")
    assert error.value.__notes__ == ["If the objective keeps a tensor for a later step, it must keep tensor.detach()"]


def test_an_early_stop_leaves_a_finished_run_with_the_best_weights(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", partial(evaluation.evaluate, samples=10))
    held = tiny.hold_out(40)
    config = TrainConfig(2, 60, batch_size=20, patience=2, learning_rate=1e-2)
    train = partial(runs.train, held, config, device="cpu", builder=small)
    run = train(root=tmp_path)
    elbos = [line["validation_elbo"] for line in run.metrics]
    best = elbos.index(max(elbos))
    assert len(elbos) < 60 and best == len(elbos) - 3
    reconstruction, kl = evaluation.elbo(run.model(), held.validation.images)
    assert (reconstruction - kl).mean().item() == pytest.approx(max(elbos), abs=1e-4)
    assert runs.load(run.folder, small).evaluation == run.evaluation == train(root=tmp_path).evaluation
    for number in (1, best + 1, len(elbos)):  # before the best epoch, at it, and after
        with pytest.raises(KeyboardInterrupt):
            train(root=tmp_path / str(number), on_epoch=stop_after(number), checkpoint_seconds=0)
        assert train(root=tmp_path / str(number)).evaluation == run.evaluation


def test_checkpoints_take_a_tenth_of_the_time_at_most(fit, monkeypatch):
    clock = Counter()
    monkeypatch.setattr(training.time, "monotonic", clock.total)
    monkeypatch.setattr(training, "CHECK_EVERY", 1)

    def slow(name, seconds):
        function = getattr(training._State, name)

        def call(*arguments, **options):
            clock[name] += seconds
            return function(*arguments, **options)

        monkeypatch.setattr(training._State, name, call)

    slow("take_step", 0.5)
    slow("write", 2.0)
    fit(config=TrainConfig(2, 12, batch_size=20), checkpoint_seconds=1)
    assert clock["take_step"] == 60 and 4 <= clock["write"] <= 8


@pytest.mark.parametrize(
    "damage",
    [lambda content, length=length: content[:length] for length in (0, 10, 32, 20_000, -1)]
    + [partial(flipped, position=place) for place in (0, 31, 32, 100, 20_000, -1)],
)
def test_a_damaged_checkpoint_is_refused_by_name_and_left(fit, checkpoint, damage):
    damaged = damage(checkpoint.read_bytes())
    checkpoint.write_bytes(damaged)
    with pytest.raises(ValueError, match=re.escape(f"{checkpoint} is damaged")):
        fit()
    assert checkpoint.read_bytes() == damaged


def test_a_checkpoint_of_another_training_or_version_is_refused(fit, tiny, checkpoint, monkeypatch):
    other = replace(tiny, train=Split(255 - tiny.train.images, tiny.train.labels))
    for change, message in (
        ({"config": replace(SETTINGS, seed=1)}, "with seed 0, not 1"),
        ({"config": replace(SETTINGS, batch_size=64)}, "with batch_size 32, not 64"),
        ({"config": replace(SETTINGS, learning_rate=0.1)}, "with learning_rate 0.001, not 0.1"),
        ({"config": replace(SETTINGS, epochs=4)}, "with epochs 3, not 4"),
        ({"model": small((1, 7, 7), 2, decoder=NormalPixels)}, "with model '"),
        ({"objective": Geco}, "with meaning"),
        ({"data": other}, f".*'{tiny.fingerprint}'"),
    ):
        with pytest.raises(ValueError, match=f"checkpoint belongs to a run {message}"):
            fit(**change)
    monkeypatch.setattr(training, "is_mixed", lambda *_: False)
    with PretendedGPU("cuda", monkeypatch) as gpu:
        on_gpu = small(tiny.image_shape, 2).to(gpu.device)
        with pytest.raises(ValueError, match="checkpoint belongs to a run with device 'cpu', not 'cuda'"):
            training.fit(on_gpu, tiny, SETTINGS, checkpoint.parent)
    monkeypatch.setattr(training._State, "_content", lambda state: {"model": 0})
    with pytest.raises(ValueError, match=r"by another version of vaelib \(see config.json\); use it, or delete"):
        fit()


def test_a_checkpoint_whose_tensors_lie_in_another_order_is_the_same(fit, colour, tmp_path):
    """As one does that an earlier version wrote, of a training in bfloat16."""
    config, trained = TrainConfig(2, 3, batch_size=16, precision="bfloat16"), []
    options = {"data": colour, "model": models.conv(colour.image_shape, 2), "config": config}
    for name in ("as it was", "turned"):
        with pytest.raises(KeyboardInterrupt):
            fit(name, on_epoch=stop_after(1), checkpoint_seconds=0, **options)
        if name == "turned":
            path = tmp_path / name / "checkpoint"
            state = torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)
            assert any(not each.is_contiguous() for each in tree_leaves(state["optimizer"]) if torch.is_tensor(each))
            torch.save(tree_map_only(torch.Tensor, torch.Tensor.contiguous, state), buffer := io.BytesIO())
            path.write_bytes(hashlib.sha256(buffer.getbuffer()).digest() + buffer.getvalue())
        trained.append(fit(name, **options)[0])
    assert same_weights(*trained)


# Randomness and devices


def test_the_default_device_may_be_another(tiny):
    with torch.device("meta"):
        assert data.load("digits").train.images.device.type == "cpu"
        images = training._Images(tiny.train, 50, torch.device("cpu"), conditional=False, stream=False)
        (batch,) = next(images.epoch(torch.Generator(), 0))
        assert batch.device.type == "cpu" and len(tiny.hold_out(10).train) == 190
        assert distributions.StandardNormal(2).sample((3,)).device.type == "cpu"


def test_seeding_the_cpu_leaves_all_gpus_alone(monkeypatch):
    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, lambda seed: pytest.fail("seeded the GPUs"))
    with seeded(0):
        first = torch.rand(3)
    assert torch.equal(first, torch.rand(3, generator=torch.Generator().manual_seed(0)))


def _draw_in_a_child():
    child = os.fork()
    if not child:
        signal.alarm(20)  # which ends it, should it wait for a lock that none of its threads holds
        with seeded(1):
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_another_thread_trains_can_draw():
    with seeded(0), ThreadPoolExecutor() as pool:
        assert pool.submit(_draw_in_a_child).result() == 0
