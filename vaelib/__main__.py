"""Train and publish from the command line; `python -m vaelib COMMAND --help` tells more."""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from . import data, models, profiles, runs


def train(options: argparse.Namespace) -> None:
    experiment = profiles.load(options.profile, options.experiment)
    schedule = experiment.long if options.long else experiment.short
    epochs = schedule.epochs if options.epochs is None else options.epochs
    schedule = replace(schedule, epochs=epochs)
    if options.seed or options.latent_dim:
        schedule = replace(schedule, seeds=options.seed or schedule.seeds, more_seeds={})
    experiment = replace(experiment, latent_dims=options.latent_dim or experiment.latent_dims)
    settings = experiment.settings(schedule)
    dataset = data.load(experiment.dataset, options.data)
    for each in settings:
        run = runs.train(dataset, each, options.runs, options.device)
        print(f"{run.folder.name}: test ELBO {run.evaluation['test_elbo']:.2f} nats", flush=True)


def sweep(options: argparse.Namespace) -> None:
    from . import sweep as batch  # papermill is needed for this alone, and a machine that only trains may lack it

    folder = options.book / options.experiment
    if not (folder / "train.ipynb").exists():
        raise FileNotFoundError(f"no train.ipynb in {folder}; run this in the project's folder, or give --book")
    for variable in ("VAELIB_DATA", "VAELIB_RUNS"):  # a kernel runs in its notebook's folder
        if variable in os.environ:
            os.environ[variable] = str(Path(os.environ[variable]).expanduser().resolve())
    pages = options.book / "runs" / options.profile
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.workers)))
    os.environ["TQDM_DISABLE"] = "1"  # for the kernels, whose progress bars would end up in the pages
    summaries = [path for path in sorted(folder.glob("*.ipynb")) if path.stem != "train"]
    stages = {"runs": batch.training_jobs(options.profile, options.experiment, folder / "train.ipynb", pages)}
    if not options.no_summary:
        stages["summaries"] = batch.summary_jobs(options.profile, options.experiment, summaries, pages)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor:
        for description, jobs in stages.items():
            if failures := batch.sweep(jobs, executor, f"{options.profile} {options.experiment} {description}"):
                for job, error in failures.items():
                    print(f"\n{job.page.stem} failed, see {job.failure}:\n{error}", file=sys.stderr)
                sys.exit(f"{len(failures)} of {len(jobs)} {description} failed")


def publish(options: argparse.Namespace) -> None:
    from . import publish as publishing

    for page in options.book.rglob("*.ipynb"):
        publishing.shrink(page)
    folders = publishing.records(options.profile, options.experiment, options.book / "records" / options.profile)
    picture = options.book / "pictures" / f"{options.experiment}-prior-samples.png"
    notebook = options.book / options.experiment / "dimensions.ipynb"
    publishing.picture(notebook, f"fig-{options.experiment}-prior-samples", picture)
    weights = publishing.weights(options.profile, options.experiment, models.WEIGHTS)
    page = publishing.interactive(options.profile, options.experiment, options.book / "live")
    print(f"{len(folders)} records beside {folders[0]}; {picture}; {', '.join(map(str, weights))}; {page}")
    if options.experiment == "celeba":
        publishing.animation(models.load(weights[0]), options.book / "pictures" / "celeba-walk.webp")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vaelib", description=__doc__)
    commands = parser.add_subparsers(required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("experiment", help="such as mnist")
    common.add_argument("--profile", default="paper", help="which of vaelib/profiles.yml (default: paper)")

    command = commands.add_parser(
        "train", parents=[common], help="train and evaluate runs, one after the other, without Jupyter"
    )
    command.set_defaults(function=train)
    command.add_argument("--long", action="store_true", help="the profile's long training instead of the paper's")
    command.add_argument("--latent-dim", type=int, nargs="+", metavar="K", help="only these (default: the profile's)")
    command.add_argument("--seed", type=int, nargs="+", metavar="S", help="only these (default: the profile's)")
    command.add_argument("--epochs", type=int, help="instead of the profile's")
    command.add_argument("--data", metavar="FOLDER", help="of the data (default: VAELIB_DATA, else ~/.cache/vaelib)")
    command.add_argument("--runs", metavar="FOLDER", help="of the runs (default: VAELIB_RUNS, else runs)")
    command.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")

    command = commands.add_parser(
        "sweep",
        parents=[common],
        help="execute the experiment's notebooks for all of a profile's runs, several at once",
    )
    command.set_defaults(function=sweep)
    command.add_argument("--book", type=Path, default=Path("book"), metavar="FOLDER", help="of the notebooks")
    command.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="notebooks at once")
    command.add_argument("--no-summary", action="store_true", help="only train.ipynb, not the pages that sum up")

    command = commands.add_parser(
        "publish",
        parents=[common],
        help="copy all runs' records, the front page's picture and the interactive pages' data into the book, weights "
        "into the package",
    )
    command.set_defaults(function=publish)
    command.add_argument("--book", type=Path, default=Path("book"), metavar="FOLDER", help="of the notebooks")

    options = parser.parse_args()
    if getattr(options, "workers", 1) < 1:
        parser.error("--workers must be at least 1")
    try:
        options.function(options)
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "stopped; the same command goes on from the last checkpoint\n")


if __name__ == "__main__":
    main()
