"""The long trainings of the book: handed on from machine to machine, and published in the end."""

import gzip
from itertools import count

import pytest
from conftest import interrupt, same_runs

from book.experiments import long_runs
from vaelib import data, storage, training


def test_a_run_that_is_handed_on_ends_as_one_that_was_not_and_is_published(tmp_path, monkeypatch):
    monkeypatch.setattr(long_runs, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(long_runs, "TRAININGS", {"dreg5": (long_runs.DReG(5), 1)})
    digits, kept = data.load("digits"), tmp_path / "records" / "unfinished" / "dreg5-s10"

    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path / "whole"))
    whole = long_runs.train("dreg5", 10, digits)

    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path / "stopped"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.time, "monotonic", count(step=100).__next__)  # so that checkpoints are written
        interrupt(patch, training._State, "take_step", 60)
        long_runs.train("dreg5", 10, digits)
    kept.mkdir(parents=True)
    (stopped,) = (tmp_path / "stopped").glob("*/")
    for path in stopped.glob("[!.]*"):
        (kept / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))

    assert (kept / "checkpoint.gz").exists()
    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path / "other machine"))
    run = long_runs.train("dreg5", 10, digits)
    assert same_runs(run, whole)
    for folder in ("beyond", "fresh"):
        (tmp_path / "records" / folder).mkdir()
    long_runs.publish("dreg5", 10, run, digits, samples=20)
    record, estimates = long_runs.published("dreg5", 10, digits)
    assert record.evaluation["log_prob_samples"] == 20 and record.metrics == run.metrics
    assert record.evaluation["test_elbo"] < record.evaluation["log_prob"] < record.evaluation["test_elbo"] + 20
    assert estimates.mean().item() == pytest.approx(record.evaluation["log_prob"])
    weights = tmp_path / "records" / "beyond" / "burda-dreg5.safetensors"
    assert storage.load(weights, builder=run.builder).latent_dim == 50
    assert not kept.exists()
