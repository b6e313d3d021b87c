"""Execute notebooks with papermill, several at once: first a profile's training runs, then their summary pages."""

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
from traitlets.config import Config

from vaelib import files, runs

from . import notebooks, pictures, profiles


@dataclass(frozen=True, eq=False)
class Job:
    """A notebook to execute, the path of its executed copy (the page), and its parameters.

    `label` distinguishes this page's title, figures and equations from other pages of the same notebook. `run` is the
    folder of the run that the notebook trains, if any.
    """

    notebook: Path
    page: Path
    parameters: dict
    label: str
    run: Path | None = None

    def recipe(self, notebook: nbformat.NotebookNode) -> str:
        """Hash everything that determines the page: cells, parameters, the run's evaluation, and the package."""
        cells = [cell.source for cell in notebook.cells]
        evaluation = runs.load(self.run).evaluation if self.run else None
        shown = [cells, self.parameters, evaluation, _package()]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()

    @property
    def finished(self) -> bool:
        """True if the run is complete and its page shows it. Always False for a summary of many runs.

        If a file can't be read, this is False. The job is then executed again, and either repairs the file or fails.
        """
        if not self.run or not runs.is_complete(self.run) or not self.page.exists():
            return False
        try:
            page, recipe = notebooks.read(self.page), self.recipe(notebooks.read(self.notebook))
            return (page.metadata.get("recipe"), page.metadata.get("sha256")) == (recipe, _checksum(page))
        except (OSError, ValueError):
            return False

    @property
    def failure(self) -> Path:
        """The path of the notebook with the error in it, if it fails."""
        return self.page.with_name(f"{self.page.stem}-failed.ipynb")


def _checksum(page: nbformat.NotebookNode) -> str:
    """Hash everything that a page shows."""
    return hashlib.sha256(json.dumps(page.cells, sort_keys=True).encode()).hexdigest()


@cache
def _package() -> str:
    """Hash the source code of the package and of this folder."""
    paths = [path for module in (files, profiles) for path in sorted(Path(str(module.__file__)).parent.rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def training_jobs(profile: str, experiment: str, notebook: Path, pages: Path) -> list[Job]:
    """Return one job for every run of an experiment: each latent dimension and seed of both schedules."""
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
    """Execute all unfinished jobs, several at once. If a job fails, the others continue.

    Parameters
    ----------
    jobs : list of Job
    workers : number of jobs at once
    description : label of the progress line

    Returns
    -------
    dict from each failed job to its error. Its notebook is at `job.failure`, unless it couldn't be opened
    """
    failures = {}
    executor = ThreadPoolExecutor(workers)  # threads suffice, because kernels are processes
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
        executor.shutdown(wait=False, cancel_futures=True)  # so that waiting jobs aren't executed
    return failures


def execute(job: Job) -> None:
    """Execute one notebook. If all cells work, write its page; otherwise write the notebook to `job.failure`."""
    notebook = notebooks.read(job.notebook)  # read before execution, because it may be edited meanwhile
    job.page.parent.mkdir(parents=True, exist_ok=True)
    job.failure.unlink(missing_ok=True)
    # Jupyter chooses free ports, which another process may take before the kernel does. Sockets in files can't be taken.
    # Their path has at most 107 characters, on macOS 103, so not in TMPDIR, which can be long. Windows has no such files.
    with TemporaryDirectory(prefix="vaelib-", dir=None if os.name == "nt" else "/tmp") as folder:
        executed = Path(folder, job.page.name)
        sockets = {"transport": "ipc", "ip": f"{folder}/socket", "connection_file": f"{folder}/connection.json"}
        try:
            papermill.execute_notebook(
                job.notebook,
                executed,
                job.parameters,
                progress_bar=False,
                # Not `cwd`, because papermill would change the folder of the whole process with all threads
                resources={"metadata": {"path": str(job.notebook.parent)}},
                # Otherwise kernels print warnings and their interruption across the progress line
                extra_arguments=["--log-level=CRITICAL"],
                config=Config(KernelManager={} if os.name == "nt" else sockets),
            )
        except Exception:
            if executed.exists():
                files.write(job.failure, executed.read_bytes())
            raise
        pictures.shrink(executed)
        page = notebooks.read(executed)
    _tidy(page, job.label)
    page.metadata |= {"recipe": job.recipe(notebook), "sha256": _checksum(page)}
    files.write(job.page, nbformat.writes(page) + "\n")


def _tidy(page: nbformat.NotebookNode, label: str) -> None:
    """Add the label to a page's title and names, and remove everything that differs from run to run."""
    ending = "-" + "".join(character if character.isalnum() else "-" for character in label)
    names = []  # of figures and equations
    page.metadata.pop("papermill", None)
    page.metadata["jupytext"] = {"formats": "ipynb"}  # a page lacks a source file, and JupyterLab must not write one
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
