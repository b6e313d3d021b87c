"""The checks of `benchmark_device`: on a GPU where there is one, and in short on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import benchmark_device
import pytest
import torch

GPUS = {"cuda": torch.cuda.is_available, "mps": torch.mps.is_available}
gpu = pytest.mark.parametrize(
    "device",
    [
        pytest.param(kind, marks=[pytest.mark.gpu, pytest.mark.skipif(not there(), reason=f"there is no {kind} here")])
        for kind, there in GPUS.items()
    ],
)


@gpu
def test_published_weights_are_worth_on_a_gpu_what_they_are_on_the_cpu(device):
    found = benchmark_device.weights(torch.device(device))
    assert all(check["passed"] for check in found.values()), found


@gpu
def test_a_training_on_a_gpu_is_resumed(device, tmp_path):
    assert benchmark_device.resuming(torch.device(device), tmp_path)["passed"]


@gpu
def test_a_gpu_with_too_little_memory_is_told_with_what_to_make_smaller(device, tmp_path):
    assert benchmark_device.memory(torch.device(device), tmp_path)["passed"] is not False


def test_a_resumed_training_on_the_cpu_has_the_same_bits(tmp_path):
    assert benchmark_device.resuming(torch.device("cpu"), tmp_path)["same bits"]


def test_the_benchmark_of_a_device_runs_in_short_on_the_cpu(tmp_path):
    script, output = Path(benchmark_device.__file__), tmp_path / "benchmark.json"
    command = [sys.executable, script, "--device", "cpu", "--short", "--output", output]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    result = json.loads(output.read_text())
    assert len(result["trainings"]) == 12 and len(result["images a second"]) == 4 and len(result["profile"]) == 2
    assert {check["passed"] for check in result["checks"].values()} == {True, None}
