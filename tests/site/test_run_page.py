"""The page "Run it yourself": its snippet on a folder of images of one's own, and what it names."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.io import write_jpeg, write_png

from vaelib import data, models, storage, training
from vaelib.objective import negative_elbo

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "run.md").read_text()


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


def test_the_recipe_for_several_gpus_trains_as_one_process_with_the_same_batches(tmp_path):
    """On two processes of the CPU, and on small digits; the one process computes both halves of every batch."""
    (recipe,) = (each for each in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "DistributedData" in each)
    (tmp_path / "together.py").write_text(
        recipe.replace('"mnist"', '"digits"').replace("TrainConfig(2, 10", "TrainConfig(2, 2")
    )
    (command,) = re.findall(r"^\.venv/bin/torchrun (.*)$", PAGE, re.MULTILINE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *command.split()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    metrics = [(tmp_path / "together" / each / "metrics.jsonl").read_text().splitlines() for each in "01"]
    first, second = ([json.loads(line) for line in lines] for lines in metrics)
    assert [line["test_elbo"] for line in first] == [line["test_elbo"] for line in second]  # they have the same weights

    digits = data.load("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build(digits.image_shape, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        shares = [digits.train.images[rank::2][: len(digits.train) // 2] for rank in (0, 1)]
        shuffles = [torch.Generator().manual_seed(2 * rank) for rank in (0, 1)]
        noises = [torch.Generator().manual_seed(2 * rank + 1).get_state() for rank in (0, 1)]
        for epoch in range(2):
            orders = [torch.randperm(len(share), generator=each) for share, each in zip(shares, shuffles, strict=True)]
            losses = []
            for pair in zip(*(training.batches(order, 64) for order in orders), strict=True):
                optimizer.zero_grad()
                for rank in (0, 1):
                    torch.set_rng_state(noises[rank])
                    loss = negative_elbo(model(data.to_float(shares[rank][pair[rank]])), 0.0)
                    noises[rank] = torch.get_rng_state()
                    (loss.mean() / 2).backward()
                    losses.append(loss.detach())
                optimizer.step()
            trained = [-(torch.cat(losses[rank::2])).mean().item() for rank in (0, 1)]
            assert [first[epoch]["train_elbo"], second[epoch]["train_elbo"]] == pytest.approx(trained, rel=1e-5)
    together = storage.load(tmp_path / "together" / "model.safetensors")
    for name, each in together.state_dict().items():
        torch.testing.assert_close(each, model.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_the_variables_that_the_page_names_are_those_that_the_package_reads():
    package = "".join(path.read_text() for path in (ROOT / "vaelib").rglob("*.py"))
    read = set(re.findall(r"VAELIB_[A-Z]+", package))
    assert read <= set(re.findall(r"VAELIB_[A-Z]+", PAGE))


def test_the_commands_for_windows_are_those_of_the_makefile():
    """Less those that loop over files, which PowerShell does not list for a program."""
    commands = re.findall(r"^\t(\$\(BIN\)/.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elsewhere = re.compile(r"\$\((NOTEBOOKS|PROFILE|UPGRADE)|--profile \$|uv pip compile")
    commands = [
        re.sub(r" \$\(if .*", "", each) for each in commands if not elsewhere.search(each)
    ]  # as root: only here
    assert len(commands) > 7
    for command in commands:
        assert f"`{command.replace('$(BIN)/', '.venv' + chr(92) + 'Scripts' + chr(92))}`" in PAGE
