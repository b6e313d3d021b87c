"""`python -m vaelib train mnist`: train all of a profile's runs of an experiment, or some, without Jupyter."""

import argparse
from dataclasses import replace

from . import data, profiles, runs


def train(options: argparse.Namespace) -> None:
    experiment = profiles.load(options.profile, options.experiment)
    schedule = experiment.long if options.long else experiment.short
    schedule = replace(schedule, epochs=options.epochs or schedule.epochs, seeds=options.seed or schedule.seeds)
    experiment = replace(experiment, latent_dims=options.latent_dim or experiment.latent_dims)
    dataset = data.load(experiment.dataset, options.data)
    for settings in experiment.settings(schedule):
        run = runs.train(dataset, settings, options.runs, options.device)
        print(f"{run.folder.name}: test ELBO {run.evaluation['test_elbo']:.2f} nats", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vaelib", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train", help="train and evaluate runs, one after the other; finished ones are kept")
    command.set_defaults(function=train)
    command.add_argument("experiment", help="such as mnist")
    command.add_argument("--profile", default="paper", help="which of vaelib/profiles.yml (default: paper)")
    command.add_argument("--long", action="store_true", help="the profile's long training instead of the paper's")
    command.add_argument("--latent-dim", type=int, nargs="+", metavar="K", help="only these (default: the profile's)")
    command.add_argument("--seed", type=int, nargs="+", metavar="S", help="only these (default: the profile's)")
    command.add_argument("--epochs", type=int, help="instead of the profile's")
    command.add_argument("--data", metavar="FOLDER", help="of the data (default: VAELIB_DATA, else ~/.cache/vaelib)")
    command.add_argument("--runs", metavar="FOLDER", help="of the runs (default: VAELIB_RUNS, else runs)")
    command.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    options = parser.parse_args()
    try:
        options.function(options)
    except (ValueError, FileNotFoundError, RuntimeError, FloatingPointError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
