"""Small files from a profile's runs that the front page, the README and the ledger need in the repository."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from vaelib import data, files, runs, storage

from . import live, notebooks, pictures, profiles

WEIGHTS = {"mnist": (1, 2), "celeba": (64,)}  # each experiment's latent dimensions with published weights
LIVE = {"mnist": live.plane, "celeba": live.lab}  # other data of each experiment's interactive page
LICENCES = {
    "mnist": "MNIST is Yann LeCun's and Corinna Cortes', under Creative Commons Attribution-ShareAlike 3.0.",
    "celeba": "CelebA is for non-commercial research only, and its photographs belong to others; no photograph is in "
    "the weights, but assume that the same terms apply to them.",
}
CARD = Path(__file__).with_name("card.md")


def records(profile: str, experiment: str, folder: Path) -> None:
    """Copy the record of every run of an experiment. Raises like `record`."""
    plan = profiles.load(profile, experiment)
    names = [runs.name(plan.dataset, settings) for part in (plan.short, plan.long) for settings in plan.settings(part)]
    record(names, folder)


def record(names: Sequence[str], folder: Path) -> None:
    """Write the record of each of these runs to a separate file, without the weights.

    Raises ValueError or FileNotFoundError, and writes nothing, if a run is missing, incomplete or damaged.
    """
    found = {name: runs.load(runs.default_root() / name, builder=None) for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    for name, run in found.items():
        files.write(folder / f"{name}.json", run.dumps())


def picture(notebook: Path, figure: str, path: Path) -> None:
    """Save a figure of an executed notebook as PNG, by its name in the cell's metadata.

    Raises
    ------
    ValueError
        If the notebook doesn't contain a figure with this name, or wasn't executed.
    """
    for cell in notebooks.read(notebook).cells:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == figure:
            for output in cell.outputs:
                if png := output.get("data", {}).get("image/png"):
                    files.write(path, pictures.stored(png, notebook))
                    return
    raise ValueError(f"{notebook} doesn't contain a figure named {figure!r}; execute it first")


def weights(profile: str, experiment: str, folder: Path) -> None:
    """Write the package's weights, in half precision, and their cards, from the profile's first seed.

    Raises
    ------
    FileNotFoundError
        If a run isn't complete.
    ValueError
        If a run is damaged, or half precision changes a decoded pixel by 2/255 or more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for run in _published_runs(profile, experiment):
        path = folder / f"{experiment}-k{run.config.latent_dim}.safetensors"
        pair = [model.sample(1000, seed=0) for model in (run.model(), run.model().half().float())]
        difference = 255 * (pair[0] - pair[1]).abs().max().item()
        if not difference < 2:  # also refuses NaN
            raise ValueError(f"half precision changes {run.folder.name}'s pixels by {difference:.1f}/255, 2 or more")
        facts = run.record["data"]
        card = CARD.read_text("utf-8").format(
            name=path.stem,
            architecture="fully connected" if facts["image_shape"][0] == 1 else "convolutional",
            difference=difference,
            data=facts,
            shape=" x ".join(map(str, facts["image_shape"])),
            settings=", ".join(f"{key} {value}" for key, value in run.record["settings"].items()),
            environment=", ".join(f"{key} {value}" for key, value in run.record["environment"].items()),
            licence=LICENCES[experiment],
            run=run,
        )
        storage.save(run.model().half(), path)
        files.write(path.with_suffix(".md"), card)


def interactive(profile: str, experiment: str, folder: Path) -> Path:
    """Write the data of the experiment's interactive page, except weights, as JSON, and its still picture as PNG.

    Raises
    ------
    FileNotFoundError
        If a run isn't complete, or the data are missing.
    ValueError
        If a run was trained on other data.
    """
    published = _published_runs(profile, experiment)
    dataset = data.load(profiles.load(profile, experiment).dataset)
    for run in published:
        if run.record["data"]["fingerprint"] != dataset.fingerprint:
            raise ValueError(f"{run.folder} was trained on other images or labels; set VAELIB_DATA to their folder")
    content, figure = LIVE[experiment](dataset, [run.model() for run in published])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{experiment}.json"
    lines = ",\n".join(f'"{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in content.items())
    files.write(path, f"{{\n{lines}\n}}\n")
    files.write(path.with_suffix(".png"), pictures.drawn(figure))
    return path


def animation(weights: Path, path: Path, faces: int = 8, frames: int = 48, zoom: int = 2) -> None:
    """Write a loop of images that change into others and back, side by side, as an animated WebP file.

    Each code moves on a circle z = a cos t + b sin t with a and b from the prior. Its distribution at every t is
    therefore the prior.
    """
    model = storage.load(weights)
    a, b = torch.randn(2, faces, model.latent_dim, generator=torch.Generator().manual_seed(1))
    strips = []
    for t in torch.linspace(0, 2 * math.pi, frames + 1)[:-1].tolist():
        with torch.inference_mode():
            decoded = model.decode(a * math.cos(t) + b * math.sin(t))
        strips.append(to_pil_image(make_grid(decoded, nrow=faces, padding=1, pad_value=1)))
    strips = [strip.resize((zoom * strip.width, zoom * strip.height), Image.Resampling.BICUBIC) for strip in strips]
    content = io.BytesIO()
    strips[0].save(content, "webp", save_all=True, append_images=strips[1:], duration=120, loop=0, quality=70)
    files.write(path, content.getvalue())


def _published_runs(profile: str, experiment: str) -> list[runs.Run]:
    """Load the runs whose weights are in the package: the first seed of each latent dimension."""
    plan = profiles.load(profile, experiment)
    settings = {each.latent_dim: each for each in reversed(plan.settings(plan.short))}  # the first seed stays
    return [runs.load(runs.default_root() / runs.name(plan.dataset, settings[K])) for K in WEIGHTS[experiment]]
