"""Sweep and publish, in the project's folder. See `python -m book.machinery COMMAND --help`."""

import argparse
import os
import re
import sys
from pathlib import Path

from joblib import cpu_count  # unlike os.cpu_count, it respects the limits of a container

from vaelib import files, runs, storage
from vaelib.__main__ import STOPPED
from vaelib.data import paths

from . import claims, live, pictures
from . import publish as publishing
from . import sweep as batch

BOOK = Path("book")


def chapters() -> list[Path]:
    """Return the pages in the book's table of contents, without their endings.

    Raises FileNotFoundError if this folder doesn't contain a book.
    """
    table = Path("_toc.yml")
    if not table.exists():
        raise FileNotFoundError(f"no book here: {Path.cwd()} lacks _toc.yml; run this in the project's folder")
    return [Path(name) for name in re.findall(r"\bfile: (\S+)", table.read_text("utf-8"))]


def sweep(options: argparse.Namespace) -> None:
    os.environ["VAELIB_RUNS"] = str(runs.default_root().resolve())  # a kernel runs in its notebook's folder
    if "VAELIB_DATA" in os.environ:
        os.environ["VAELIB_DATA"] = str(Path(os.environ["VAELIB_DATA"]).expanduser().resolve())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // max(1, options.workers))))
    os.environ["TQDM_DISABLE"] = "1"  # for the kernels, whose progress bars would be stored in the pages
    stages: dict[str, list[batch.Job]] = {"runs": [], "summaries": []}
    pages = (BOOK / "runs" / options.profile).resolve()
    for experiment in dict.fromkeys(options.experiment):
        named = [path.with_suffix(".ipynb").resolve() for path in chapters() if path.parent == BOOK / experiment]
        training = (BOOK / experiment / "train.ipynb").resolve()
        stages["runs"] += batch.training_jobs(options.profile, experiment, training, pages)
        if not options.no_summary:
            for path in (each for each in named if each != training):
                page = pages / f"{experiment}-{path.stem}.ipynb"
                stages["summaries"].append(batch.Job(path, page, {"profile": options.profile}, f"({options.profile})"))
    try:
        for description, jobs in stages.items():
            if failures := batch.sweep(jobs, options.workers, f"{options.profile} {description}"):
                for job, error in failures.items():
                    see = f", see {job.failure}" if job.failure.exists() else ""
                    print(f"\n{job.page.stem} failed{see}:\n{error}", file=sys.stderr)
                sys.exit(f"{len(failures)} of {len(jobs)} {description} failed")
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr, flush=True)
        os._exit(130)  # the usual exit waits for all threads; the kernels end with this process


def publish(options: argparse.Namespace) -> None:
    pages = [path.with_suffix(".ipynb") for path in chapters()]
    which = options.profile, options.experiment
    if options.experiment == "beyond":  # no profile, because the pages store the names of their runs
        kept, root = BOOK / "records" / "beyond", runs.default_root()
        # Pages that only read records need no runs
        names = claims.runs_beyond(BOOK)
        names = [each for each in names if (root / each).exists() or not (kept / f"{each}.json").exists()]
        publishing.record(names, kept)
    else:
        publishing.records(*which, BOOK / "records" / options.profile)
    # In other profiles, weights and pictures would overwrite those in the book
    if options.profile == "paper" and options.experiment in publishing.WEIGHTS:
        for page in filter(Path.exists, pages):
            pictures.shrink(page)
        name = f"{options.experiment}-prior-samples"
        notebook = BOOK / options.experiment / "dimensions.ipynb"
        publishing.picture(notebook, f"fig-{name}", BOOK / "pictures" / f"{name}.png")
        publishing.weights(*which, storage.PRETRAINED)
        publishing.interactive(*which, BOOK / "live")
        if options.experiment == "mnist":
            files.write(BOOK / "live" / "training.png", pictures.drawn(live.training()))
        else:
            publishing.animation(storage.PRETRAINED / "celeba-k64.safetensors", BOOK / "pictures" / "celeba-walk.webp")
    paths.say(f"published {options.experiment} from profile {options.profile!r}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m book.machinery", description=__doc__)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--profile", default="paper", help="profile in book/machinery/profiles.py (default: paper)")

    told = "execute the notebooks of experiments for all runs of a profile, several at once"
    command = commands.add_parser("sweep", parents=[common], help=told, description=told)
    command.set_defaults(function=sweep)
    command.add_argument("experiment", nargs="+", help="experiments, such as mnist; start with the longest")
    command.add_argument("--workers", type=int, default=cpu_count(), metavar="N", help="notebooks to execute at once")
    command.add_argument("--no-summary", action="store_true", help="only train, without the summary pages")

    told = (
        "copy the records of an experiment's runs into the book (beyond: runs of the pages beyond the paper); for the "
        "paper profile's mnist and celeba, also pictures, the data of interactive pages, and the package's weights"
    )
    command = commands.add_parser("publish", parents=[common], help=told, description=told)
    command.set_defaults(function=publish)
    command.add_argument("experiment", help="experiment, such as mnist, or beyond")

    options = parser.parse_args()
    try:
        options.function(options)
    except (ValueError, OSError, RuntimeError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
