"""The checks of `benchmark_device`: on a GPU where there is one, and in short on the CPU."""

import json
import sys

import benchmark_device
import pytest
import torch

GPUS = {"cuda": torch.cuda.is_available, "mps": torch.mps.is_available}
CHECKS = {
    "published weights are worth what they are on the CPU": lambda gpu, folder: benchmark_device.weights(gpu).values(),
    "a training is resumed": lambda gpu, folder: [benchmark_device.resuming(gpu, folder)],
    "too little memory is told": lambda gpu, folder: [benchmark_device.memory(gpu, folder)],
}


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("check", CHECKS)
def test_the_checks_pass_on_a_gpu(check, device, tmp_path):
    if not GPUS[device]():
        pytest.skip(f"there is no {device} here")
    found = list(CHECKS[check](torch.device(device), tmp_path))
    assert all(each["passed"] is not False for each in found), found


def test_the_benchmark_of_a_device_runs_in_short_on_the_cpu(tmp_path, monkeypatch):
    output = tmp_path / "benchmark.json"
    monkeypatch.setattr(sys, "argv", ["", "--device", "cpu", "--short", "--output", str(output)])
    with pytest.raises(SystemExit) as ended:
        benchmark_device.main()
    assert ended.value.code == 0
    result = json.loads(output.read_text())
    assert len(result["trainings"]) == 12 and len(result["images a second"]) == 4 and len(result["profile"]) == 2
    assert {check["passed"] for check in result["checks"].values()} == {True, None}
