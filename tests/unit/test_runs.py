"""Runs on disk: the same wherever they were interrupted, complete or refused."""

import copy
import json
import math
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import cache, partial
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import flipped, interrupt, same_runs, stop_after
from torch import nn
from torch.distributions import Independent, StudentT
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, MultiStepLR

from vaelib import TrainConfig, burda, data, evaluation, files, models, objective, priors, runs, storage, training
from vaelib.data import Dataset, Split, images

FILES = ["model.safetensors", "run.json"]


def _names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def _copy(run, root):
    """The same run in another folder of runs, to be damaged there."""
    return shutil.copytree(run.folder, root / run.folder.name)


def _without(record, *keys):
    return {key: value for key, value in record.items() if key not in keys}


def _unfinished(run, root, weights=True):
    """A run as it is before its evaluation, or before its weights are written."""
    folder = _copy(run, root)
    record = run.record | {"metrics": run.metrics} if weights else _without(run.record, "weights")
    (folder / "config.json").write_text(json.dumps(record | {"sha256": runs._checksum(record)}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in run.metrics))
    (folder / "run.json").unlink()
    if not weights:
        (folder / "model.safetensors").unlink()
    return folder


def _old(run, root, sums=True):
    """A complete run as version 0.1.0 left it."""
    folder = _unfinished(run, root)
    (folder / "config.json").write_text(json.dumps(_without(run.record, "weights", "meaning")))
    (folder / "evaluation.json").write_text(json.dumps(run.evaluation))
    if sums:
        names = ["config.json", "metrics.jsonl", "evaluation.json", "model.safetensors"]
        checked = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, text=True, check=True)
        (folder / "SHA256SUMS").write_text(checked.stdout)
    return folder


def _often_saved(patch):
    """After every second step: by a clock that stands still, since what writing takes puts off the next checkpoint."""
    patch.setattr(training, "CHECK_EVERY", 2)
    patch.setattr(training, "time", SimpleNamespace(monotonic=lambda: 0.0))
    patch.setattr(runs, "train", partial(runs.train, checkpoint_seconds=0))


def _refuse(*_, **__):
    raise AssertionError("nothing is left to be done")


# What a run is


def test_a_runs_name_tells_data_and_settings():
    assert runs.name("mnist", TrainConfig(latent_dim=16, epochs=100, seed=3)) == "mnist-k16-e100-s3"
    assert runs.name("mnist", TrainConfig(2, learning_rate=1e-4, batch_size=64)) == "mnist-k2-e10-s0-b64-r0.0001"


def test_a_complete_run_has_its_files_and_a_record_of_settings_data_and_versions(trained, tiny):
    assert _names(trained.folder) == FILES
    assert trained.folder.name == "tiny-k2-e3-s0-b32" and runs.is_complete(trained.folder)
    record = json.loads((trained.folder / "run.json").read_text())
    assert {key: record[key] for key in trained.record} == trained.record
    assert record["settings"] == asdict(trained.config) and record["meaning"] == ""
    data = {"name": "tiny", "fingerprint": tiny.fingerprint, "image_shape": [1, 7, 7], "origin": tiny.origin}
    assert record["data"] == data
    assert record["environment"]["torch"] == version("torch") and record["environment"]["device"].startswith("CPU")
    assert record["environment"]["float32_matmul_precision"] == torch.get_float32_matmul_precision()
    assert record["metrics"] == trained.metrics and record["evaluation"] == trained.evaluation


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
    assert runs.train_all(tiny, settings[0], tmp_path)[3][0].config == settings[0]


@pytest.mark.parametrize("name", ["run.json", "model.safetensors", "checkpoint", "metrics.jsonl", "config.json"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_training(tiny, tmp_path, name):
    (tmp_path / runs.name("tiny", TrainConfig(1, 1)) / name).mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=f"{name} is a folder, but a run has a file there"):
        runs.train(tiny, TrainConfig(1, 1), tmp_path, "cpu")


# Always the same


def test_a_run_neither_uses_nor_changes_the_global_random_state(trained, tiny, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        before = torch.get_rng_state()
        run = runs.train(tiny, trained.config, tmp_path, "cpu")
        assert torch.equal(torch.get_rng_state(), before)
    assert same_runs(run, trained)


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
        interrupt(patch, module, name, call)
        with pytest.raises(KeyboardInterrupt) as stopped:
            runs.train(tiny, trained.config, tmp_path, "cpu")
        if (module, name) != (runs, "load"):  # then all was done
            again = (
                "resume from its last"
                if [*tmp_path.glob("*/checkpoint"), *tmp_path.glob("*/*.safetensors")]
                else "start"
            )
            assert f"run this again to {again}" in "".join(stopped.value.__notes__)
    assert not list(tmp_path.rglob("*.part"))
    run = runs.train(tiny, trained.config, tmp_path, "cpu")
    assert same_runs(run, trained)
    assert _names(run.folder) == FILES


def test_a_run_interrupted_again_and_again_goes_on_as_if_it_had_not_been(trained, tiny, tmp_path, monkeypatch):
    _often_saved(monkeypatch)
    for _ in range(3):
        with monkeypatch.context() as patch:
            interrupt(patch, training._State, "take_step", 5)
            with pytest.raises(KeyboardInterrupt):
                runs.train(tiny, trained.config, tmp_path, "cpu")
    assert same_runs(runs.train(tiny, trained.config, tmp_path, "cpu"), trained)


def test_leftovers_of_a_killed_process_are_cleared_away(trained, tiny, tmp_path):
    folder = tmp_path / trained.folder.name
    folder.mkdir()
    for name in ("checkpoint.1.part", "metrics.jsonl.1.part", "config.json.1.part"):
        (folder / name).write_bytes(b"half a file")
    runs.train(tiny, trained.config, tmp_path, "cpu")
    assert _names(folder) == FILES


# What is there already


def test_a_complete_run_is_not_trained_again(trained, tiny, monkeypatch):
    for module, name in ((training, "fit"), (evaluation, "evaluate"), (files, "write")):
        monkeypatch.setattr(module, name, _refuse)
    assert runs.train(tiny, trained.config, trained.folder.parent, "cpu") == trained


def test_a_trained_run_without_its_evaluation_is_only_evaluated(trained, tiny, tmp_path, monkeypatch):
    folder = _unfinished(trained, tmp_path)
    assert not runs.is_complete(folder)
    monkeypatch.setattr(training, "fit", _refuse)
    run = runs.train(tiny, trained.config, tmp_path, "cpu")
    assert run.evaluation == trained.evaluation and _names(folder) == FILES
    assert [place.keys() for place in run.record["resumed"]] == [trained.record["environment"].keys()]


def test_a_bit_of_the_metrics_that_changed_before_the_evaluation_is_not_recorded(trained, tiny, tmp_path):
    path = _unfinished(trained, tmp_path) / "metrics.jsonl"
    path.write_bytes(re.sub(rb"[1-8](?=\d*, .test_kl)", b"9", path.read_bytes(), count=1))
    assert same_runs(runs.train(tiny, trained.config, tmp_path, "cpu"), trained)


def test_another_default_type_of_tensors_makes_another_run(tiny, trained):
    torch.set_default_dtype(torch.float64)
    try:
        run = runs.train(tiny, trained.config, trained.folder.parent, "cpu")
        assert run.model().sample(2).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert run.folder.name == f"{trained.folder.name}-float64" and run.evaluation != trained.evaluation


def test_a_run_that_another_process_is_training_is_refused(trained, tiny, tmp_path):
    folder = _unfinished(trained, tmp_path)
    with files.locked(folder), pytest.raises(RuntimeError, match="in use by another process"):
        runs.train(tiny, trained.config, tmp_path)


def test_a_run_whose_folder_was_moved_and_begun_by_another_writes_nothing_more(trained, tiny, tmp_path):
    def move(model, line):
        folder.rename(tmp_path / "moved")
        _unfinished(trained, tmp_path, weights=False)

    folder = tmp_path / trained.folder.name
    with pytest.raises(RuntimeError, match=f"{re.escape(str(folder))} was moved away and made again"):
        runs.train(tiny, trained.config, tmp_path, "cpu", on_epoch=move, checkpoint_seconds=0)
    assert _names(folder) == ["config.json", "metrics.jsonl"]


def test_a_run_whose_weights_were_deleted_is_trained_and_evaluated_again(trained, tiny, tmp_path, monkeypatch):
    folder = _copy(trained, tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(KeyboardInterrupt):
        runs.train(tiny, trained.config, tmp_path, on_epoch=stop_after(1))
    assert runs.load(folder).evaluation == trained.evaluation  # the record stays until there are other weights
    with monkeypatch.context() as patch:
        interrupt(patch, evaluation, "evaluate", 1)
        with pytest.raises(KeyboardInterrupt):
            runs.train(tiny, trained.config, tmp_path)
    assert not runs.is_complete(folder)  # the old figures are gone
    assert same_runs(runs.train(tiny, trained.config, tmp_path), trained)


@pytest.mark.parametrize(("setting", "value"), [("learning_rate", 0.01), ("batch_size", 64)])
@pytest.mark.parametrize("state", [_copy, _unfinished, _old])
def test_a_run_with_other_settings_than_its_name_says_is_refused_and_left_alone(
    trained, tiny, tmp_path, setting, value, state
):
    other = replace(trained, record=trained.record | {"settings": trained.record["settings"] | {setting: value}})
    folder = state(other, tmp_path)
    if state is _copy:
        (folder / "run.json").write_text(other.dumps())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = getattr(trained.config, setting)
    with pytest.raises(ValueError, match=f"{re.escape(str(folder))} holds a run with {setting} {value}, not {found}"):
        runs.train(tiny, trained.config, tmp_path, "cpu")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_precision_that_was_asked_for_is_recorded_and_in_the_folders_name(trained, tiny, tmp_path):
    run = runs.train(tiny, replace(trained.config, precision="bfloat16"), tmp_path, "cpu")
    assert run.folder.name == f"{trained.folder.name}-bfloat16"
    assert run.record["settings"]["precision"] == "bfloat16" and run.config.precision == "bfloat16"
    assert run.metrics != trained.metrics


def test_a_record_from_before_there_was_a_choice_of_precision_or_block_is_that_of_the_same_run(trained, tiny, tmp_path):
    settings = {key: value for key, value in asdict(trained.config).items() if value is not None}
    other = replace(trained, record=trained.record | {"settings": settings})
    (_copy(trained, tmp_path) / "run.json").write_text(other.dumps())
    assert runs.train(tiny, trained.config, tmp_path, "cpu").evaluation == trained.evaluation


@pytest.mark.parametrize("sums", [True, False])
def test_a_complete_run_of_version_0_1_0_is_read_and_left_as_it_is(trained, tiny, tmp_path, sums):
    folder = _old(trained, tmp_path, sums)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert same_runs(runs.train(tiny, trained.config, tmp_path, "cpu"), trained)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "evaluation.json", "model.safetensors"])
def test_a_bit_of_a_run_of_version_0_1_0_that_was_changed_is_noticed(trained, tmp_path, name):
    path = _old(trained, tmp_path) / name
    path.write_bytes(flipped(path.read_bytes(), -3))  # a digit becomes another
    with pytest.raises(ValueError, match=f"{re.escape(str(path.parent))}(/{name} is damaged| is damaged.*{name})"):
        runs.load(path.parent)


@pytest.mark.parametrize("name", ["run.json", "config.json"])
@pytest.mark.parametrize("key", ["sha25x", None])
def test_a_record_whose_checksum_has_another_name_or_none_is_damaged(trained, tiny, tmp_path, name, key):
    path = _copy(trained, tmp_path) / "run.json"
    content = json.loads(path.read_text())
    checksum = content.pop("sha256")
    path.unlink()
    path = path.with_name(name)
    path.write_text(json.dumps(content | ({key: checksum} if key else {})))
    with pytest.raises(ValueError, match=f"{path} is damaged.*its checksum does not match"):
        runs.train(tiny, trained.config, tmp_path, "cpu")


def test_a_run_with_other_data_is_refused(trained, tiny, tmp_path):
    folder = _copy(trained, tmp_path)
    images = tiny.train.images.clone()
    images[0, 0, 0, 0] += 1
    other = Dataset("tiny", Split(images, tiny.train.labels), tiny.test, tiny.names)
    with pytest.raises(ValueError, match=f"{re.escape(str(folder))} .* fingerprint .*{tiny.fingerprint}"):
        runs.train(other, trained.config, tmp_path, "cpu")


def test_damaged_weights_are_not_evaluated(trained, tiny, tmp_path):
    weights = _unfinished(trained, tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=re.escape(str(weights))):
        runs.train(tiny, trained.config, tmp_path, "cpu")


def test_weights_of_another_run_are_refused(trained, tiny, tmp_path):
    other = runs.train(tiny, replace(trained.config, seed=1), tmp_path, "cpu")
    shutil.copy(trained.folder / "model.safetensors", other.folder)
    with pytest.raises(ValueError, match=r"model.safetensors is damaged, or of another run: its checksum"):
        other.model()


# Loading what is not whole


def test_an_unfinished_run_is_not_called_damaged(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not finished; `train` resumes it"):
        runs.load(_unfinished(trained, tmp_path, weights=False))


def test_a_run_of_a_newer_version_is_left_to_that_version(trained, tiny, tmp_path):
    settings = trained.record["settings"] | {"weight_decay": 0.1}
    folder = _unfinished(replace(trained, record=trained.record | {"settings": settings}), tmp_path)
    with pytest.raises(ValueError, match=r"written by another version of vaelib .*weight_decay.* use that version"):
        runs.train(tiny, trained.config, tmp_path, "cpu")
    assert runs.files.exists(folder / "model.safetensors")


def test_a_record_has_figures_but_no_model(trained, tmp_path):
    path = tmp_path / "beta=1.0.json"
    path.write_text(trained.dumps())
    for given in (path, str(path), tmp_path / "beta=1.0"):
        run = runs.load(given)
        assert (run.folder.name, run.metrics, run.evaluation) == ("beta=1.0", trained.metrics, trained.evaluation)
    with pytest.raises(FileNotFoundError, match=r"model.safetensors doesn't exist: a record alone has .* not its we"):
        run.model()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "nothing"))):
        runs.load(tmp_path / "nothing")
    assert not runs.is_complete(tmp_path / "nothing")


def test_figures_that_are_no_numbers_are_named(tiny, tmp_path):
    with pytest.raises(
        ValueError, match=r"is trained, .* its .*reconstruction_error.* is not finite, so there is no record"
    ):
        runs.train(tiny, TrainConfig(3, epochs=1), tmp_path, "cpu", builder=partial(models.mlp, encoder=_Heavy))


DAMAGE = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "no text": lambda content: b"\xff" + content,
    "no table": lambda content: b"[]",
    "nested": lambda content: b"[" * 100_000,
    "a digit": lambda content: re.sub(rb"[1-8]", lambda digit: b"%d" % (int(digit[0]) + 1), content, count=1),
    "no settings": lambda content: b'{"data": {}, "metrics": [], "evaluation": {}}',
    "no K": lambda content: b'{"settings": {}, "data": {}, "metrics": [], "evaluation": {}}',
    "K = 0": lambda content: b'{"settings": {"latent_dim": 0}, "data": {}, "metrics": [], "evaluation": {}}',
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(("name", "state"), [("run.json", _copy), ("config.json", _unfinished)])
def test_a_damaged_record_is_refused_by_name(trained, tiny, tmp_path, name, state, damage):
    path = state(trained, tmp_path) / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(path.parent))):
        runs.train(tiny, trained.config, tmp_path, "cpu")


def test_metrics_that_lack_an_epoch_are_refused_by_name(trained, tmp_path):
    path = tmp_path / "short.json"
    path.write_text(replace(trained, metrics=trained.metrics[:-1]).dumps())
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}/short is damaged: 2 epochs, not 3"):
        runs.load(path)


# Nothing recorded that is not so


def test_threads_that_train_at_once_get_what_they_would_get_one_after_the_other(tiny, tmp_path):
    settings = [TrainConfig(latent_dim, epochs=1, seed=latent_dim) for latent_dim in (1, 2, 3)]
    with ThreadPoolExecutor(3) as executor:
        together = list(executor.map(lambda each: runs.train(tiny, each, tmp_path / "together", "cpu"), settings))
    for run, each in zip(together, settings, strict=True):
        assert same_runs(run, runs.train(tiny, each, tmp_path / "alone", "cpu"))


def test_a_test_split_of_one_image_is_refused_before_anything_is_written(tiny, tmp_path):
    one = Dataset("one", tiny.train, Split(tiny.test.images[:1], tiny.test.labels[:1]), tiny.names)
    with pytest.raises(ValueError, match="test split has one image"):
        runs.train(one, TrainConfig(latent_dim=1), tmp_path, "cpu")
    assert list(tmp_path.iterdir()) == []


# Functions of one's own


def with_dropout(image_shape, latent_dim):
    model = models.mlp(image_shape, latent_dim)
    model.encoder.features.append(torch.nn.Dropout(0.2))
    return model


def compiled(image_shape, latent_dim):
    return torch.compile(models.mlp(image_shape, latent_dim), backend="eager")


def annealed(terms, fraction):
    return fraction * terms.divergence - terms.reconstruction


OWN = {"builder": with_dropout, "objective": annealed, "schedule": partial(ExponentialLR, gamma=0.5)}


@pytest.fixture(scope="module")
def own(tiny, tmp_path_factory):
    """A run of three functions that are not the paper's."""
    return runs.train(tiny, TrainConfig(2, epochs=3, batch_size=32), tmp_path_factory.mktemp("own"), "cpu", **OWN)


def test_the_record_and_the_folder_name_functions_that_are_not_the_papers(own):
    here, schedule = __name__, "torch.optim.lr_scheduler.ExponentialLR(gamma=0.5)"
    functions = {"builder": f"{here}.with_dropout", "objective": f"{here}.annealed", "schedule": schedule}
    assert own.record["functions"] == functions | {"optimizer": None}
    meaning = own.record["meaning"][:8]
    assert own.folder.name == f"tiny-k2-e3-s0-b32-with_dropout-annealed-ExponentialLR_gamma=0.5-{meaning}"
    assert own.folder.name == runs.name("tiny", own.config, *OWN.values())


def test_a_run_of_functions_of_ones_own_is_loaded_with_its_builder(own):
    assert runs.load(own.folder, with_dropout) == own
    assert [type(part) for part in own.model().encoder.features][-1] is torch.nn.Dropout
    for other in (None, models.build, models.conv):
        run = runs.load(own.folder, other)
        assert run.evaluation == own.evaluation
        with pytest.raises(ValueError, match=r"with_dropout built, not vaelib.*; give that function as `builder`"):
            run.model()


def test_a_compiled_model_trains_and_is_saved_as_what_it_is(trained, tiny, tmp_path):
    run = runs.train(tiny, trained.config, tmp_path, "cpu", builder=compiled)
    plain = models.mlp(tiny.image_shape, 2)
    plain.load_state_dict(models.unwrap(run.model()).state_dict())
    assert all(map(torch.equal, plain.parameters(), trained.model().parameters()))


@pytest.mark.parametrize(
    "change",
    [
        nn.Module.half,
        lambda model: model.encoder.mean.weight.data.mul_(0.5),
        lambda model: model.requires_grad_(False),
        lambda model: model.to("meta"),
        lambda model: model.encoder.register_forward_hook(lambda *_: None),
        lambda model: model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True),  # which nothing trains
        lambda _: os.chdir("/"),
    ],
)
def test_on_epoch_may_change_its_copy_of_the_model_and_the_folder(trained, tiny, tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    run = runs.train(tiny, trained.config, "runs", "cpu", on_epoch=lambda model, line: change(model))
    assert run.folder.parent == tmp_path / "runs" and same_runs(run, trained)


def test_an_epoch_after_which_on_epoch_raises_is_saved(trained, tiny, tmp_path):
    seen = []

    def prune(model, line):
        seen.append(line["epoch"])
        raise LookupError

    for _ in range(3):
        with pytest.raises(LookupError):
            runs.train(tiny, trained.config, tmp_path, "cpu", on_epoch=prune, checkpoint_seconds=100)
    assert seen == [1, 2, 3]
    assert same_runs(runs.train(tiny, trained.config, tmp_path, "cpu"), trained)


def numbered(epoch):
    return np.float64(0.5)


class Stateful(LambdaLR):
    def state_dict(self):
        return super().state_dict() | {"last": np.float64(1)}


def test_a_state_that_could_not_be_read_again_is_told_before_it_is_needed(tiny, tmp_path):
    schedule = partial(Stateful, lr_lambda=numbered)
    with pytest.raises(ValueError, match=r"cannot be read again.*by float"):
        runs.train(tiny, TrainConfig(2, epochs=1), tmp_path, "cpu", schedule=schedule, checkpoint_seconds=0)


@cache
def same(image_shape, latent_dim):
    return models.mlp(image_shape, latent_dim)


BIAS = torch.zeros(512)


def same_numbers(image_shape, latent_dim):
    model = models.mlp(image_shape, latent_dim)
    model.encoder.features[1].bias = nn.Parameter(BIAS)  # another parameter of the same numbers
    return model


@pytest.mark.parametrize("builder", [same, same_numbers])
def test_a_builder_that_gives_one_model_twice_is_refused(builder, tiny, tmp_path):
    with pytest.raises(ValueError, match=f"{builder.__name__} must build a new model"):
        runs.train(tiny, TrainConfig(2, epochs=1), tmp_path, "cpu", builder=builder)
    assert not list(tmp_path.iterdir())


def test_training_within_autocast_is_refused(tiny, tmp_path):
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=r"within torch\.autocast"):
        runs.train(tiny, TrainConfig(2, epochs=1), tmp_path, "cpu")


@pytest.mark.parametrize("codec", ["utf-8", "ascii"])
def test_a_run_has_the_same_folder_in_every_locale(codec, monkeypatch):
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode(codec, "surrogateescape"))
    monkeypatch.setattr(os, "fsdecode", lambda content: content.decode(codec, "surrogateescape"))
    name = runs.name(images._plain(os.fsdecode("écrit à la main 🖋".encode())), TrainConfig(2))
    assert os.fsencode(name).decode() == "écrit-à-la-main2abb4647-k2-e10-s0"


def test_a_long_name_is_shortened_and_tells_all_the_same():
    config = TrainConfig(latent_dim=2)
    names = [runs.name("x" * 190, config, schedule=partial(MultiStepLR, milestones=(1, last))) for last in (2, 3)]
    assert len(set(names)) == 2 and all(len(name.encode()) <= 200 for name in names)


def test_names_tell_the_sign_of_an_argument_and_not_how_a_number_was_written():
    settings = TrainConfig(latent_dim=2)
    near = [TrainConfig(2, learning_rate=1e-3 * (1 + n * 1e-9), batch_size=10**6 + n) for n in (1, 2)]
    assert len({runs.name("tiny", each) for each in near}) == 2
    less, more = (runs.name("tiny", settings, objective=partial(_scaled, by)) for by in (-1, 1))
    assert "scaled_-1-" in less and "scaled_1-" in more
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
        runs.load(run.folder, builders[1]).model()


def test_tags_are_kept_from_the_start_and_make_no_other_run(trained, tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, training._State, "take_step", 3)
        with pytest.raises(KeyboardInterrupt):
            runs.train(tiny, trained.config, tmp_path, "cpu", tags={"rules": "first"})
    run = runs.train(tiny, trained.config, tmp_path, "cpu", tags={"rules": "later"})
    assert run.record["tags"] == {"rules": "first"}
    assert same_runs(run, trained)


def _scaled(by, terms, fraction):
    return by * objective.negative_elbo(terms, fraction)


def test_a_tiny_training_ends_where_it_always_did(trained):
    """As version 0.1.0 left it, up to what another processor may change."""
    figures = {"test_elbo": -21.931736, "train_elbo": -21.295904, "test_kl": 0.0082777, "log_prob": -21.505608}
    assert {key: trained.evaluation[key] for key in figures} == pytest.approx(figures, rel=1e-5)


# Devices


MISSING = [kind for kind in ("cuda", "mps") if not torch.get_device_module(kind).is_available()]


@pytest.mark.parametrize("device", ["gpu", "meta", "xpu:0", *MISSING])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tiny, tmp_path, device):
    with pytest.raises(RuntimeError, match=f"the device is '{device}', but torch finds 'cpu'.* here; choose one"):
        runs.train(tiny, TrainConfig(latent_dim=2), tmp_path, device)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_nvidias_gpu_the_cpu_is_taken_and_apples_only_if_asked_for(monkeypatch):
    assert runs.choose_device() == torch.device("cpu")
    monkeypatch.setattr(torch.mps, "is_available", lambda: True)
    assert runs.choose_device() == torch.device("cpu")
    assert runs.choose_device("mps") == torch.device("mps")


def _too_large(terms, fraction):
    if terms.log_prior.numel() > 2:  # for the two images that are checked before there is enough
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return objective.negative_elbo(terms, fraction)


def test_a_device_with_too_little_memory_is_told_with_what_to_make_smaller(tiny, tmp_path):
    with pytest.raises(RuntimeError, match=r"cpu has too little memory for tiny.*make batch_size \(128\) smaller"):
        runs.train(tiny, TrainConfig(latent_dim=2), tmp_path, "cpu", objective=_too_large)


class _Heavy(nn.Module):
    """A posterior that can be sampled, and has no mean."""

    def __init__(self, features, size, latent_dim):
        super().__init__()
        self.features, self.middle = features, nn.Linear(size, latent_dim)

    def forward(self, x):
        return Independent(StudentT(1.0, self.middle(self.features(x))), 1)


@pytest.mark.parametrize(
    "wrong",
    [{"data": "digits"}, {"config": 3}, {"config": {"latent_dim": 3}}, {"name": 5}, {"tags": ["a"]}, {"on_epoch": 3}],
    ids=str,
)
def test_a_training_asks_for_a_data_set_and_settings_and_texts(tiny, tmp_path, wrong):
    ((key, value),) = wrong.items()
    found = f"{key} must be a .*, such as .*, not a {type(value).__name__}"
    with pytest.raises(ValueError, match=found):
        runs.train(**{"data": tiny, "config": TrainConfig(3), "root": tmp_path} | wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "use", [partial(runs.load), lambda root: runs.train(data.load("digits"), TrainConfig(3), root)]
)
def test_a_home_folder_that_is_not_there_is_named(use):
    with pytest.raises(OSError, match="the home folder in ~nobody-of-this-name/runs is unknown; name a folder without"):
        use("~nobody-of-this-name/runs")


def _no_vae(image_shape, latent_dim):
    return torch.nn.Linear(3, 3)


class _Making:
    def build(self, image_shape, latent_dim):
        return models.mlp(image_shape, latent_dim)


NO_NAME = "lambda.* can't be recorded by name.*; define it by `def` at the top level"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"builder": lambda *_: None}, NO_NAME),
        ({"objective": lambda *_: None}, NO_NAME),
        ({"schedule": lambda _: None}, NO_NAME),
        (
            {"builder": partial(models.mlp, prior=priors.Standard(3))},
            "an object of Standard> can't be recorded by name",
        ),
        ({"builder": models.mlp((1, 7, 7), 3)}, "an object of VAE> can't be recorded by name"),
        ({"builder": _Making().build}, "_Making.build can't be recorded by name"),
        ({"builder": _no_vae}, "the builder must build a vaelib.models.VAE, not a Linear"),
    ],
)
def test_a_function_of_a_wrong_kind_is_refused_before_anything_is_written(tiny, tmp_path, own, message):
    with pytest.raises(ValueError, match=message):
        runs.train(tiny, TrainConfig(3, epochs=1), tmp_path, "cpu", **own)
    assert not list(tmp_path.iterdir())


def test_images_that_change_while_they_are_trained_on_give_no_run(tiny, trained, tmp_path):
    data = replace(tiny, train=Split(tiny.train.images.clone(), tiny.train.labels))

    def blacken(model, line):
        data.train.images.zero_()

    with pytest.raises(ValueError, match=r"of 'tiny' changed while .* was trained on them"):
        runs.train(data, trained.config, tmp_path, "cpu", on_epoch=blacken)
    assert not list(tmp_path.rglob("model.safetensors"))
