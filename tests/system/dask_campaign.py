"""Kill workers of a sweep on Dask: `python tests/system/dask_campaign.py [--workers N ...]`; needs distributed.

A scheduler and its workers are processes of this machine, which must be a Linux one. In each trial a few small
trainings are swept, and at a moment of chance one of the workers is killed by SIGKILL; its nanny starts another. All
runs must then be complete and the same as without a fault, and no more than one page begun twice. Prints a table.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["TQDM_DISABLE"] = os.environ["OMP_NUM_THREADS"] = "1"

import nbformat
import psutil
from distributed import Client
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tabulate import tabulate

from book.machinery import sweep as batch
from vaelib import TrainConfig, runs

CODE = """from pathlib import Path
with Path(folder, "begun").open("a") as file:
    file.write(f"{latent_dim}\\n")
import torch
from vaelib import TrainConfig, train
from vaelib.data import Dataset, Split
pixels = torch.randint(256, (1100, 1, 14, 14), generator=torch.manual_seed(0), dtype=torch.uint8)
noise = Dataset("noise", Split(pixels[:1000]), Split(pixels[1000:]))
run = train(noise, TrainConfig(latent_dim, epochs=10), Path(folder, "runs"), "cpu", checkpoint_seconds=0.1)
print(run.evaluation["test_elbo"])"""


def jobs(folder: Path, pages: int) -> list[batch.Job]:
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
            folder / "runs" / runs.name("noise", TrainConfig(K, epochs=10)),
        )
        for K in range(1, pages + 1)
    ]


@contextlib.contextmanager
def cluster(workers: int):
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
            started += [subprocess.Popen([*dask, "worker", *where, *options], **quiet) for _ in range(workers)]
            yield json.loads(file.read_text("utf-8"))["address"], started[1:]
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait()


def kill(nannies: list[subprocess.Popen], after: float) -> float:
    """Kill one of the workers so many seconds from now; returns when that was."""
    time.sleep(after)
    children = psutil.Process(random.choice(nannies).pid).children()
    next(each for each in children if "spawn_main" in " ".join(each.cmdline())).kill()
    return time.monotonic()


def trial(address: str, nannies: list[subprocess.Popen], pages: int, after: float | None = None):
    """The figures of all runs, how many pages were begun again, and the seconds; None if all was done before."""
    with tempfile.TemporaryDirectory() as name, Client(address) as client, ThreadPoolExecutor(1) as killer:
        folder = Path(name)
        work = jobs(folder, pages)
        client.wait_for_workers(len(nannies), timeout=300)  # also for one in place of the last one that was killed
        started = time.monotonic()
        killed = killer.submit(kill, nannies, after) if after is not None else None
        failures = batch.sweep(work, client.get_executor())
        ended = time.monotonic()
        late = killed and killed.result() > ended
        assert not failures, failures
        assert all(job.finished for job in work)
        begun = Counter((folder / "begun").read_text().split())
        figures = {job.run.name: runs.load(job.run).evaluation for job in work}
        return None if late else (figures, begun.total() - len(work), ended - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4], metavar="N")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="for each number of workers")
    parser.add_argument("--pages", type=int, default=6, metavar="N", help="in each trial")
    options = parser.parse_args()
    random.seed(0)
    rows, expected = [], None
    for workers in options.workers:
        with cluster(workers) as (address, nannies):
            trial(address, nannies, options.pages)  # in the first one, workers import what they need
            figures, again, seconds = trial(address, nannies, options.pages)
            expected = expected or figures
            print(f"{workers} workers, none killed: {seconds:.0f} s, {again} pages begun again", flush=True)
            if figures != expected or again:
                sys.exit("other figures, or pages begun again, without a fault")
            begun_again, times = [], []
            while len(times) < options.trials:
                after = random.uniform(0, seconds)
                if (found := trial(address, nannies, options.pages, after)) is None:
                    continue
                figures, again, took = found
                same = "the same" if figures == expected else "OTHER"
                print(f"killed after {after:.1f} s: {same} figures, {again} begun again, {took:.0f} s", flush=True)
                if figures != expected or again > 1:
                    sys.exit("a worker's death cost more than one page")
                begun_again.append(again)
                times.append(took)
        row = {"workers": workers, "trials, a worker killed in each": len(times), "pages": options.pages * len(times)}
        row |= {"complete, same figures": options.pages * len(times), "begun again": sum(begun_again)}
        row |= {"in one trial, at most": max(begun_again), "seconds": seconds}
        rows.append(row | {"with a worker killed, median": statistics.median(times)})
    print(tabulate(rows, headers="keys", floatfmt=".0f"))


if __name__ == "__main__":
    main()
