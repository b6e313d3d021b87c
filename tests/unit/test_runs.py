"""Runs on disk: the same wherever they were interrupted, complete or refused."""

import importlib.util
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import Cauchy, Independent, Normal, Poisson, StudentT
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
)

import vaelib
from vaelib import TrainConfig, burda, data, evaluation, files, models, objective, priors, runs, storage, training
from vaelib.checks import check_model
from vaelib.data import Dataset, Split

FILES = ["SHA256SUMS", "config.json", "evaluation.json", "metrics.jsonl", "model.safetensors"]


def _names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def _without_seconds(metrics):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in metrics]


def _assert_same(run, other):
    """Weights and figures, bit for bit."""
    weights, others = run.model().state_dict(), other.model().state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())
    assert _without_seconds(run.metrics) == _without_seconds(other.metrics)
    assert run.evaluation == other.evaluation


def _copy(run, root):
    """The same run in another folder of runs, to be damaged there."""
    folder = root / run.folder.name
    folder.mkdir()
    for path in run.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def _interrupt(patch, module, name, call):
    """Let the function's n-th call be interrupted, as by Ctrl-C."""
    function, calls = getattr(module, name), []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    patch.setattr(module, name, interrupted)


def _often_saved(patch):
    """After every second step: by a clock that stands still, since what writing takes puts off the next checkpoint."""
    patch.setattr(training, "CHECK_EVERY", 2)
    patch.setattr(training, "time", SimpleNamespace(monotonic=lambda: 0.0))
    patch.setattr(runs, "train", partial(runs.train, checkpoint_seconds=0))


def _refuse(*_, **__):
    raise AssertionError("nothing is left to be done")


# What a run is


def test_a_complete_run_has_its_files(trained):
    assert _names(trained.folder) == FILES
    assert trained.folder.name == "tiny-k2-e3-s0-b32"
    assert runs.is_complete(trained.folder)


def test_a_runs_name_tells_data_latent_dimension_epochs_and_seed():
    assert runs.name("mnist", TrainConfig(latent_dim=16, epochs=100, seed=3)) == "mnist-k16-e100-s3"


def test_the_configuration_records_settings_data_and_versions(trained, tiny):
    config = json.loads((trained.folder / "config.json").read_text())
    assert config == trained.record
    assert config["settings"] == asdict(trained.config)
    data = {"name": "tiny", "fingerprint": tiny.fingerprint, "image_shape": [1, 7, 7], "origin": tiny.origin}
    assert config["data"] == data
    assert config["environment"]["torch"] == version("torch")
    assert config["environment"].keys() == {"vaelib", "torch", "torchvision", "numpy", "python", "device"}
    assert config["environment"]["device"].startswith("CPU")


def test_a_run_is_loaded_as_it_was_returned(trained):
    loaded = runs.load(trained.folder)
    assert loaded == trained
    assert loaded.config == TrainConfig(latent_dim=2, epochs=3, batch_size=32)
    assert [line["epoch"] for line in loaded.metrics] == [1, 2, 3]


def test_the_evaluation_is_that_of_the_saved_model(trained, tiny):
    assert evaluation.evaluate(trained.model(), tiny) == trained.evaluation
    assert trained.metrics[-1]["test_elbo"] == pytest.approx(trained.evaluation["test_elbo"], rel=1e-5)


def test_spread_is_the_mean_and_standard_deviation_over_runs(trained):
    values = (1.0, 2.0, 4.5)
    same = [replace(trained, evaluation={"test_elbo": value}) for value in values]
    assert runs.mean_and_std(same, "test_elbo") == pytest.approx((2.5, math.sqrt((1.5**2 + 0.5**2 + 2**2) / 2)))


@pytest.mark.parametrize(
    ("values", "form", "text"),
    [
        ([1.0, 2.0, 4.5], ".1f", "2.5 ± 1.8"),
        ([-0.47], "+.2f", "-0.47"),
        ([0.25, 0.75], "+.2f", "+0.50 ± 0.35"),
        ([0.00828, 0.00829], ".4f", "0.0083 ± <0.0001"),
        ([0.861, 0.862], ".0%", "86% ± <1%"),
        (torch.tensor([32, 32]), ".1f", "32.0 ± 0"),
    ],
)
def test_a_mean_is_shown_with_a_deviation_that_is_zero_only_if_it_is(values, form, text):
    assert runs.plus_minus(values, form) == text


def test_train_all_groups_its_runs_by_latent_dimension(tiny, tmp_path):
    settings = [TrainConfig(latent_dim, epochs=1, seed=seed) for seed in (1, 0) for latent_dim in (3, 2)]
    trained = runs.train_all(tiny, settings, tmp_path)
    seeds = {latent_dim: [run.config.seed for run in group] for latent_dim, group in trained.items()}
    assert seeds == {3: [1, 0], 2: [1, 0]}
    assert all(run.config.latent_dim == latent_dim for latent_dim, group in trained.items() for run in group)


def test_the_environment_names_the_folder_of_runs(monkeypatch, tmp_path, tiny):
    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path))
    assert runs.default_root() == tmp_path
    run = runs.train(tiny, TrainConfig(latent_dim=1, epochs=1), device="cpu")
    assert run.folder == tmp_path / "tiny-k1-e1-s0"


# Always the same


def test_the_same_seed_gives_the_same_run(trained, tiny, tmp_path):
    _assert_same(runs.train(tiny, trained.config, tmp_path, "cpu"), trained)


def test_another_seed_gives_another_run(trained, tiny, tmp_path):
    other = runs.train(tiny, replace(trained.config, seed=1), tmp_path, "cpu")
    assert other.folder.name == "tiny-k2-e3-s1-b32"
    assert not torch.equal(other.model().encoder.mean.weight, trained.model().encoder.mean.weight)
    assert other.evaluation["test_elbo"] != trained.evaluation["test_elbo"]


def test_a_run_neither_uses_nor_changes_the_global_random_state(trained, tiny, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        before = torch.get_rng_state()
        run = runs.train(tiny, trained.config, tmp_path, "cpu")
        assert torch.equal(torch.get_rng_state(), before)
    _assert_same(run, trained)


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (training._State, "take_step", 1),
        (training._State, "take_step", 11),
        (training._State, "record", 1),
        (training._State, "record", 6),
        (training._State, "write", 4),
        (os, "replace", 7),
        (evaluation, "elbo", 1),
        (evaluation, "elbo", 2),
        (evaluation, "elbo", 4),
        (storage, "save", 1),
        (storage, "load", 1),
        (evaluation, "log_prob", 1),
        (runs, "load", 1),
    ],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(trained, tiny, tmp_path, monkeypatch, module, name, call):
    with monkeypatch.context() as patch:
        _often_saved(patch)
        _interrupt(patch, module, name, call)
        with pytest.raises(KeyboardInterrupt) as stopped:
            runs.train(tiny, trained.config, tmp_path, "cpu")
        if (module, name) != (runs, "load"):  # then all was done
            assert "run this again" in "".join(stopped.value.__notes__)
    assert not list(tmp_path.rglob("*.part"))
    run = runs.train(tiny, trained.config, tmp_path, "cpu")
    _assert_same(run, trained)
    assert _names(run.folder) == FILES


def test_a_run_interrupted_again_and_again_goes_on_as_if_it_had_not_been(trained, tiny, tmp_path, monkeypatch):
    _often_saved(monkeypatch)
    for _ in range(3):
        with monkeypatch.context() as patch:
            _interrupt(patch, training._State, "take_step", 5)
            with pytest.raises(KeyboardInterrupt):
                runs.train(tiny, trained.config, tmp_path, "cpu")
    _assert_same(runs.train(tiny, trained.config, tmp_path, "cpu"), trained)


def test_an_interrupted_training_does_not_start_over(trained, tiny, tmp_path, monkeypatch):
    _often_saved(monkeypatch)
    with monkeypatch.context() as patch:
        _interrupt(patch, training._State, "take_step", 20)
        with pytest.raises(KeyboardInterrupt):
            runs.train(tiny, trained.config, tmp_path, "cpu")
    steps, take = [], training._State.take_step
    monkeypatch.setattr(training._State, "take_step", lambda *given: steps.append(1) or take(*given))
    runs.train(tiny, trained.config, tmp_path, "cpu")
    assert len(steps) == 21 - 18  # step 18, the fourth of the last epoch, ended with a checkpoint


def test_leftovers_of_a_killed_process_are_cleared_away(trained, tiny, tmp_path):
    folder = tmp_path / trained.folder.name
    folder.mkdir()
    for name in ("checkpoint.1.part", "metrics.jsonl.1.part", "config.json.1.part"):
        (folder / name).write_bytes(b"half a file")
    runs.train(tiny, trained.config, tmp_path, "cpu")
    assert _names(folder) == FILES


# Importing takes seconds, so one process imports, and then forks one that trains for every line it reads.
SCRIPT = """
import os, sys
from types import SimpleNamespace
import torch._dynamo  # as the first optimizer does, which here is each child's
from vaelib import TrainConfig, data, runs, training

digits = data.load("digits")
splits = [data.Split(s.images[:200, :, ::4, ::4], s.labels[:200]) for s in (digits.train, digits.test)]
dataset = data.Dataset("killed", *splits, digits.names)

def train(root):
    record = training._State.record
    def progress(*arguments):
        print("step", flush=True)
        return record(*arguments)
    training._State.record, training.CHECK_EVERY = progress, 2
    training.time = SimpleNamespace(monotonic=lambda: 0.0)  # a checkpoint each time
    runs.train(dataset, TrainConfig(2, epochs=8, batch_size=32), root, "cpu", checkpoint_seconds=0)

for line in sys.stdin:
    child = os.fork()
    if not child:
        train(line.strip())
        os._exit(0)
    print(child, flush=True)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )

    def life(root, steps=0, part=0.0):
        """Train in a process of its own, to the end or until it is killed after some steps and part of one more."""
        print(root, file=server.stdin, flush=True)
        process = int(server.stdout.readline())
        for _ in range(steps):
            started = time.monotonic()
            assert server.stdout.readline() == "step\n"
        if steps:
            time.sleep(part * (time.monotonic() - started))
            os.kill(process, signal.SIGKILL)
        return int(next(line for line in server.stdout if line.startswith("ended")).split()[1])

    moments = random.Random(0)
    with server:
        for _ in range(3):
            assert life(tmp_path / "killed", moments.randint(3, 6), moments.random()) == -signal.SIGKILL
        assert life(tmp_path / "killed") == life(tmp_path / "whole") == 0
    killed, whole = (runs.load(tmp_path / root / "killed-k2-e8-s0-b32") for root in ("killed", "whole"))
    _assert_same(killed, whole)
    assert _names(killed.folder) == _names(whole.folder) == FILES


# What is there already


def test_a_complete_run_is_not_trained_again(trained, tiny, monkeypatch):
    for module, name in ((training, "fit"), (evaluation, "evaluate"), (files, "write")):
        monkeypatch.setattr(module, name, _refuse)
    assert runs.train(tiny, trained.config, trained.folder.parent, "cpu") == trained


def test_a_trained_run_without_its_evaluation_is_only_evaluated(trained, tiny, tmp_path, monkeypatch):
    folder = _copy(trained, tmp_path)
    (folder / "evaluation.json").unlink()
    assert not runs.is_complete(folder)
    monkeypatch.setattr(training, "fit", _refuse)
    assert runs.train(tiny, trained.config, tmp_path, "cpu").evaluation == trained.evaluation


def test_a_run_that_another_process_is_training_is_refused(trained, tiny, tmp_path):
    folder = _copy(trained, tmp_path)
    (folder / "evaluation.json").unlink()
    with files.locked(folder), pytest.raises(RuntimeError, match="in use by another process"):
        runs.train(tiny, trained.config, tmp_path)
    _assert_same(runs.train(tiny, trained.config, tmp_path), trained)


def test_a_run_whose_weights_were_deleted_is_trained_and_evaluated_again(trained, tiny, tmp_path):
    folder = _copy(trained, tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "evaluation.json").write_text('{"test_elbo": 0.0}')
    _assert_same(runs.train(tiny, trained.config, tmp_path), trained)


@pytest.mark.parametrize(("setting", "value"), [("learning_rate", 0.01), ("batch_size", 64)])
def test_a_run_with_other_settings_than_its_name_says_is_refused_and_left_alone(
    trained, tiny, tmp_path, setting, value
):
    folder = _copy(trained, tmp_path)
    config = trained.record | {"settings": trained.record["settings"] | {setting: value}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "SHA256SUMS").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = getattr(trained.config, setting)
    with pytest.raises(ValueError, match=f"{re.escape(str(folder))} holds a run with {setting} {value}, not {found}"):
        runs.train(tiny, trained.config, tmp_path, "cpu")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_learning_rate_or_batch_size_is_another_folder():
    assert runs.name("mnist", TrainConfig(2, learning_rate=1e-4, batch_size=64)) == "mnist-k2-e10-s0-b64-r0.0001"


def test_a_precision_that_was_asked_for_is_recorded_and_in_the_folders_name(trained, tiny, tmp_path):
    run = runs.train(tiny, replace(trained.config, precision="bfloat16"), tmp_path, "cpu")
    assert run.folder.name == f"{trained.folder.name}-bfloat16"
    assert run.record["settings"]["precision"] == "bfloat16" and run.config.precision == "bfloat16"
    assert run.metrics != trained.metrics


def test_a_record_from_before_there_was_a_choice_of_precision_or_block_is_that_of_the_same_run(trained, tiny, tmp_path):
    folder = _copy(trained, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["settings"]["precision"], config["settings"]["block"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "SHA256SUMS").unlink()
    assert runs.train(tiny, trained.config, tmp_path, "cpu").evaluation == trained.evaluation


def test_a_run_with_other_data_is_refused(trained, tiny, tmp_path):
    folder = _copy(trained, tmp_path)
    images = tiny.train.images.clone()
    images[0, 0, 0, 0] += 1
    other = Dataset("tiny", Split(images, tiny.train.labels), tiny.test, tiny.names)
    with pytest.raises(ValueError, match=f"{re.escape(str(folder))} .* fingerprint .*{tiny.fingerprint}"):
        runs.train(other, trained.config, tmp_path, "cpu")


def test_an_interrupted_run_with_other_settings_is_refused(trained, tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        _interrupt(patch, training._State, "take_step", 3)
        with pytest.raises(KeyboardInterrupt):
            runs.train(tiny, trained.config, tmp_path, "cpu")
    monkeypatch.setattr(runs, "name", lambda *_: trained.folder.name)
    with pytest.raises(ValueError, match="learning_rate"):
        runs.train(tiny, replace(trained.config, learning_rate=0.1), tmp_path, "cpu")


def test_a_loss_that_is_not_finite_leaves_no_weights(tiny, tmp_path):
    settings = TrainConfig(latent_dim=2, epochs=1, batch_size=32, learning_rate=1e20)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step \d"):
        runs.train(tiny, settings, tmp_path, "cpu")
    assert _names(tmp_path / "tiny-k2-e1-s0-b32-r1e+20") == ["config.json"]


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: content[:-1] + b"\xff"])
def test_a_damaged_checkpoint_is_refused_by_name(trained, tiny, tmp_path, monkeypatch, damage):
    with monkeypatch.context() as patch:
        _often_saved(patch)
        _interrupt(patch, training._State, "record", 3)
        with pytest.raises(KeyboardInterrupt):
            runs.train(tiny, trained.config, tmp_path, "cpu")
    checkpoint = tmp_path / trained.folder.name / "checkpoint"
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(checkpoint))):
        runs.train(tiny, trained.config, tmp_path, "cpu")


def test_damaged_weights_are_not_evaluated(trained, tiny, tmp_path):
    folder = _copy(trained, tmp_path)
    (folder / "evaluation.json").unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=re.escape(str(weights))):
        runs.train(tiny, trained.config, tmp_path, "cpu")


# Loading what is not whole


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "evaluation.json"])
def test_an_incomplete_run_names_the_missing_file(trained, tmp_path, name):
    folder = _copy(trained, tmp_path)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(folder / name))):
        runs.load(folder)


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file.tiny-k2.* cannot be made .*VAELIB_RUNS"):
        runs.train(tiny, TrainConfig(2, epochs=1), tmp_path / "file")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "nothing"))):
        runs.load(tmp_path / "nothing")
    assert not runs.is_complete(tmp_path / "nothing")


def test_a_published_record_has_figures_but_no_model(trained, tmp_path):
    folder = _copy(trained, tmp_path)
    (folder / "model.safetensors").unlink()
    run = runs.load(folder)
    assert (run.metrics, run.evaluation) == (trained.metrics, trained.evaluation)
    with pytest.raises(FileNotFoundError, match=re.escape(str(folder / "model.safetensors"))):
        run.model()


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "evaluation.json"])
def test_a_digit_that_was_changed_is_noticed(trained, tmp_path, name):
    path = _copy(trained, tmp_path) / name
    changed = re.sub(rb"[1-8]", lambda digit: b"%d" % (int(digit[0]) + 1), path.read_bytes(), count=1)
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged: its checksum is not in"):
        runs.load(path.parent)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
def test_a_damaged_record_gets_no_new_checksum(trained, tiny, tmp_path):
    path = _copy(trained, tmp_path) / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"-", b"-9", 1))
    path.with_name("evaluation.json").unlink()
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged: its checksum is not in"):
        runs.train(tiny, trained.config, tmp_path, "cpu")


def test_figures_that_are_no_numbers_are_named(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"is trained, but its .*reconstruction_error.* is not finite; delete"):
        runs.train(tiny, TrainConfig(3, epochs=1), tmp_path, "cpu", builder=partial(models.mlp, encoder=_Heavy))


def test_checksums_are_such_as_other_tools_read(trained):
    checked = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=trained.folder, capture_output=True, text=True)
    assert checked.stdout.count(": OK\n") == 4


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "evaluation.json"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="half"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"\xff" + content, id="no text"),
        pytest.param(lambda content: b"[]", id="no table"),
    ],
)
def test_a_damaged_record_is_refused_by_name(trained, tmp_path, name, damage):
    path = _copy(trained, tmp_path) / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        runs.load(path.parent)


def test_metrics_that_lack_an_epoch_are_refused_by_name(trained, tmp_path):
    path = _copy(trained, tmp_path) / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        runs.load(path.parent)


@pytest.mark.parametrize("content", [b"{}", b'{"settings": {}, "data": {}}', b"[]", b'{"settings'])
def test_a_damaged_configuration_stops_a_training_by_name(trained, tiny, tmp_path, content):
    path = _copy(trained, tmp_path) / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        runs.train(tiny, trained.config, tmp_path, "cpu")


@pytest.mark.parametrize("settings", [{"latent_dim": 0}, {"latent_dim": 2, "depth": 3}, {}])
def test_a_configuration_with_impossible_settings_is_refused_by_name(trained, tmp_path, settings):
    path = _copy(trained, tmp_path) / "config.json"
    path.write_text(json.dumps(trained.record | {"settings": settings}))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        runs.load(path.parent)


# Nothing recorded that is not so


def test_the_record_is_written_by_whoever_holds_the_run(tiny, tmp_path, monkeypatch):
    claim, held = runs._claim, []

    def while_others_are_refused(folder, *arguments):
        with ThreadPoolExecutor(1) as executor, pytest.raises(RuntimeError, match="in use"):
            executor.submit(lambda: files.locked(folder).__enter__()).result()
        held.append(folder)
        claim(folder, *arguments)

    monkeypatch.setattr(runs, "_claim", while_others_are_refused)
    runs.train(tiny, TrainConfig(latent_dim=1, epochs=1), tmp_path, "cpu")
    assert held == [tmp_path / "tiny-k1-e1-s0"]


def test_threads_that_train_at_once_get_what_they_would_get_one_after_the_other(tiny, tmp_path):
    settings = [TrainConfig(latent_dim, epochs=2, seed=latent_dim) for latent_dim in (1, 2, 3)]
    with ThreadPoolExecutor(3) as executor:
        together = list(executor.map(lambda each: runs.train(tiny, each, tmp_path / "together", "cpu"), settings))
    for run, each in zip(together, settings, strict=True):
        _assert_same(run, runs.train(tiny, each, tmp_path / "alone", "cpu"))


def test_a_model_that_cannot_be_built_leaves_nothing(tiny, tmp_path):
    with pytest.raises(ZeroDivisionError):
        runs.train(tiny, TrainConfig(latent_dim=1), tmp_path, "cpu", builder=impossible)
    assert list(tmp_path.iterdir()) == []


def test_after_a_loss_that_is_not_finite_a_smaller_learning_rate_trains(tiny, tmp_path):
    with pytest.raises(FloatingPointError, match="try a smaller learning_rate"):
        runs.train(tiny, TrainConfig(latent_dim=2, epochs=1, learning_rate=1e20), tmp_path, "cpu")
    assert runs.train(tiny, TrainConfig(latent_dim=2, epochs=1, learning_rate=1e-4), tmp_path, "cpu").metrics


def test_a_test_split_of_one_image_is_refused_before_anything_is_written(tiny, tmp_path):
    one = Dataset("one", tiny.train, Split(tiny.test.images[:1], tiny.test.labels[:1]), tiny.names)
    with pytest.raises(ValueError, match="test split has one image"):
        runs.train(one, TrainConfig(latent_dim=1), tmp_path, "cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_evaluation_is_no_reason_to_train_again(trained, tmp_path):
    path = _copy(trained, tmp_path) / "evaluation.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} .*delete that file, and the run is evaluated again"):
        runs.load(path.parent)


# Functions of one's own


def impossible(image_shape, latent_dim):
    return 1 / 0


def with_dropout(image_shape, latent_dim):
    model = models.mlp(image_shape, latent_dim)
    model.encoder.features.append(torch.nn.Dropout(0.2))
    return model


def compiled(image_shape, latent_dim):
    return torch.compile(models.mlp(image_shape, latent_dim), backend="eager")


def annealed(terms, fraction):
    return fraction * terms.divergence - terms.reconstruction


def halved(epoch):
    return 0.5**epoch


OWN = {"builder": with_dropout, "objective": annealed, "schedule": partial(ExponentialLR, gamma=0.5)}


@pytest.fixture(scope="module")
def own(tiny, tmp_path_factory):
    """A run of three functions that are not the paper's."""
    return runs.train(tiny, TrainConfig(2, epochs=3, batch_size=32), tmp_path_factory.mktemp("own"), "cpu", **OWN)


def test_the_record_and_the_folder_name_functions_that_are_not_the_papers(own):
    here, schedule = __name__, "torch.optim.lr_scheduler.ExponentialLR(gamma=0.5)"
    functions = {"builder": f"{here}.with_dropout", "objective": f"{here}.annealed", "schedule": schedule}
    assert own.record["functions"] == functions | {"optimizer": None}
    assert own.folder.name == "tiny-k2-e3-s0-b32-with_dropout-annealed-ExponentialLR_gamma=0.5"


def test_a_run_of_functions_of_ones_own_is_loaded_with_its_builder(own):
    assert runs.load(own.folder, with_dropout) == own
    assert [type(part) for part in own.model().encoder.features][-1] is torch.nn.Dropout
    with pytest.raises(ValueError, match="with_dropout built, not"):
        runs.load(own.folder).model()


@pytest.mark.parametrize("call", [3, 11, 20])
def test_an_interrupted_run_of_functions_of_ones_own_goes_on(own, tiny, tmp_path, monkeypatch, call):
    with monkeypatch.context() as patch:
        _often_saved(patch)
        _interrupt(patch, training._State, "take_step", call)
        with pytest.raises(KeyboardInterrupt):
            runs.train(tiny, own.config, tmp_path, "cpu", **OWN)
    _assert_same(runs.train(tiny, own.config, tmp_path, "cpu", **OWN), own)


def test_a_compiled_model_trains_and_is_saved_as_what_it_is(trained, tiny, tmp_path):
    run = runs.train(tiny, trained.config, tmp_path, "cpu", builder=compiled)
    plain = models.mlp(tiny.image_shape, 2)
    plain.load_state_dict(models.unwrap(run.model()).state_dict())
    assert all(map(torch.equal, plain.parameters(), trained.model().parameters()))


def test_on_epoch_sees_every_epoch_and_changes_nothing(trained, tiny, tmp_path):
    lines = []

    def look(model, line):
        lines.append(line)
        model.sample(3)

    run = runs.train(tiny, trained.config, tmp_path, "cpu", on_epoch=look)
    assert lines == run.metrics
    _assert_same(run, trained)


@pytest.mark.parametrize(
    "schedule",
    [
        partial(CosineAnnealingLR, T_max=3),
        partial(MultiStepLR, milestones=(1, 2)),
        partial(OneCycleLR, max_lr=0.01, total_steps=4),
        partial(LambdaLR, lr_lambda=halved),
    ],
)
def test_schedules_of_torchs_are_resumed(tiny, tmp_path, monkeypatch, schedule):
    settings = TrainConfig(2, epochs=3, batch_size=32)
    whole = runs.train(tiny, settings, tmp_path / "whole", "cpu", schedule=schedule)
    with monkeypatch.context() as patch:
        _often_saved(patch)
        _interrupt(patch, training._State, "take_step", 18)
        with pytest.raises(KeyboardInterrupt):
            runs.train(tiny, settings, tmp_path / "parts", "cpu", schedule=schedule)
    _assert_same(runs.train(tiny, settings, tmp_path / "parts", "cpu", schedule=schedule), whole)


def test_a_function_without_a_name_is_refused_before_anything_is_written(tiny, tmp_path):
    for own in ({"builder": lambda *_: None}, {"objective": lambda *_: None}, {"schedule": lambda _: None}):
        with pytest.raises(ValueError, match="define it by `def` at the top level"):
            runs.train(tiny, TrainConfig(latent_dim=1), tmp_path, "cpu", **own)
    assert list(tmp_path.iterdir()) == []


def test_a_function_of_a_wrong_kind_is_refused_before_anything_is_written(tiny, tmp_path):
    for own in ({"objective": objective.BetaELBO}, {"schedule": ReduceLROnPlateau}):
        with pytest.raises(ValueError, match=r"give an instance of it|that goes by epochs"):
            runs.train(tiny, TrainConfig(latent_dim=1), tmp_path, "cpu", **own)
    assert list(tmp_path.iterdir()) == []


def test_names_tell_the_sign_of_an_argument_and_not_how_a_number_was_written():
    settings = TrainConfig(latent_dim=2)
    less, more = (runs.name("tiny", settings, objective=partial(_scaled, by)) for by in (-1, 1))
    assert less.endswith("_-1") and more.endswith("_1") and less != more
    for whole, number in (
        (objective.BetaELBO(4), objective.BetaELBO(4.0)),
        (objective.FreeBits(1), objective.FreeBits(1.0)),
    ):
        assert runs.name("tiny", settings, objective=whole) == runs.name("tiny", settings, objective=number)


def test_a_tensor_is_an_argument_that_a_run_is_named_by_and_loaded_with(tiny, tmp_path):
    means = [torch.full(tiny.image_shape, value) for value in (0.25, 0.5)]
    builders = [partial(burda.build, means=each) for each in means]
    settings = TrainConfig(latent_dim=1, epochs=1)
    run = runs.train(tiny, settings, tmp_path, "cpu", builder=builders[0])
    again, other = (
        runs.name("tiny", settings, each) for each in (partial(burda.build, means=means[0] * 1), builders[1])
    )
    assert run.folder.name == again != other
    assert runs.load(run.folder, builders[0]).model().latent_dim == 1
    with pytest.raises(ValueError, match="tensor:"):
        runs.load(run.folder, builders[1])


def test_tags_are_kept_from_the_start_and_make_no_other_run(trained, tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        _interrupt(patch, training._State, "take_step", 3)
        with pytest.raises(KeyboardInterrupt):
            runs.train(tiny, trained.config, tmp_path, "cpu", tags={"rules": "first"})
    run = runs.train(tiny, trained.config, tmp_path, "cpu", tags={"rules": "later"})
    assert run.record["tags"] == {"rules": "first"}
    _assert_same(run, trained)


def _scaled(by, terms, fraction):
    return by * objective.negative_elbo(terms, fraction)


def test_a_tiny_training_ends_where_it_always_did(trained):
    """As version 0.1.0 left it, up to what another processor may change."""
    figures = {"test_elbo": -21.931736, "train_elbo": -21.295904, "test_kl": 0.0082777, "log_prob": -21.505608}
    assert {key: trained.evaluation[key] for key in figures} == pytest.approx(figures, rel=1e-5)


# Devices


@pytest.mark.skipif(torch.cuda.is_available() or torch.mps.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(tiny, tmp_path):
    for device in ("cuda", "mps"):
        with pytest.raises(RuntimeError, match=f"'{device}' was asked for.*no GPU.*use 'cpu', or leave it out"):
            runs.train(tiny, TrainConfig(latent_dim=2), tmp_path, device)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_default_is_the_cpu():
    assert runs.choose_device() == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_apples_gpu_is_taken_only_if_asked_for(monkeypatch):
    monkeypatch.setattr(torch.mps, "is_available", lambda: True)
    assert runs.choose_device() == torch.device("cpu")
    assert runs.choose_device("mps") == torch.device("mps")


def test_the_device_asked_for_is_chosen():
    assert runs.choose_device("cpu") == runs.choose_device(torch.device("cpu")) == torch.device("cpu")


def _too_large(terms, fraction):
    if terms.log_prior.numel() > 2:  # for the two images that are checked before there is enough
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return objective.negative_elbo(terms, fraction)


def test_a_device_with_too_little_memory_is_told_with_what_to_make_smaller(tiny, tmp_path):
    with pytest.raises(RuntimeError, match=r"cpu has too little memory for tiny.*make batch_size \(128\) smaller"):
        runs.train(tiny, TrainConfig(latent_dim=2), tmp_path, "cpu", objective=_too_large)


def test_an_unknown_device_is_refused():
    with pytest.raises(RuntimeError, match="abacus"):
        runs.choose_device("abacus")


def test_figures_on_disk_are_finite_numbers(trained):
    figures = json.loads((trained.folder / "evaluation.json").read_text())
    assert all(math.isfinite(value) for value in figures.values())


def test_a_run_of_the_digits_can_be_trained_through_the_package(tmp_path):
    small = data.load("digits")
    small = Dataset("few", Split(small.train.images[:64], small.train.labels[:64]), small.test, small.names)
    run = vaelib.train(small, vaelib.TrainConfig(latent_dim=2, epochs=1), tmp_path)
    assert run.model().sample(16).shape == (16, 1, 28, 28)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_colour_run_resumes_with_its_running_statistics(precision, tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (60, 3, 16, 16), generator=generator, dtype=torch.uint8)
    colour = Dataset(
        "colour", Split(pixels[:48], torch.zeros(48).long()), Split(pixels[48:], torch.zeros(12).long()), ("none",)
    )
    settings = TrainConfig(latent_dim=2, epochs=3, batch_size=16, precision=precision)
    whole = runs.train(colour, settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        _interrupt(patch, evaluation, "elbo", 2)
        with pytest.raises(KeyboardInterrupt):
            runs.train(colour, settings, tmp_path / "parts", checkpoint_seconds=0)
    _assert_same(runs.train(colour, settings, tmp_path / "parts"), whole)


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


class _Heavy(nn.Module):
    """A posterior that can be sampled, and has no mean."""

    def __init__(self, features, size, latent_dim):
        super().__init__()
        self.features, self.middle = features, nn.Linear(size, latent_dim)

    def forward(self, x):
        return Independent(StudentT(1.0, self.middle(self.features(x))), 1)


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


@pytest.mark.parametrize(
    ("data", "settings"), [("digits", TrainConfig(3)), (None, 3), (None, {"latent_dim": 3})], ids=["name", "K", "table"]
)
def test_a_training_asks_for_a_data_set_and_settings(tiny, tmp_path, data, settings):
    with pytest.raises(ValueError, match=r"expected a data set.*TrainConfig\(latent_dim=...\), not .* and "):
        runs.train(data or tiny, settings, tmp_path)
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


def test_folders_can_be_given_as_text(trained):
    assert runs.load(str(trained.folder)).evaluation == trained.evaluation


def test_the_figures_of_a_run_are_read_without_its_builder_but_not_its_model(own):
    run = runs.load(own.folder, builder=None)
    assert run.evaluation == own.evaluation
    with pytest.raises(ValueError, match="was read without the function that built its model"):
        run.model()


def test_a_run_is_not_loaded_with_another_builder_than_its_own(trained):
    with pytest.raises(ValueError, match=r"that vaelib.models.build built, not vaelib.models.conv; give that function"):
        runs.load(trained.folder, models.conv)


@pytest.mark.parametrize("part", ["builder", "argument", "objective", "dataclass"])
def test_functions_whose_text_has_changed_are_noticed(tiny, tmp_path, monkeypatch, part):
    text = "from dataclasses import dataclass\nfrom vaelib.decoders import Bernoulli\nfrom vaelib.models import mlp\n"
    text += "from vaelib.objective import negative_elbo\n"
    text += "class Pixels(Bernoulli):\n    def forward(self, z):\n        return super().forward(z * 1)\n"
    text += "def builder(shape, k):\n    return mlp(shape, k)\n"
    text += "def objective(terms, fraction):\n    return negative_elbo(terms, fraction)\n"
    text += "@dataclass(frozen=True)\nclass Weighted:\n    weight: float = 1.0\n"
    text += "    def __call__(self, terms, fraction):\n        return negative_elbo(terms, self.weight)\n"
    place = {"builder": "mlp(shape, k)\n", "argument": "(z * 1)\n", "objective": "negative_elbo(terms, fraction)\n"}
    place["dataclass"] = "negative_elbo(terms, self.weight)\n"

    def train(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        spec = importlib.util.spec_from_file_location("somebodys", tmp_path / f"{name}.py")
        theirs = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "somebodys", theirs)  # where a dataclass looks for its module
        spec.loader.exec_module(theirs)
        functions = {
            "builder": {"builder": theirs.builder},
            "argument": {"builder": partial(models.mlp, decoder=theirs.Pixels)},
            "objective": {"objective": theirs.objective},
            "dataclass": {"objective": theirs.Weighted()},
        }
        return runs.train(tiny, TrainConfig(2, epochs=1), tmp_path / "runs", "cpu", **functions[part])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = train("one", text)
        assert train("same", text).evaluation == first.evaluation
    with pytest.warns(UserWarning, match="whose source code has changed"):
        train("other", text.replace(place[part], place[part].replace("\n", "  # otherwise\n")))


@pytest.mark.parametrize(
    ("seconds", "place"), [(0, "where it was last saved"), (1000, "the start, as nothing was saved")]
)
def test_a_stopped_training_says_from_where_it_goes_on(tiny, tmp_path, seconds, place):
    def stop(model, line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        runs.train(tiny, TrainConfig(2, epochs=2), tmp_path, "cpu", on_epoch=stop, checkpoint_seconds=seconds)
    assert stopped.value.__notes__ == [f"tiny-k2-e2-s0 was stopped; run this again, and it goes on from {place}"]
