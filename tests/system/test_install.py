"""The package as `pip install .` brings it: whole, and of use in an environment that has nothing else."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = {"torch", "torchvision", "numpy", "safetensors", "scikit-learn", "pillow", "matplotlib", "tqdm", "filelock"}
SCRIPT = """
import sys
import vaelib
from vaelib import TrainConfig, data, plots, storage, train

assert vaelib.__file__.startswith(sys.prefix), vaelib.__file__
digits = data.load("digits")
few = data.Dataset("few", *(data.Split(part.images[:50]) for part in (digits.train, digits.test)))
run = train(few, TrainConfig(2, epochs=2), "runs", "cpu")
assert run.evaluation["log_prob"] < 0
assert storage.from_pretrained("mnist-k2").sample(4).shape == (4, 1, 28, 28)
plots.training(run.metrics)
assert not {name.partition(".")[0] for name in sys.modules} & {"book", "tests", "IPython", "nbformat"}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, since building leaves folders behind; by what is installed, since there may be no network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "vaelib", source / "vaelib", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", source, source], check=True)
    (path,) = source.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_package_needs_nine_others_and_registers_nothing(wheel):
    with zipfile.ZipFile(wheel) as file:
        held = set(file.namelist())
        (metadata,) = (file.read(name).decode() for name in held if name.endswith(".dist-info/METADATA"))
    files = (path for path in (ROOT / "vaelib").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert {name for name in held if ".dist-info/" not in name} == {path.relative_to(ROOT).as_posix() for path in files}
    assert not any(name.endswith("entry_points.txt") for name in held)
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    assert set(required) <= NEEDED


def test_the_package_trains_in_an_environment_that_has_nothing_else(wheel, tmp_path):
    uv, environment = Path(sys.executable).with_name("uv"), tmp_path / "environment"
    if not uv.exists():
        pytest.skip("there is no uv here, which `make` installs")
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "requirements.txt", wheel]
    if subprocess.run([*install, "--offline"]).returncode and subprocess.run(install).returncode:
        pytest.skip("what the wheel requires is not in uv's cache, and cannot be fetched")
    subprocess.run([uv, "pip", "check", "--quiet", "--python", python], check=True)
    usual = os.environ | {"PYTHONPATH": "", "TQDM_DISABLE": "1"}
    done = subprocess.run([python, "-c", SCRIPT], cwd=tmp_path, env=usual, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ALONE = """
import importlib, sys, types
import vaelib

assert not {"matplotlib", "sklearn", "torchvision", "zuko"} & set(sys.modules)  # which only some need
import matplotlib.pyplot, sklearn.datasets, torchvision

for name in sys.argv[2:]:
    for each in [each for each in sys.modules if each.partition(".")[0] == "vaelib"]:
        del sys.modules[each]
    package = sys.modules["vaelib"] = types.ModuleType("vaelib")  # whose __init__ would import others before
    package.__path__ = [sys.argv[1]]
    importlib.import_module(name)
"""


def test_the_package_imports_no_more_than_it_needs_and_every_module_may_be_the_first():
    paths = sorted((ROOT / "vaelib").rglob("[!_]*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    done = subprocess.run([sys.executable, "-c", ALONE, ROOT / "vaelib", *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
