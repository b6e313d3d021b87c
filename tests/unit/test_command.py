"""Training from the command line."""

import os
import re
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest

from vaelib import TrainConfig, __main__, data, runs


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The trainings that the command line starts, as (data's name, settings, folder of runs, device); none is run."""
    trainings = []

    def train(dataset, settings, root, device, stream):
        trainings.append((dataset.name, settings, root, device))
        folder = tmp_path / runs.name(dataset.name, settings)
        return runs.Run(folder, settings, {}, [], {"test_elbo": -100.0})

    monkeypatch.setattr(runs, "train", train)
    return trainings


def _command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["vaelib", *map(str, arguments)])
    __main__.main()


def test_the_command_trains_what_its_options_say(monkeypatch, started, tmp_path):
    options = ["--latent-dim", 2, 3, "--seed", 0, 5, "--epochs", 8, "--runs", tmp_path, "--device", "cpu"]
    options += ["--precision", "bfloat16", "--batch-size", 64, "--learning-rate", 0.01]
    _command(monkeypatch, "train", "digits", *options)
    chosen = {"precision": "bfloat16", "batch_size": 64, "learning_rate": 0.01}
    assert started == [
        ("digits", TrainConfig(latent_dim=latent_dim, epochs=8, seed=seed, **chosen), str(tmp_path), "cpu")
        for seed in (0, 5)
        for latent_dim in (2, 3)
    ]


def test_the_command_loads_from_the_folder_and_as_it_is_told(monkeypatch, started):
    loaded = []
    monkeypatch.setattr(data, "load", lambda *given: loaded.append(given) or SimpleNamespace(name="celeba"))
    _command(monkeypatch, "train", "celeba", "--latent-dim", 2, "--data", "here", "--skip-damaged")
    _command(monkeypatch, "train", "celeba", "--latent-dim", 2)
    assert loaded == [("celeba", "here", True), ("celeba", None, False)] and len(started) == 2


def test_without_options_the_command_trains_as_the_package_does(monkeypatch, started):
    _command(monkeypatch, "train", "digits", "--latent-dim", 2)
    assert started == [("digits", TrainConfig(latent_dim=2), None, None)]


def test_the_command_trains_and_evaluates(monkeypatch, capsys, tmp_path):
    options = ["--latent-dim", 2, "--epochs", 1, "--runs", tmp_path, "--device", "cpu"]
    _command(monkeypatch, "train", "digits", *options)
    run = runs.load(tmp_path / "digits-k2-e1-s0")
    assert run.config == TrainConfig(latent_dim=2, epochs=1)
    told = f"digits-k2-e1-s0: test ELBO {run.evaluation['test_elbo']:.2f} nats, in {run.folder}\n"
    assert capsys.readouterr().out == told


def test_a_closed_pipe_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = ["env", "-u", "PYTHONUNBUFFERED", sys.executable, "-m", "vaelib", "--version"]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_unknown_data_are_one_line_on_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vaelib", "train", "nope", "--latent-dim", "2"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("vaelib", run_name="__main__")  # as python -m vaelib does
    told = capsys.readouterr()
    assert exit.value.code == 1 and told.out == ""
    assert re.fullmatch(r"error: .*'nope'.*digits.*\n", told.err)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--latent-dim", 0, "latent_dim must be a whole number of at least 1 and below 2**31, not 0"),
        ("--seed", -1, "seed must be a whole number of at least 0 and below 2**31, not -1"),
        ("--data", ".", "digits comes with the package, so it can't be read from a folder; omit --data"),
        ("--device", "xpu", "the device is 'xpu', but torch finds 'cpu'"),
        ("--runs", "file", "cannot be made or locked"),
    ],
)
def test_an_impossible_option_is_one_line(monkeypatch, capsys, tmp_path, option, value, message):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        _command(monkeypatch, "train", "digits", "--latent-dim", 2, option, value)
    assert exit.value.code not in (0, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
