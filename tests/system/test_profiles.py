"""The profiles, and what a sweep says of those that are unknown."""

import re
import sys

import pytest

from book.machinery import __main__, profiles
from vaelib.training import TrainConfig


def test_settings_go_through_the_latent_dimensions_seed_by_seed_and_more_seeds_come_last():
    schedule = profiles.Schedule(epochs=7, seeds=[3, 0], more_seeds={8: [1, 2]})
    expected = [(1, 3), (8, 3), (1, 0), (8, 0), (8, 1), (8, 2)]
    settings = profiles.Experiment("digits", [1, 8], schedule).settings(schedule)
    assert settings == [TrainConfig(latent_dim, 7, seed) for latent_dim, seed in expected]


@pytest.mark.parametrize("mistaken", [([1, 1], 7, [0]), ([1], 7, [0, 0]), ([1], 7, [1, 0])])
def test_a_training_that_occurs_twice_is_told(mistaken):
    latent_dims, epochs, seeds = mistaken
    with pytest.raises(ValueError, match=r"trained once, but these occur again: .*latent_dim=1, epochs=7, seed=0"):
        profiles.Experiment("digits", latent_dims, profiles.Schedule(epochs, seeds), profiles.Schedule(7, [0]))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("mnsit",), "'mnsit'; known here: mnist, celeba, faces"),
        (("mnist", "--profile", "nope"), "'nope'; known here: quick, paper; see .*profiles.py"),
    ],
)
def test_a_sweep_of_what_is_unknown_names_what_is_known(monkeypatch, capsys, arguments, told):
    monkeypatch.setattr(sys, "argv", ["machinery", "sweep", *arguments])
    monkeypatch.setattr("os.environ", dict(__import__("os").environ))
    with pytest.raises(SystemExit):
        __main__.main()
    assert re.fullmatch(f"error: unknown profile or experiment {told}.*\n", capsys.readouterr().err)
