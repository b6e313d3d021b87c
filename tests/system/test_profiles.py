"""The profiles, and the command line that trains them."""

import re
import sys

import pytest

from book.machinery import __main__, profiles
from vaelib.training import TrainConfig


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
    message = _error(monkeypatch, capsys, "sweep", "mnist", "--profile", "quick")
    assert re.search(f"{re.escape(str(tmp_path / 'profiles.yml'))}.*{re.escape(where)}.*{what}", message), message
    assert [path.name for path in tmp_path.iterdir()] == ["profiles.yml"]


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


def test_a_sweep_of_what_is_unknown_names_what_is_known(monkeypatch, capsys):
    error = _error(monkeypatch, capsys, "sweep", "mnsit")
    assert re.search("unknown .*'mnsit'; .* has: mnist, celeba", error)
