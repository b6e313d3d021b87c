"""Execute notebooks with papermill, several at once: a profile's trainings, then the pages that sum them up."""

import hashlib
import json
import os
import re
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import papermill
from tqdm import tqdm

from vaelib import files, runs

from . import pictures, profiles


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

    @property
    def recipe(self) -> str:
        """A hash of all that makes the page: the notebook's cells, parameters, the run's evaluation, the package."""
        cells = [cell.source for cell in files.read_notebook(self.notebook).cells]
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
            page = files.read_notebook(self.page)
            return (page.metadata.get("recipe"), page.metadata.get("sha256")) == (self.recipe, _checksum(page))
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
    paths = [path for module in (files, profiles) for path in sorted(Path(module.__file__).parent.rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def training_jobs(profile: str, experiment: str, notebook: Path, pages: Path) -> list[Job]:
    """A job for every run of an experiment: each latent dimension and seed, the short and the long training."""
    plan = profiles.load(profile, experiment)
    jobs = []
    for schedule, ending in ((plan.short, ""), (plan.long, "-long")):
        for settings in plan.settings(schedule):
            seed = f"-s{settings.seed}" if settings.seed != schedule.seeds[0] else ""
            name = f"{experiment}-{notebook.stem}-k{settings.latent_dim}{seed}{ending}"
            parameters = {"profile": profile, "latent_dim": settings.latent_dim}
            parameters |= {"epochs": settings.epochs, "seed": settings.seed}
            label = f"K = {settings.latent_dim}, {settings.epochs} epochs, seed {settings.seed}"
            run = runs.default_root() / runs.name(plan.dataset, settings)
            jobs.append(Job(notebook, pages / f"{name}.ipynb", parameters, f"{label} ({profile})", run))
    return jobs


def summary_jobs(profile: str, experiment: str, notebooks: list[Path], pages: Path) -> list[Job]:
    """A job for each of the notebooks that look at all runs of an experiment."""
    return [
        Job(notebook, pages / f"{experiment}-{notebook.stem}.ipynb", {"profile": profile}, f"({profile})")
        for notebook in notebooks
    ]


def sweep(jobs: list[Job], executor: Executor, description: str = "pages") -> dict[Job, BaseException]:
    """Execute all jobs that are not finished; one that fails does not stop the others.

    Parameters
    ----------
    jobs : list of Job
    executor : concurrent.futures.Executor, or anything with its interface, such as Dask's `Client.get_executor()`
    description : what the progress line calls them

    Returns
    -------
    dict from each failed job to its error; its notebook is at `job.failure`, if it could be opened at all
    """
    futures: dict[Future, Job] = {}
    failures = {}
    environment = {key: value for key, value in os.environ.items() if key.startswith(("VAELIB_", "TQDM_"))}
    try:
        for job in jobs:
            if not job.finished:
                futures[executor.submit(execute, job, environment)] = job
        with tqdm(total=len(jobs), initial=len(jobs) - len(futures), desc=description, unit="page") as bar:
            for future in as_completed(futures):
                job = futures[future]
                if error := future.exception():
                    failures[job] = error
                bar.set_postfix_str(job.page.stem + (" FAILED" if error else ""), refresh=False)
                bar.update()
    except KeyboardInterrupt:
        for future in futures:  # or all that wait would still be executed
            future.cancel()
        raise
    return failures


def execute(job: Job, environment: dict[str, str]) -> None:
    """Execute one notebook. Its page appears when all of it has worked; else the notebook is left at `job.failure`.

    The environment is that of the sweep, which a worker on another machine does not inherit.
    """
    os.environ.update(environment)
    if job.finished:  # Dask asks again for what a worker had finished before it died
        return
    os.environ.setdefault("JUPYTER_DEFAULT_PROVISIONER_NAME", "vaelib")  # see `kernels`
    files.read_notebook(job.notebook)  # names the file if it is damaged, which papermill does not
    job.page.parent.mkdir(parents=True, exist_ok=True)
    job.failure.unlink(missing_ok=True)
    with TemporaryDirectory(prefix="vaelib-") as folder:
        executed = Path(folder, job.page.name)
        try:
            papermill.execute_notebook(
                str(job.notebook),
                str(executed),
                job.parameters,
                progress_bar=False,
                # Not `cwd`, for which papermill changes that of this whole process, under all other threads
                resources={"metadata": {"path": str(job.notebook.parent)}},
                # Or a kernel writes warnings, and that it was interrupted at its end, across the progress line
                extra_arguments=["--log-level=CRITICAL"],
            )
        except Exception:
            if executed.exists():
                files.write(job.failure, executed.read_bytes())
            raise
        pictures.shrink(executed)
        page = files.read_notebook(executed)
    _tidy(page, job.label)
    page.metadata |= {"recipe": job.recipe, "sha256": _checksum(page)}
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
