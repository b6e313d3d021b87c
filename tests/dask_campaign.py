"""Kill workers of a sweep on Dask: `python tests/dask_campaign.py [--trials N]`; needs distributed, and Linux.

A scheduler and two workers are processes of this machine. In each trial eight small trainings are swept, and at a
moment of chance one of the workers is killed; its nanny starts another. All runs must then be complete and the same as
without a fault, and no more than one page begun twice.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

os.environ["TQDM_DISABLE"] = os.environ["OMP_NUM_THREADS"] = "1"

import nbformat
import psutil
from distributed import Client
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from vaelib import Settings, runs
from vaelib.book import sweep as batch

CODE = """from pathlib import Path
from vaelib import Settings, data, train
with Path(folder, "begun").open("a") as file:
    file.write(f"{latent_dim}\\n")
run = train(data.load("digits"), Settings(latent_dim, epochs=5), Path(folder, "runs"), checkpoint_seconds=0.1)
print(run.evaluation["test_elbo"])"""
DIMENSIONS = range(1, 9)


def jobs(folder: Path) -> list[batch.Job]:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [
        new_markdown_cell("# A training"),
        new_code_cell("latent_dim, folder = 1, ''", metadata={"tags": ["parameters"]}),
        new_code_cell(CODE),
    ]
    notebook = folder / "train.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), notebook)
    return [
        batch.Job(
            notebook,
            folder / "pages" / f"k{K}.ipynb",
            {"latent_dim": K, "folder": str(folder)},
            f"K = {K}",
            folder / "runs" / runs.name("digits", Settings(K, epochs=5)),
        )
        for K in DIMENSIONS
    ]


@contextlib.contextmanager
def cluster():
    """The address of a scheduler, and its workers' nannies."""
    dask = [sys.executable, "-m", "dask"]
    with tempfile.TemporaryDirectory() as folder:
        file, quiet = Path(folder, "scheduler.json"), {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        where = ["--scheduler-file", file, "--no-dashboard"]
        started = [subprocess.Popen([*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *where], **quiet)]
        try:
            while not file.exists():
                time.sleep(0.1)
            options = ["--nthreads", "1", "--local-directory", folder]
            started += [subprocess.Popen([*dask, "worker", *where, *options], **quiet) for _ in range(2)]
            address = json.loads(file.read_text())["address"]
            with Client(address) as client:
                client.wait_for_workers(2, timeout=120)
            yield address, started[1:]
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait()


def kill(nannies: list[subprocess.Popen], after: float) -> None:
    time.sleep(after)
    children = psutil.Process(random.choice(nannies).pid).children()
    next(each for each in children if "spawn_main" in " ".join(each.cmdline())).kill()


def trial(address: str, nannies: list[subprocess.Popen], after: float | None) -> tuple[dict, int, float]:
    """The figures of all runs, how many pages were begun again, and the seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder, started = Path(name), time.monotonic()
        work = jobs(folder)
        killer = threading.Thread(target=kill, args=(nannies, after))
        if after is not None:
            killer.start()
        with Client(address) as client:
            failures = batch.sweep(work, client.get_executor())
        seconds = time.monotonic() - started
        if after is not None:
            killer.join()
        assert not failures, failures
        assert all(job.finished for job in work)
        begun = Counter((folder / "begun").read_text().split())
        figures = {K: runs.load(job.run).evaluation for K, job in zip(DIMENSIONS, work, strict=True)}
        return figures, begun.total() - len(work), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    random.seed(0)
    with cluster() as (address, nannies):
        expected, again, seconds = trial(address, nannies, None)
        print(f"without a fault: {len(expected)} runs in {seconds:.0f} s, {again} pages begun again", flush=True)
        for number in range(options.trials):
            after = random.uniform(0.1, 0.9) * seconds
            figures, again, took = trial(address, nannies, after)
            same = "the same" if figures == expected else "OTHER"
            print(f"{number}: a worker killed after {after:.0f} s: {same} figures, {again} begun again, {took:.0f} s")
            if figures != expected or again > 1:
                sys.exit("a worker's death cost more than one page")


if __name__ == "__main__":
    main()
