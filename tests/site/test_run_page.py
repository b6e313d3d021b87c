"""The page "Run it yourself": its snippet on a folder of images of one's own, and what it names."""

import json
import os
import re
import subprocess
import sys

import torch
from conftest import BOOK, ROOT
from torchvision.io import write_jpeg, write_png

PAGE = (BOOK / "run.md").read_text()


def test_the_snippet_trains_on_a_folder_of_images(tmp_path, monkeypatch):
    """Of any size and format, grey or in colour."""
    (snippet,) = (each for each in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "my-images" in each)
    folder = tmp_path / "my-images"
    folder.mkdir()
    generator = torch.manual_seed(0)
    for number in range(20):
        shape = (1 + 2 * (number % 2), 70 + number, 90 - number)
        image = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        write_jpeg(image, str(folder / f"{number}.jpg"))
    write_png(image, str(folder / "of-another-kind.png"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path / "runs"))
    here = {}
    exec(snippet.replace("epochs=20", "epochs=1"), here)
    assert here["mine"].image_shape == (3, 64, 64)
    assert (len(here["mine"].train), len(here["mine"].test)) == (18, 3)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["my-images-64x64-k16-e1-s0"]
    assert len(list(tmp_path.glob("sample-*.png"))) == 8


def test_the_recipe_for_several_gpus_trains_one_model_on_the_shares_of_all_processes(tmp_path):
    """On two processes of the CPU, and on small digits."""
    (recipe,) = (each for each in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "DistributedData" in each)
    assert "seed=rank, batch_size=128 // count" in recipe  # other noise, and the whole batch as large as that of one
    recipe = recipe.replace('"mnist"', '"digits"').replace("TrainConfig(2, 10", "TrainConfig(2, 1")
    (tmp_path / "together.py").write_text(recipe)
    (command,) = re.findall(r"^\.venv/bin/torchrun (.*)$", PAGE, re.MULTILINE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *command.split()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    metrics = [(tmp_path / "together" / each / "metrics.jsonl").read_text().splitlines() for each in "01"]
    for first, second in zip(*([json.loads(line) for line in lines] for lines in metrics), strict=True):
        assert first["test_elbo"] == second["test_elbo"]  # the same weights, so gradients were averaged
        assert first["train_elbo"] != second["train_elbo"]  # of other images


def test_the_variables_that_the_page_names_are_those_that_the_package_reads():
    package = "".join(path.read_text() for path in (ROOT / "vaelib").rglob("*.py"))
    read = set(re.findall(r"VAELIB_[A-Z]+", package))
    assert read <= set(re.findall(r"VAELIB_[A-Z]+", PAGE))


def test_the_commands_for_windows_are_those_of_the_makefile():
    """Less those that loop over files, which PowerShell does not list for a program."""
    commands = re.findall(r"^\t(\$\(BIN\)/.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elsewhere = re.compile(r"\$\((NOTEBOOKS|PROFILE|UPGRADE)|--profile \$|uv pip compile|train faces")
    # What is added for root alone is added only here
    commands = [re.sub(r" \$\(if .*", "", each) for each in commands if not elsewhere.search(each)]
    assert len(commands) > 7
    for command in commands:
        assert f"`{command.replace('$(BIN)/', '.venv' + chr(92) + 'Scripts' + chr(92))}`" in PAGE
