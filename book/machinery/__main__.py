"""Sweep and publish, run in the project's folder; `python -m book.machinery COMMAND --help` tells more."""

import argparse
import os
import re
import sys
from pathlib import Path

from joblib import cpu_count  # not os.cpu_count: this knows the limits of a container, too

from vaelib import runs, storage
from vaelib.__main__ import STOPPED

from . import claims, pictures, profiles
from . import publish as publishing
from . import sweep as batch

BOOK = Path("book")


def chapters() -> list[Path]:
    """The pages that the book's table of contents names, without their endings.

    Raises FileNotFoundError if there is no book in this folder.
    """
    table = Path("_toc.yml")
    if not table.exists():
        raise FileNotFoundError(f"no book here: {Path.cwd()} has no _toc.yml; run this in the project's folder")
    return [Path(name) for name in re.findall(r"\bfile: (\S+)", table.read_text("utf-8"))]


def sweep(options: argparse.Namespace) -> None:
    os.environ["VAELIB_RUNS"] = str(runs.default_root().resolve())  # a kernel runs in its notebook's folder
    if "VAELIB_DATA" in os.environ:
        os.environ["VAELIB_DATA"] = str(Path(os.environ["VAELIB_DATA"]).expanduser().resolve())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // max(1, options.workers))))
    os.environ["TQDM_DISABLE"] = "1"  # for the kernels, whose progress bars would end up in the pages
    # Kernels say so too, but only after the process that they are forked from has imported matplotlib
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    stages: dict[str, list[batch.Job]] = {"runs": [], "summaries": []}
    pages = (BOOK / "runs" / options.profile).resolve()
    for experiment in dict.fromkeys(options.experiment):
        profiles.load(options.profile, experiment)  # a mistyped one is told before its notebooks are looked for
        named = [path.with_suffix(".ipynb").resolve() for path in chapters() if path.parent == BOOK / experiment]
        training = (BOOK / experiment / "train.ipynb").resolve()
        if training not in named:
            raise ValueError(f"_toc.yml names no {BOOK / experiment / 'train'}, in which a sweep trains")
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
        os._exit(130)  # the usual exit waits for all threads; the kernels end when they see this process gone


def publish(options: argparse.Namespace) -> None:
    pages = [path.with_suffix(".ipynb") for path in chapters()]
    which = options.profile, options.experiment
    records = BOOK / "records" / options.profile
    steps: list[tuple] = [(publishing.records, *which, records)]
    if options.experiment == "beyond":  # has no profile: the pages say which runs they have
        kept, root = BOOK / "records" / "beyond", runs.default_root()
        # A page that only reads records needs no run here
        named = [
            each for each in claims.runs_beyond(BOOK) if (root / each).exists() or not (kept / f"{each}.json").exists()
        ]
        steps = [(publishing.record, named, kept)]
    # Of another profile, weights and pictures would take the place of those that the book shows
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
        except (ValueError, OSError) as error:  # no reason to leave out the others
            faults.append(str(error))
    if faults:
        sys.exit("\n".join(["error: not all could be published:", *faults]))
    print(f"published {options.experiment} from profile {options.profile!r}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m book.machinery", description=__doc__)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--profile", default="paper", help="which of book/machinery/profiles.py (default: paper)")

    told = "execute experiments' notebooks for all of a profile's runs, several at once"
    command = commands.add_parser("sweep", parents=[common], help=told, description=told)
    command.set_defaults(function=sweep)
    command.add_argument("experiment", nargs="+", help="such as mnist; the longest first is fastest")
    command.add_argument("--workers", type=int, default=cpu_count(), metavar="N", help="notebooks at once")
    command.add_argument("--no-summary", action="store_true", help="only train.ipynb, not the pages that sum up")

    told = (
        "copy all runs' records into the book, of an experiment or, of the pages beyond the paper, by the name beyond; "
        "of the paper profile's mnist and celeba also pictures, interactive pages' data, and weights into the package"
    )
    command = commands.add_parser("publish", parents=[common], help=told, description=told)
    command.set_defaults(function=publish)
    command.add_argument("experiment", help="such as mnist")

    options = parser.parse_args()
    try:
        options.function(options)
    except (ValueError, OSError, RuntimeError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{STOPPED}\n")


if __name__ == "__main__":
    main()
