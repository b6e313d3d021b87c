"""Train and publish from the command line; `python -m vaelib COMMAND --help` tells more."""

import argparse
import os
import platform
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from joblib import cpu_count

from . import data, runs, storage
from .book import profiles

STOPPED = "stopped; the same command goes on from what was last saved"


def train(options: argparse.Namespace) -> None:
    experiment = profiles.load(options.profile, options.experiment)
    schedule = experiment.long if options.long else experiment.short
    if schedule is None:
        raise ValueError(
            f"profile {options.profile!r} has no long training of {options.experiment!r}; leave out --long, and set "
            "--epochs"
        )
    epochs = schedule.epochs if options.epochs is None else options.epochs
    schedule = replace(schedule, epochs=epochs)
    if options.seed or options.latent_dim:
        schedule = replace(schedule, seeds=options.seed or schedule.seeds, more_seeds={})
    experiment = replace(experiment, latent_dims=options.latent_dim or experiment.latent_dims)
    chosen = {"precision": options.precision, "block": options.block}
    settings = [replace(each, **chosen) for each in experiment.settings(schedule)]
    dataset = data.load(experiment.dataset, options.data, options.skip_damaged)
    for each in settings:
        run = runs.train(dataset, each, options.runs, options.device)
        print(f"{run.folder.name}: test ELBO {run.evaluation['test_elbo']:.2f} nats, in {run.folder}", flush=True)


def sweep(options: argparse.Namespace) -> None:
    from .book import sweep as batch  # papermill is needed for this alone, and a machine that only trains may lack it

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
    from .book import claims, pictures
    from .book import publish as publishing

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


class Version(argparse.Action):
    """Print what a report of a fault should tell, and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        for package in ("vaelib", "torch", "torchvision", "numpy"):
            print(package, version(package))
        print("Python", platform.python_version())
        print(platform.platform())
        print(runs.device_name(runs.choose_device()))
        parser.exit()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vaelib", description=__doc__)
    parser.add_argument("--version", action=Version, nargs=0, help="of all that matters, for a report of a fault")
    commands = parser.add_subparsers(required=True)

    profile = argparse.ArgumentParser(add_help=False)
    profile.add_argument("--profile", default="paper", help="which of vaelib/book/profiles.yml (default: paper)")
    common = argparse.ArgumentParser(add_help=False, parents=[profile])
    common.add_argument("experiment", help="such as mnist")

    command = commands.add_parser(
        "train", parents=[common], help="train and evaluate runs, one after the other, without Jupyter"
    )
    command.set_defaults(function=train)
    command.add_argument("--long", action="store_true", help="the profile's long training instead of the paper's")
    command.add_argument("--latent-dim", type=int, nargs="+", metavar="K", help="only these (default: the profile's)")
    command.add_argument("--seed", type=int, nargs="+", metavar="S", help="only these (default: the profile's)")
    command.add_argument("--epochs", type=int, help="instead of the profile's")
    command.add_argument("--precision", help="float32 or bfloat16 (default: bfloat16 on a GPU by NVIDIA, else float32)")
    command.add_argument("--block", type=int, metavar="N", help="images on the device at a time (default: all)")
    command.add_argument("--data", metavar="FOLDER", help="of the data (default: VAELIB_DATA, else ~/.cache/vaelib)")
    command.add_argument("--skip-damaged", action="store_true", help="leave damaged photographs of CelebA out")
    command.add_argument("--runs", metavar="FOLDER", help="of the runs (default: VAELIB_RUNS, else runs)")
    command.add_argument("--device", help="cpu, cuda or mps (default: cuda if there is one, else cpu)")

    command = commands.add_parser(
        "sweep",
        parents=[profile],
        help="execute experiments' notebooks for all of a profile's runs, several at once",
    )
    command.add_argument("experiment", nargs="+", help="such as mnist; the longest first is fastest")
    command.set_defaults(function=sweep)
    command.add_argument("--book", type=Path, default=Path("book"), metavar="FOLDER", help="of the notebooks")
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
    command.set_defaults(function=publish)
    command.add_argument("--book", type=Path, default=Path("book"), metavar="FOLDER", help="of the notebooks")
    command.add_argument("--weights", type=Path, metavar="FOLDER", help="for the weights, of any profile")

    options = parser.parse_args()
    if getattr(options, "workers", 1) < 1:
        parser.error("--workers must be at least 1")
    try:
        options.function(options)
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{STOPPED}\n")


if __name__ == "__main__":
    main()
