"""The loops of `benchmark`, in short: they run on what every machine has, and a step is made of what the models are."""

import math

import benchmark
import pytest

CASES = {"digits": ("digits", 256, 64, 2, 1, 128), "faces": ("faces-small", 128, 32, 4, 1, 128)}
CASES["binary"] = ("digits", 256, 64, 50, 1, 20)
PAIRS = [(loop, case) for loop in ("memory", "tuned", "complete", "ours") for case in ("digits", "faces")]
PAIRS += [(loop, case) for loop in ("functions", "compiled") for case in ("binary", "digits")] + [("ours", "binary")]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "CASES", dict(CASES))
    monkeypatch.setattr(benchmark.torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(benchmark.torch, "set_flush_denormal", lambda _: True)  # it is of the whole process
    monkeypatch.setattr(benchmark.os, "sched_setaffinity", lambda *_: None, raising=False)  # and so is this


@pytest.mark.parametrize(("loop", "case"), PAIRS)
def test_every_loop_takes_all_steps(monkeypatch, loop, case):
    steps, step = [], benchmark.torch.optim.Adam.step
    monkeypatch.setattr(benchmark.torch.optim.Adam, "step", lambda self, *rest: steps.append(step(self, *rest)))
    assert getattr(benchmark, loop)(case, None) > 0
    assert len(steps) == math.ceil(CASES[case][1] / CASES[case][5])


def test_loops_take_turns_with_a_fifth_of_the_images_and_the_first_turn_does_not_count():
    turns = iter(range(24))

    def one(case, folder):
        turn = next(turns)
        assert benchmark.CASES[case] == ("digits", 51, 12, 2, 1, 128)
        return turn

    def other(case, folder):
        return one(case, folder)

    found = benchmark.turns("digits", None, [one, other])
    assert found == {"one": list(range(2, 24, 2)), "other": list(range(3, 24, 2))}


def test_the_authors_loop_gives_the_pixels_that_the_others_have():
    whole = benchmark.images("digits", None).train.images
    shown = benchmark.Photographs("digits", None)
    assert len(shown) == len(whole) == 256
    assert all((shown[n] == whole[n] / 255).all() for n in range(0, 256, 50))


@pytest.mark.parametrize(("case", "most"), [("digits", "matrix products"), ("faces", "convolutions")])
def test_a_step_is_mostly_what_its_model_is_made_of(case, most):
    shares = benchmark.parts(case)
    assert max(shares, key=shares.get) == most
    assert sum(shares.values()) == pytest.approx(1)
