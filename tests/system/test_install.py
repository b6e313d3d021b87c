"""The package as `pip install .` brings it: whole, and of use without Jupyter."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import builtins, sys

REFUSED = {"IPython", "ipykernel", "jupyter_client", "jupyter_core", "jupytext", "myst_nb", "nbclient", "nbformat",
           "notebook", "papermill", "tabulate", "tensorboard", "zuko"}

def allowed(name, *arguments, load=builtins.__import__):
    if name.partition(".")[0] in REFUSED:
        raise ModuleNotFoundError(f"{name} is not there", name=name)
    return load(name, *arguments)

builtins.__import__ = allowed

import vaelib
from vaelib import storage, TrainConfig, attributes, data, models, plots, train

assert vaelib.__file__.startswith(sys.argv[1]), vaelib.__file__
digits = data.load("digits")
few = data.Dataset("few", *(data.Split(part.images[:50], part.labels[:50]) for part in (digits.train, digits.test)),
                   names=digits.names)
run = train(few, TrainConfig(2, epochs=1), sys.argv[1] + "/runs", "cpu")
assert run.evaluation["log_prob"] < 0
assert storage.from_pretrained("mnist-k2").sample(4).shape == (4, 1, 28, 28)
plots.training(run.metrics)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, since building leaves folders behind; by what is installed, since there may be no network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "vaelib", source / "vaelib", ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        source,
        source,
    ]
    subprocess.run(command, check=True)
    (path,) = source.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_package(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("vaelib/")}
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "vaelib").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == ours


def test_the_installed_package_trains_and_evaluates_without_jupyter(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "TQDM_DISABLE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
