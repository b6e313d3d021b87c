"""What the front page, the README and the ledger of claims need of a profile's runs, small enough to be committed."""

import base64
import shutil
from pathlib import Path

import nbformat

from . import files, profiles, runs


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
