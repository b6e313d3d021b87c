"""Sweep and publish, in the project's folder. See `python -m book.machinery COMMAND --help`."""

import argparse
import os
import re
import sys
from pathlib import Path

from joblib import cpu_count  # unlike os.cpu_count, it respects the limits of a container

from vaelib import runs, storage
from vaelib.__main__ import STOPPED

from . import claims, pictures, profiles
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
    # Kernels set this too, but only after their parent process has imported matplotlib
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    stages: dict[str, list[batch.Job]] = {"runs": [], "summaries": []}
    pages = (BOOK / "runs" / options.profile).resolve()
    for experiment in dict.fromkeys(options.experiment):
        profiles.load(options.profile, experiment)  # reports an unknown name before its notebooks are searched
        named = [path.with_suffix(".ipynb").resolve() for path in chapters() if path.parent == BOOK / experiment]
        training = (BOOK / experiment / "train.ipynb").resolve()
        if training not in named:
            raise ValueError(f"_toc.yml doesn't list {BOOK / experiment / 'train'}, in which a sweep trains; add it")
        stages["runs"] += batch.training_jobs(options.profile, experiment, training, pages)
        if not options.no_summary:
            label = f"({options.profile})"
            for path in (each for each in named if each != training):
                page = pages / f"{experiment}-{path.stem}.ipynb"
                stages["summaries"].append(batch.Job(path, page, {"profile": options.profile}, label))
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
    records = BOOK / "records" / options.profile
    steps: list[tuple] = [(publishing.records, *which, records)]
    if options.experiment == "beyond":  # no profile, because the pages store the names of their runs
        kept, root = BOOK / "records" / "beyond", runs.default_root()
        # Pages that only read records need no runs
        named = [
            each for each in claims.runs_beyond(BOOK) if (root / each).exists() or not (kept / f"{each}.json").exists()
        ]
        steps = [(publishing.record, named, kept)]
    # In other profiles, weights and pictures would overwrite those in the book
    elif options.profile == "paper" and options.experiment in publishing.WEIGHTS:
        pretrained, live = storage.PRETRAINED, BOOK / "live"
        notebook, figure = BOOK / options.experiment / "dimensions.ipynb", f"{options.experiment}-prior-samples"
        steps.append((publishing.weights, *which, pretrained))
        steps += [(pictures.shrink, page) for page in pages if page.exists()]
        steps.append((publishing.picture, notebook, f"fig-{figure}", BOOK / "pictures" / f"{figure}.png"))
        steps.append((publishing.interactive, *which, live))
        if options.experiment == "mnist":
            steps.append((publishing.training, live / "training.png"))
        else:
            walk = BOOK / "pictures" / "celeba-walk.webp"
            steps.append((publishing.animation, pretrained / "celeba-k64.safetensors", walk))
    faults = []
    for step, *arguments in steps:
        try:
            step(*arguments)
        except (ValueError, OSError) as error:  # so that the other steps still run
            faults.append(str(error))
    if faults:
        sys.exit("\n".join(["error: some files couldn't be published:", *faults]))
    print(f"published {options.experiment} from profile {options.profile!r}")


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
    except KeyboardInterrupt:
        parser.exit(130, f"{STOPPED}\n")


if __name__ == "__main__":
    main()
