"""What the front page, the README and the ledger of claims need of a profile's runs, small enough to be committed."""

import base64
import shutil
from pathlib import Path

import nbformat
import torch

from . import files, models, profiles, runs

WEIGHTS = {"mnist": 2, "celeba": 64}  # of each experiment, the latent dimension whose weights come with the package
LICENCES = {
    "mnist": "MNIST is Yann LeCun's and Corinna Cortes', under Creative Commons Attribution-ShareAlike 3.0.",
    "celeba": "CelebA is for non-commercial research only, and its photographs belong to others; no photograph is in "
    "the weights, but take the same terms to hold for them.",
}
CARD = """# {name}

The paper's {architecture} VAE with K = {latent_dim}, in half precision: `vaelib.models.published("{name}")`.
It decodes the codes of the prior as the full-precision weights do, but for at most {difference:.2f}/255 a pixel.

| | |
|---|---|
| data | {data}, fingerprint {fingerprint}, images {image_shape} |
| settings | {settings} |
| test ELBO | {test_elbo:.2f} nats per image (train: {train_elbo:.2f}) |
| log p(x), at least | {log_prob:.2f} nats per image, from {log_prob_samples} samples |
| squared error | {reconstruction_error:.4f} per pixel, decoded from the posterior mean |
| active units | {active_units} |
| made with | {environment} |

{licence}

The model knows only what is in its data, and shows it with all its gaps: it is for looking at how VAEs work, and no
source of facts about people or handwriting.
"""


def records(profile: str, experiment: str, folder: Path) -> list[Path]:
    """Copy configuration, metrics and evaluation of every run of an experiment, without the weights.

    Raises
    ------
    FileNotFoundError
        If a run of the profile is missing or not complete.
    """
    plan = profiles.load(profile, experiment)
    names = [runs.name(plan.dataset, each) for part in (plan.short, plan.long) for each in plan.settings(part)]
    for name in names:
        runs.load(runs.default_root() / name)  # raises if anything is missing or damaged
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "metrics.jsonl", "evaluation.json"):
            shutil.copy(runs.default_root() / name / file, folder / name / file)
    return [folder / name for name in names]


def picture(notebook: Path, figure: str, path: Path) -> None:
    """Save a figure of an executed notebook as PNG, by its name in the cell's metadata.

    Raises
    ------
    ValueError
        If no cell of the notebook has a figure of that name, or it was not executed.
    """
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == figure:
            for output in cell.outputs:
                if png := output.get("data", {}).get("image/png"):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    files.write(path, base64.b64decode(png))
                    return
    raise ValueError(f"{notebook} shows no figure named {figure!r}; execute it first")


def weights(profile: str, experiment: str, folder: Path) -> Path:
    """Write the weights that come with the package in half precision, and their card: the first seed of the profile.

    Raises
    ------
    FileNotFoundError
        If the run is not complete.
    ValueError
        If half precision changes a decoded pixel by 2/255 or more.
    """
    plan, latent_dim = profiles.load(profile, experiment), WEIGHTS[experiment]
    settings = next(each for each in plan.settings(plan.short) if each.latent_dim == latent_dim)
    run = runs.load(runs.default_root() / runs.name(plan.dataset, settings))
    path = folder / f"{experiment}-k{latent_dim}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    models.save(run.model().half(), temporary)
    pair = [each.sample(1000, torch.Generator().manual_seed(0)) for each in (run.model(), models.load(temporary))]
    difference = 255 * (pair[0] - pair[1]).abs().max().item()
    if difference >= 2:
        temporary.unlink()
        raise ValueError(f"half precision changes {run.folder.name}'s pixels by {difference:.1f}/255, 2 or more")
    card = CARD.format(
        name=path.stem,
        architecture="fully connected" if run.config["data"]["image_shape"][0] == 1 else "convolutional",
        difference=difference,
        data=run.config["data"]["name"],
        fingerprint=run.config["data"]["fingerprint"],
        image_shape=" x ".join(map(str, run.config["data"]["image_shape"])),
        environment=", ".join(f"{key} {value}" for key, value in run.config["environment"].items()),
        licence=LICENCES[experiment],
        latent_dim=latent_dim,
        settings=", ".join(f"{key} {value}" for key, value in run.config["settings"].items()),
        **run.evaluation,
    )
    temporary.replace(path)
    files.write(path.with_suffix(".md"), card)
    return path
