"""The profiles, and the command line that trains them."""

import re
import subprocess
import sys

import pytest
import torch

from vaelib import __main__, runs
from vaelib.book import profiles
from vaelib.training import TrainConfig


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The trainings that the command line starts, as (data's name, settings, folder of runs, device); none is run."""
    trainings = []

    def train(dataset, settings, root, device):
        trainings.append((dataset.name, settings, root, device))
        folder = tmp_path / runs.name(dataset.name, settings)
        return runs.Run(folder, settings, {}, [], {"test_elbo": -100.0})

    monkeypatch.setattr(runs, "train", train)
    return trainings


def _command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["vaelib", *map(str, arguments)])
    __main__.main()


def _error(monkeypatch, capsys, *arguments):
    """The one line that the command line complains with."""
    with pytest.raises(SystemExit) as exit:
        _command(monkeypatch, *arguments)
    assert exit.value.code not in (0, None)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(("profile", "dataset"), [("quick", "digits"), ("paper", "mnist")])
def test_a_profile_names_data_and_what_to_train(profile, dataset):
    experiment = profiles.load(profile, "mnist")
    assert experiment.dataset == dataset
    assert experiment.dataset in ("mnist", "digits", "celeba", "faces", "faces-small")
    assert experiment.latent_dims == [1, 2, 4, 8, 16, 64]
    for schedule in (experiment.short, experiment.long):
        assert len(experiment.settings(schedule)) == len(schedule.seeds) * 6
    assert experiment.long.epochs > experiment.short.epochs


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (("seeds: [0, 1]", "seeds: 0"), "quick.mnist.short.seeds", "valid list, not 0"),
        (("seeds: [0, 1]", "seeds: []"), "quick.mnist.short.seeds", "at least 1 item"),
        (("seeds: [0, 1]", "seeds: [0, 0]"), "quick.mnist", "seed=0.* occurs 2 times"),
        (("{epochs: 15,", "{epohcs: 15,"), "quick.mnist.short.epohcs", "Unexpected keyword argument, not 15"),
        (("{epochs: 15,", "{epochs: 0,"), "quick.mnist.short.epochs", "greater than or equal to 1, not 0"),
        (("{epochs: 15,", "{epochs: 1.5,"), "quick.mnist.short.epochs", "valid integer, not 1.5"),
        (("    short: {epochs: 15, seeds: [0, 1]}\n", ""), "quick.mnist.short", "required"),
        (("    long: {epochs: 30", "    long: {epochs: 15"), "quick.mnist", "epochs=15, seed=0.* occurs 2 times"),
        (("[1, 2, 4, 8, 16, 64]", "[1, 2, 2]"), "quick.mnist", "latent_dim=2.* occurs 2 times"),
        (("[1, 2, 4, 8, 16, 64]", "[0]"), "quick.mnist.latent_dims.0", "greater than or equal to 1, not 0"),
        (("quick:", "nothing:\nquick:"), "nothing", "valid dictionary, not None"),
        (("quick:", "quick: ]"), "", "is no YAML"),
        (("quick:", "quick: 3\nother:"), "quick", "valid dictionary, not 3"),
    ],
)
def test_a_mistake_in_the_profiles_is_told_by_file_and_key(tmp_path, monkeypatch, capsys, change, where, what):
    text = profiles.PROFILES.read_text()
    assert change[0] in text
    (tmp_path / "profiles.yml").write_text(text.replace(*change, 1))
    monkeypatch.setattr(profiles, "PROFILES", tmp_path / "profiles.yml")
    message = _error(monkeypatch, capsys, "train", "mnist", "--profile", "quick")
    assert re.search(f"{re.escape(str(tmp_path / 'profiles.yml'))}.*{re.escape(where)}.*{what}", message), message
    assert [path.name for path in tmp_path.iterdir()] == ["profiles.yml"]


def test_a_long_training_that_a_profile_does_not_have_is_an_error(started, monkeypatch, capsys):
    for more in ((), ("--epochs", 1)):
        error = _error(monkeypatch, capsys, "train", "celeba", "--profile", "quick", "--long", *more)
        assert error.startswith("error: profile 'quick' has no long training of 'celeba'")
    assert started == []


def test_settings_go_through_the_latent_dimensions_seed_by_seed():
    schedule = profiles.Schedule(epochs=7, seeds=[3, 0])
    experiment = profiles.Experiment("digits", [1, 8], schedule)
    assert experiment.settings(schedule) == [
        TrainConfig(latent_dim=latent_dim, epochs=7, seed=seed) for seed, latent_dim in ((3, 1), (3, 8), (0, 1), (0, 8))
    ]


@pytest.mark.parametrize(("profile", "dataset", "smallest"), [("quick", "faces-small", 2), ("paper", "celeba", 2)])
def test_the_faces_have_a_profile_without_a_long_training(profile, dataset, smallest):
    experiment = profiles.load(profile, "celeba")
    assert experiment.dataset == dataset
    assert min(experiment.latent_dims) == smallest
    assert 64 in experiment.latent_dims
    assert experiment.settings(experiment.long) == []


def test_more_seeds_come_after_all_others():
    schedule = profiles.Schedule(epochs=7, seeds=[0], more_seeds={8: [1, 2]})
    settings = profiles.Experiment("digits", [1, 8], schedule).settings(schedule)
    assert [(each.latent_dim, each.seed) for each in settings] == [(1, 0), (8, 0), (8, 1), (8, 2)]


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown profile 'nope'; .*profiles.yml has: quick, paper"):
        profiles.load("nope", "mnist")


def test_an_unknown_experiment_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown experiment 'nope'; .* has: .*mnist"):
        profiles.load("quick", "nope")


def test_the_command_trains_all_of_a_profile(monkeypatch, capsys, started):
    _command(monkeypatch, "train", "mnist", "--profile", "quick")
    experiment = profiles.load("quick", "mnist")
    assert [settings for _, settings, _, _ in started] == experiment.settings(experiment.short)
    assert {(name, root, device) for name, _, root, device in started} == {("digits", None, None)}
    assert capsys.readouterr().out.splitlines()[0].startswith("digits-k1-e15-s0: test ELBO -100.00 nats, in ")


def test_the_command_trains_the_long_schedule(monkeypatch, started):
    _command(monkeypatch, "train", "mnist", "--profile", "quick", "--long")
    experiment = profiles.load("quick", "mnist")
    assert [settings for _, settings, _, _ in started] == experiment.settings(experiment.long)


def test_the_command_trains_what_its_options_say(monkeypatch, started, tmp_path):
    options = ["--latent-dim", 2, 3, "--seed", 0, 5, "--epochs", 8, "--runs", tmp_path, "--device", "cpu"]
    options += ["--precision", "bfloat16", "--block", 1280]
    _command(monkeypatch, "train", "mnist", "--profile", "quick", *options)
    chosen = {"precision": "bfloat16", "block": 1280}
    assert started == [
        ("digits", TrainConfig(latent_dim=latent_dim, epochs=8, seed=seed, **chosen), str(tmp_path), "cpu")
        for seed in (0, 5)
        for latent_dim in (2, 3)
    ]


def test_the_command_trains_and_evaluates(monkeypatch, capsys, tmp_path):
    options = ["--latent-dim", 2, "--seed", 0, "--epochs", 1, "--runs", tmp_path, "--device", "cpu"]
    _command(monkeypatch, "train", "mnist", "--profile", "quick", *options)
    run = runs.load(tmp_path / "digits-k2-e1-s0")
    assert run.config == TrainConfig(latent_dim=2, epochs=1)
    assert (
        capsys.readouterr().out
        == f"digits-k2-e1-s0: test ELBO {run.evaluation['test_elbo']:.2f} nats, in {run.folder}\n"
    )


def test_an_unknown_profile_is_one_line_on_standard_error():
    command = [sys.executable, "-m", "vaelib", "train", "mnist", "--profile", "nope"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert result.stdout == ""
    assert re.fullmatch(r"error: unknown profile 'nope'; .*profiles.yml has: quick, paper\n", result.stderr)


def test_an_unknown_experiment_is_one_line(monkeypatch, capsys, started):
    assert "unknown experiment 'nope'" in _error(monkeypatch, capsys, "train", "nope", "--profile", "quick")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--latent-dim", 0, "latent_dim must be a whole number of at least 1, not 0"),
        ("--epochs", 0, "epochs must be a whole number of at least 1, not 0"),
        ("--epochs", -1, "epochs must be a whole number of at least 1, not -1"),
        ("--seed", -1, "seed must be a whole number of at least 0, not -1"),
    ],
)
def test_an_impossible_option_is_one_line(monkeypatch, capsys, started, option, value, message):
    line = _error(monkeypatch, capsys, "train", "mnist", "--profile", "quick", option, value)
    assert line == f"error: {message}"
    assert started == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(monkeypatch, capsys, tmp_path):
    options = ["--profile", "quick", "--runs", tmp_path, "--device", "cuda"]
    assert "no GPU" in _error(monkeypatch, capsys, "train", "mnist", *options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_runs_that_cannot_be_made_is_one_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    options = ["--profile", "quick", "--runs", tmp_path / "file", "--device", "cpu"]
    assert str(tmp_path / "file") in _error(monkeypatch, capsys, "train", "mnist", *options)


def test_a_sweep_of_what_is_unknown_names_what_is_known(monkeypatch, capsys):
    error = _error(monkeypatch, capsys, "sweep", "mnsit")
    assert re.search("unknown .*'mnsit'; .* has: mnist, celeba", error)
