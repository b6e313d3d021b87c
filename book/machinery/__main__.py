"""Sweep and publish, run in the project's folder; `python -m book.machinery COMMAND --help` tells more."""

import argparse
import os
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from joblib import cpu_count  # knows a container's limits, too

from vaelib import runs, storage
from vaelib.__main__ import STOPPED

from . import claims, pictures, profiles
from . import publish as publishing
from . import sweep as batch


def sweep(options: argparse.Namespace) -> None:
    os.environ["VAELIB_RUNS"] = str(runs.default_root().resolve())  # a kernel runs in its notebook's folder
    if "VAELIB_DATA" in os.environ:
        os.environ["VAELIB_DATA"] = str(Path(os.environ["VAELIB_DATA"]).expanduser().resolve())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // options.workers)))
    os.environ["TQDM_DISABLE"] = "1"  # for the kernels, whose progress bars would end up in the pages
    stages = {"runs": [], "summaries": []}
    book = options.book.resolve()  # for workers elsewhere
    pages = book / "runs" / options.profile
    for experiment in options.experiment:
        profiles.load(options.profile, experiment)  # a mistyped one is told before its notebooks are looked for
        notebooks = sorted((book / experiment).glob("*.ipynb"))
        summaries = [path for path in notebooks if path.stem != "train"]
        training = book / experiment / "train.ipynb"
        if training not in notebooks:
            raise FileNotFoundError(f"no {training}; run this in the project's folder, or give --book")
        stages["runs"] += batch.training_jobs(options.profile, experiment, training, pages)
        if not options.no_summary:
            stages["summaries"] += batch.summary_jobs(options.profile, experiment, summaries, pages)
    executor = _executor(options)
    try:
        for description, jobs in stages.items():
            if failures := batch.sweep(jobs, executor, f"{options.profile} {description}"):
                for job, error in failures.items():
                    see = f", see {job.failure}" if job.failure.exists() else ""
                    print(f"\n{job.page.stem} failed{see}:\n{error}", file=sys.stderr)
                sys.exit(f"{len(failures)} of {len(jobs)} {description} failed")
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr, flush=True)
        os._exit(130)  # the usual exit waits for all threads; the kernels end when they see this process gone


def _executor(options: argparse.Namespace) -> Executor:
    if not options.scheduler:
        return ThreadPoolExecutor(options.workers)  # threads, for the kernels are processes already
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise RuntimeError("--scheduler needs the package distributed: pip install distributed") from error
    return Client(options.scheduler).get_executor()


def publish(options: argparse.Namespace) -> None:
    which = options.profile, options.experiment
    # Of another profile, weights and pictures would take the place of those that the book shows
    published = options.profile == "paper" and options.experiment in publishing.WEIGHTS
    if options.experiment == "beyond":  # has no profile: the pages say which runs they have
        steps = [(publishing.record, claims.runs_beyond(options.book), options.book / "records" / "beyond")]
    else:
        steps = [(publishing.records, *which, options.book / "records" / options.profile)]
    if weights := options.weights or (storage.PRETRAINED if published else None):
        steps.append((publishing.weights, *which, weights))
    if published:
        steps += [(pictures.shrink, page) for page in sorted(options.book.rglob("*.ipynb"))]
        notebook, figure = options.book / options.experiment / "dimensions.ipynb", f"{options.experiment}-prior-samples"
        steps.append((publishing.picture, notebook, f"fig-{figure}", options.book / "pictures" / f"{figure}.png"))
        steps.append((publishing.interactive, *which, options.book / "live"))
        if options.experiment == "mnist":
            steps.append((publishing.training, options.book / "live" / "training.webp"))
            steps.append((publishing.stills, weights / "mnist-k1.safetensors", options.book / "live"))
        if options.experiment == "celeba":
            walk = options.book / "pictures" / "celeba-walk.webp"
            steps.append((publishing.animation, weights / "celeba-k64.safetensors", walk))
    faults = []
    for step, *arguments in steps:
        try:
            step(*arguments)
        except (ValueError, OSError) as error:  # no reason to leave out the others
            faults.append(str(error))
    if faults:
        sys.exit("\n".join(["error: not all could be published:", *faults]))
    print(f"published {options.experiment} from profile {options.profile!r}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m book.machinery", description=__doc__)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--profile", default="paper", help="which of book/machinery/profiles.yml (default: paper)")
    common.add_argument("--book", type=Path, default=Path("book"), metavar="FOLDER", help="of the notebooks")

    command = commands.add_parser(
        "sweep", parents=[common], help="execute experiments' notebooks for all of a profile's runs, several at once"
    )
    command.add_argument("experiment", nargs="+", help="such as mnist; the longest first is fastest")
    command.set_defaults(function=sweep)
    command.add_argument("--workers", type=int, default=cpu_count(), metavar="N", help="notebooks at once")
    command.add_argument("--scheduler", metavar="ADDRESS", help="of Dask, whose workers take the place of --workers")
    command.add_argument("--no-summary", action="store_true", help="only train.ipynb, not the pages that sum up")

    command = commands.add_parser(
        "publish",
        parents=[common],
        help="copy all runs' records into the book, of an experiment or, of the pages beyond the paper, by the name "
        "beyond; of the paper profile's mnist and celeba also the front page's pictures and the interactive pages' "
        "data, and weights into the package",
    )
    command.add_argument("experiment", help="such as mnist")
    command.set_defaults(function=publish)
    command.add_argument("--weights", type=Path, metavar="FOLDER", help="for the weights, of any profile")

    options = parser.parse_args()
    if getattr(options, "workers", 1) < 1:
        parser.error("--workers must be at least 1")
    try:
        options.function(options)
    except (ValueError, OSError, RuntimeError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{STOPPED}\n")


if __name__ == "__main__":
    main()
