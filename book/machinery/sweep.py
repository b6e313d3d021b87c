"""Execute notebooks with papermill, several at once: a profile's trainings, then the pages that sum them up."""

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import papermill
from tqdm import tqdm

from vaelib import files, runs

from . import kernels, pictures, profiles


@dataclass(frozen=True, eq=False)
class Job:
    """One notebook to execute: where it is, where its executed copy (the page) goes, with which parameters.

    `label` tells this page's title, figures and equations from those of other pages made from the same notebook. `run`
    is the folder of the run that the notebook trains, if it trains one.
    """

    notebook: Path
    page: Path
    parameters: dict
    label: str
    run: Path | None = None

    def recipe(self, notebook: nbformat.NotebookNode) -> str:
        """A hash of all that makes the page: the notebook's cells, parameters, the run's evaluation, the package."""
        cells = [cell.source for cell in notebook.cells]
        evaluation = runs.load(self.run).evaluation if self.run else None
        shown = [cells, self.parameters, evaluation, _package()]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()

    @property
    def finished(self) -> bool:
        """Whether the run is complete and its page shows it. A page that sums up many runs is never finished.

        What cannot be read is not finished: the job is executed again, and then either mends it or tells what is wrong.
        """
        if not self.run or not runs.is_complete(self.run) or not self.page.exists():
            return False
        try:
            page, recipe = files.read_notebook(self.page), self.recipe(files.read_notebook(self.notebook))
            return (page.metadata.get("recipe"), page.metadata.get("sha256")) == (recipe, _checksum(page))
        except (OSError, ValueError):
            return False

    @property
    def failure(self) -> Path:
        """Where the notebook is left, with the error in it, when it fails."""
        return self.page.with_name(f"{self.page.stem}-failed.ipynb")


def _checksum(page: nbformat.NotebookNode) -> str:
    """Of all that a page shows."""
    return hashlib.sha256(json.dumps(page.cells, sort_keys=True).encode()).hexdigest()


@cache
def _package() -> str:
    """A hash of the package's code and of this folder's."""
    paths = [path for module in (files, profiles) for path in sorted(Path(str(module.__file__)).parent.rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def training_jobs(profile: str, experiment: str, notebook: Path, pages: Path) -> list[Job]:
    """A job for every run of an experiment: each latent dimension and seed, the short and the long training."""
    plan = profiles.load(profile, experiment)
    jobs = []
    for schedule, ending in ((plan.short, ""), (plan.long, "-long")):
        for settings in plan.settings(schedule):
            seed = f"-s{settings.seed}" if settings.seed != plan.short.seeds[0] else ""
            name = f"{experiment}-{notebook.stem}-k{settings.latent_dim}{seed}{ending}"
            parameters = {"profile": profile, "latent_dim": settings.latent_dim}
            parameters |= {"epochs": settings.epochs, "seed": settings.seed}
            label = f"K = {settings.latent_dim}, {settings.epochs} epochs, seed {settings.seed}"
            run = runs.default_root() / runs.name(plan.dataset, settings)
            jobs.append(Job(notebook, pages / f"{name}.ipynb", parameters, f"{label} ({profile})", run))
    return jobs


def sweep(jobs: list[Job], workers: int, description: str = "pages") -> dict[Job, BaseException]:
    """Execute all jobs that are not finished, some at once; one that fails does not stop the others.

    Parameters
    ----------
    jobs : list of Job
    workers : how many are executed at once
    description : what the progress line calls them

    Returns
    -------
    dict from each failed job to its error; its notebook is at `job.failure`, if it could be opened at all
    """
    failures = {}
    executor = ThreadPoolExecutor(workers)  # threads, for the kernels are processes already
    try:
        futures = {executor.submit(execute, job): job for job in jobs if not job.finished}
        with tqdm(total=len(jobs), initial=len(jobs) - len(futures), desc=description, unit="page") as bar:
            for future in as_completed(futures):
                job = futures[future]
                if error := future.exception():
                    failures[job] = error
                bar.set_postfix_str(job.page.stem + (" FAILED" if error else ""), refresh=False)
                bar.update()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)  # or all that wait would still be executed
    return failures


def execute(job: Job) -> None:
    """Execute one notebook. Its page appears when all of it has worked; else the notebook is left at `job.failure`."""
    notebook = files.read_notebook(job.notebook)  # before it is executed: it may be edited meanwhile
    job.page.parent.mkdir(parents=True, exist_ok=True)
    job.failure.unlink(missing_ok=True)
    # Not in TMPDIR, which can be long: the path of a kernel's socket has 107 characters at most, on macOS 103
    with TemporaryDirectory(prefix="vaelib-", dir=None if os.name == "nt" else "/tmp") as folder:
        executed = Path(folder, job.page.name)
        try:
            papermill.execute_notebook(
                job.notebook,
                executed,
                job.parameters,
                progress_bar=False,
                # Not `cwd`, for which papermill changes that of this whole process, under all other threads
                resources={"metadata": {"path": str(job.notebook.parent)}},
                # Or a kernel writes warnings, and that it was interrupted at its end, across the progress line
                extra_arguments=["--log-level=CRITICAL"],
                **kernels.options(Path(folder)),
            )
        except Exception:
            if executed.exists():
                files.write(job.failure, executed.read_bytes())
            raise
        pictures.shrink(executed)
        page = files.read_notebook(executed)
    _tidy(page, job.label)
    page.metadata |= {"recipe": job.recipe(notebook), "sha256": _checksum(page)}
    files.write(job.page, nbformat.writes(page) + "\n")


def _tidy(page: nbformat.NotebookNode, label: str) -> None:
    """Make a page of its own: its title and names with the label, nothing in it that differs from run to run."""
    ending = "-" + "".join(character if character.isalnum() else "-" for character in label)
    names = []  # of figures and equations
    page.metadata.pop("papermill", None)
    page.metadata["jupytext"] = {"formats": "ipynb"}  # a page has no text beside it, and JupyterLab is to write none
    for number, cell in enumerate(page.cells):
        cell.metadata.pop("papermill", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = f"parameters-{number}"
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            names.append(figure["name"])
            figure["name"] += ending
        names += re.findall(r"^\$\$ \((.+)\)$", cell.source, re.MULTILINE)
        cell.metadata.pop("execution", None)
    title = next(cell for cell in page.cells if cell.source.startswith("# "))
    heading, _, rest = title.source.partition("\n")
    title.source = f"{heading}{' ' if heading.endswith('?') else ': '}{label}\n{rest}"
    for cell in page.cells:
        if cell.cell_type == "markdown":
            for name in names:
                cell.source = cell.source.replace(f"`{name}`", f"`{name}{ending}`")
                cell.source = cell.source.replace(f"$$ ({name})", f"$$ ({name}{ending})")
