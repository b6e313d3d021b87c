"""Train from the command line, for example `python -m vaelib train mnist --latent-dim 2 8`. See also `--help`."""

import argparse
import platform

from . import data, runs
from .data import paths
from .training import TrainConfig

STOPPED = "stopped; run the same command to resume from the last checkpoint, if there is one"


def train(options: argparse.Namespace) -> None:
    chosen = options.batch_size, options.learning_rate, options.precision
    configs = [TrainConfig(K, options.epochs, seed, *chosen) for seed in options.seed for K in options.latent_dim]
    if options.data and options.dataset in data.WITHOUT_FILES:
        raise ValueError(f"{options.dataset} comes with the package, so it can't be read from a folder; omit --data")
    dataset = data.load(options.dataset, options.data, options.skip_damaged)
    for config in configs:
        run = runs.train(dataset, config, options.runs, options.device, stream=options.stream)
        paths.say(f"{run.folder.name}: test ELBO {run.evaluation['test_elbo']:.2f} nats, in {run.folder}")


class Version(argparse.Action):
    """Print the versions and the device for a bug report, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        paths.say("\n".join([*map(" ".join, runs.environment(runs.choose_device()).items()), platform.platform()]))
        parser.exit()


def main() -> None:
    style = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m vaelib", description=__doc__, formatter_class=style)
    parser.add_argument("--version", action=Version, nargs=0, help="show versions and device, for bug reports")
    about = "train and evaluate the paper's model with each latent dimension and seed"
    parser.add_argument("command", choices=["train"], help=about)
    parser.add_argument("dataset", help="data set, such as mnist, celeba or digits")
    parser.add_argument("--latent-dim", type=int, nargs="+", required=True, metavar="K")
    parser.add_argument("--seed", type=int, nargs="+", default=[TrainConfig.seed], metavar="S")
    parser.add_argument("--epochs", type=int, default=TrainConfig.epochs)
    parser.add_argument("--batch-size", type=int, default=TrainConfig.batch_size)
    parser.add_argument("--learning-rate", type=float, default=TrainConfig.learning_rate)
    parser.add_argument("--precision", help="float32 or bfloat16; by default bfloat16 on NVIDIA GPUs, else float32")
    parser.add_argument("--stream", action="store_true", help="for images that exceed the device's memory")
    parser.add_argument("--data", metavar="FOLDER", help="data folder; by default VAELIB_DATA, or ~/.cache/vaelib")
    parser.add_argument("--skip-damaged", action="store_true", help="omit damaged photographs of CelebA")
    parser.add_argument("--runs", metavar="FOLDER", help="folder of runs; by default VAELIB_RUNS, or runs")
    parser.add_argument("--device", help="cpu, cuda or mps; by default cuda if available, else cpu")
    options = parser.parse_args()
    try:
        train(options)
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{STOPPED}\n")


if __name__ == "__main__":
    main()
