"""Training on this machine's CPU, beside other loops: `python tests/benchmark.py [FOLDER] [--output FILE]`.

Every loop trains the same model on the same images with the same settings, in a process of its own, in turn; those
closest to each other then take turns with short epochs in one process. The folder holds MNIST and CelebA (default:
VAELIB_DATA, else ~/.cache/vaelib); of CelebA its first images are taken. pythae and bfloat16 take part where there
are such. Then: what a step is made of, how cost grows, memory, decoding. `--peers` compares with JAX. Results are
printed, and written as JSON into `--output`, which the book's page on performance shows. Use a machine that does no
other work.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from benchmark_device import steps
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms.functional import crop, to_tensor

from vaelib import TrainConfig, binarization, burda, data, distributions, models, training
from vaelib.data import Dataset, Split, to_float
from vaelib.data.paths import root

# of the data set, how many images train and test the model, K, how many epochs are timed, and the batch size
CASES = {"digits": ("mnist", 60_000, 10_000, 2, 2, 128), "faces": ("celeba", 7_680, 768, 64, 1, 128)}
CPU = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
CASES["binary"] = ("mnist", 60_000, 10_000, 50, 1, 20)  # Burda's model of pixels that are drawn: here overhead counts


def images(case: str, folder: str | None, count: int | None = None) -> Dataset:
    name, train, test, *_ = CASES[case]
    whole = data.load(name, folder)
    return Dataset(name, Split(whole.train.images[: count or train]), Split(whole.test.images[:test]))


class Photographs:
    """Of the loop as the authors have it: each image is opened, cut and turned into a tensor when it is needed."""

    def __init__(self, case: str, folder: str | None):
        self.case = case
        if case == "digits":  # torchvision's MNIST keeps them in memory as well, and makes an image of each
            self.images = images(case, folder).train.images.numpy()
        else:
            self.images = sorted(root(folder).glob("celeba/img_align_celeba/*.jpg"))[: CASES[case][1]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.case == "digits":
            return to_tensor(Image.fromarray(self.images[index][0]))
        with Image.open(self.images[index]) as photograph:
            return to_tensor(crop(photograph, 30, 20, 64, 48))


def authors(case: str, folder: str | None) -> float:
    """A DataLoader that transforms each image, and a loss that is read at each step."""
    loader = DataLoader(Photographs(case, folder), 128, shuffle=True)
    return plain(case, lambda: loader, read=True)


def memory(case: str, folder: str | None) -> float:
    """A bare loop over batches that lie in memory as float32."""
    batches = to_float(images(case, folder).train.images).split(128)
    return plain(case, lambda: batches)


def tuned(case: str, folder: str | None) -> float:
    """The same with the two switches that vaelib sets: fused Adam, and tiny numbers rounded to zero."""
    batches = to_float(images(case, folder).train.images).split(128)
    torch.set_flush_denormal(True)
    return plain(case, lambda: batches, fused=True)


def complete(case: str, folder: str | None) -> float:
    """The tuned loop with as much to do as fit has: bytes in an order of chance, and test images after each epoch."""
    found = images(case, folder)
    torch.set_flush_denormal(True)

    def batches() -> Iterator:
        return (to_float(found.train.images[part]) for part in torch.randperm(len(found.train)).split(128))

    @torch.inference_mode()
    def test(model: models.VAE) -> None:
        model.eval()
        for x in found.test.images.split(128):
            model.elbo(to_float(x))
        model.train()

    return plain(case, batches, fused=True, after=test)


def plain(case: str, batches: Callable, fused: bool = False, read: bool = False, after: Callable = id) -> float:
    """Seconds of a loop without any library; after each epoch, `after` gets the model, and does nothing by default."""
    model = build(case)
    optimizer, total = torch.optim.Adam(model.parameters(), fused=fused), 0.0
    started = time.perf_counter()
    for _ in range(CASES[case][4]):
        for x in batches():
            reconstruction, kl = model.elbo(x)
            loss = (kl - reconstruction).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() if read else 0.0
        after(model)
    return time.perf_counter() - started


def pythae(case: str, folder: str | None) -> float:
    """pythae's trainer, with the same networks, on images that lie in memory as float32."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    shape, ours = images(case, folder).image_shape, build(case)

    class Encoder(BaseEncoder):
        def forward(self, x):
            mean, log_variance = distributions.mean_and_log_variance(self.part(x))
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def forward(self, z):
            return ModelOutput(reconstruction=self.part(z).mean)

    theirs = VAEConfig(input_dim=shape, latent_dim=CASES[case][3], reconstruction_loss="bce")
    encoder, decoder = Encoder(), Decoder()
    encoder.part, decoder.part = ours.encoder, ours.decoder
    model = VAE(theirs, encoder=encoder, decoder=decoder)
    x = to_float(images(case, folder).train.images)
    with tempfile.TemporaryDirectory() as output:
        settings = {"num_epochs": CASES[case][4], "per_device_train_batch_size": 128, "learning_rate": 1e-3}
        config = BaseTrainerConfig(output_dir=output, no_cuda=True, **settings)
        trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), training_config=config)
        trainer.prepare_training()
        started = time.perf_counter()
        for epoch in range(1, CASES[case][4] + 1):
            trainer.train_step(epoch)
        return time.perf_counter() - started


def ours(case: str, folder: str | None, precision: str | None = None) -> float:
    """vaelib.training.fit, with its random order, progress, metrics on test images after each epoch, checkpoints."""
    config = TrainConfig(CASES[case][3], CASES[case][4], batch_size=CASES[case][5], precision=precision)
    dataset, model = images(case, folder), build(case)
    torch.set_flush_denormal(True)  # as importing the package does, which here has long been undone
    with tempfile.TemporaryDirectory() as runs:
        started = time.perf_counter()
        training.fit(model, dataset, config, Path(runs))
        return time.perf_counter() - started


def bfloat16(case: str, folder: str | None) -> float:
    """The same, with matrix products and convolutions in bfloat16."""
    return ours(case, folder, "bfloat16")


def build(case: str, latent_dim: int | None = None) -> models.VAE:
    size, grey = latent_dim or CASES[case][3], (1, 28, 28)
    if case == "binary":
        return binarization.binarized(grey, size, partial(burda.build, means=torch.full(grey, 0.1)))
    return models.build(grey if case == "digits" else (3, 64, 48), size)


def functions(case: str, folder: str | None, compiled: bool = False) -> float:
    """A fully connected case in plain functions of torch: no modules, no distributions, no sums for each image."""
    found, weights = images(case, folder), [*build(case).parameters()]
    train, test = found.train.images.flatten(1), found.test.images.flatten(1)
    bend, size = torch.tanh if case == "binary" else torch.relu, CASES[case][5]
    optimizer = torch.optim.Adam(weights, fused=True)
    torch.set_flush_denormal(True)

    def layer(number: int, h: torch.Tensor) -> torch.Tensor:
        return F.linear(h, weights[2 * number], weights[2 * number + 1])

    def loss(x: torch.Tensor) -> torch.Tensor:
        x = to_float(x)
        if case == "binary":
            x = (torch.rand_like(x) < x).float()
        h = bend(layer(1, bend(layer(0, x))))
        mean, log_variance = layer(2, h), layer(3, h)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        logits = layer(6, bend(layer(5, bend(layer(4, z)))))
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
        return (kl + F.binary_cross_entropy_with_logits(logits, x, reduction="sum")) / len(x)

    faster = torch.compile(loss, dynamic=False) if compiled else loss
    faster(train[:size]).backward()  # compiled before the clock starts
    started = time.perf_counter()
    for _ in range(CASES[case][4]):
        for part in torch.randperm(len(train)).split(size):
            value = (faster if len(part) == size else loss)(train.index_select(0, part))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        with torch.inference_mode():
            for x in test.split(1000):
                loss(x)
    return time.perf_counter() - started


def compiled(case: str, folder: str | None) -> float:
    """The same, its loss and gradients compiled by inductor; the optimizer's step is as it was."""
    return functions(case, folder, compiled=True)


def jax(case: str, folder: str | None) -> float:
    """A fully connected case in JAX: pure functions, an epoch as one scan, compiled before the clock starts."""
    import optax
    from jax import Array, grad, jit, lax, nn, random
    from jax import numpy as jnp

    if hasattr(os, "sched_setaffinity"):  # it starts as many threads as it finds cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: torch.get_num_threads()])
    found, size = images(case, folder), CASES[case][5]
    train, test = (jnp.asarray(split.images.flatten(1).numpy()) for split in (found.train, found.test))
    weights = [jnp.asarray(each.detach().numpy().T) for each in build(case).parameters()]
    optimizer, bend = optax.adam(1e-3), jnp.tanh if case == "binary" else nn.relu

    def loss(weights: list[Array], x: Array, key: Array) -> Array:
        def layer(number: int, h: Array) -> Array:
            return h @ weights[2 * number] + weights[2 * number + 1]

        drawn, noise = random.split(key)
        x = x.astype(jnp.float32) / 255
        if case == "binary":
            x = (random.uniform(drawn, x.shape) < x).astype(jnp.float32)
        h = bend(layer(1, bend(layer(0, x))))
        mean, log_variance = layer(2, h), layer(3, h)
        z = mean + jnp.exp(0.5 * log_variance) * random.normal(noise, mean.shape)
        logits = layer(6, bend(layer(5, bend(layer(4, z)))))
        kl = -0.5 * (1 + log_variance - mean**2 - jnp.exp(log_variance)).sum(1)
        return (kl - (logits * x - nn.softplus(logits)).sum(1)).mean()

    def epoch(state: tuple, train: Array, test: Array) -> tuple[tuple, Array]:
        def step(state: tuple, batch: Array) -> tuple[tuple, None]:
            weights, moments, key = state
            key, own = random.split(key)
            changes, moments = optimizer.update(grad(loss)(weights, train[batch], own), moments)
            return (optax.apply_updates(weights, changes), moments, key), None

        *state, key = state
        key, order, noise = random.split(key, 3)
        # a scan wants batches of one size: the last is filled up with images that come once more
        batches = jnp.resize(random.permutation(order, len(train)), (-(-len(train) // size), size))
        state, _ = lax.scan(step, (*state, key), batches)
        return state, loss(state[0], test, noise)

    state = weights, optimizer.init(weights), random.key(0)
    compiled = jit(epoch, donate_argnums=0).lower(state, train, test).compile()
    started = time.perf_counter()
    for _ in range(CASES[case][4]):
        state, value = compiled(state, train, test)
        value.block_until_ready()
    return time.perf_counter() - started


def measured(loop: Callable, threads: int, *arguments: object) -> tuple[float, float]:
    """What a loop returns, and how many MB its process had at most."""
    torch.set_num_threads(threads)
    for fused in (False, True):  # what torch does at the first step of all is no loop's fault
        plain("digits", lambda: [torch.rand(8, 1, 28, 28)], fused)
    torch.set_flush_denormal(False)
    result = loop(*arguments)
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000  # kB on Linux


def alone(loop: Callable, *arguments: object) -> tuple[float, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measured, loop, *arguments).result()


def rate(case: str, folder: str | None, latent_dim: int, batch_size: int, count: int) -> float:
    """Images a second of fit in its second epoch, the evaluation after it included."""
    dataset = images(case, folder, count)
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as runs:
        config = TrainConfig(latent_dim, 2, batch_size=batch_size)
        lines = training.fit(build(case, latent_dim), dataset, config, Path(runs))
    return count / lines[1]["seconds"]


def turns(case: str, folder: str | None, loops: list[Callable], part: int = 5, count: int = 12) -> dict:
    """Seconds that epochs of a part of the images take, in turn in one process: what slows it a while slows them all.

    Only loops that round tiny numbers to zero are to be compared so: there are none yet after so few steps.
    """
    name, train, test, latent_dim, _, size = CASES[case]
    CASES[case] = (name, train // part, test // part, latent_dim, 1, size)
    rounds = [[loop(case, folder) for loop in loops] for _ in range(count)]
    seconds = zip(*rounds[1:], strict=True)  # in the first, torch writes the code for bfloat16
    return {loop.__name__: list(found) for loop, found in zip(loops, seconds, strict=True)}


KINDS = {"matrix products": ("mm", "linear"), "convolutions": ("conv",), "normalisation": ("norm",), "Adam": ("adam",)}
KINDS |= {"copies": ("copy", "index", "cat", "clone"), "random numbers": ("normal_",)}


def parts(case: str) -> dict[str, float]:
    """The share of a step's time that each kind of operation takes, by torch.profiler."""
    model, spent = build(case), Counter()
    x = torch.rand(128, *model.image_shape)
    steps(model, x, 3)  # to warm up
    for each in steps(model, x, 10).key_averages():
        kind = next((kind for kind, names in KINDS.items() if any(it in each.key.lower() for it in names)), "the rest")
        spent[kind] += each.self_cpu_time_total
    return {kind: value / spent.total() for kind, value in spent.most_common()}


def decoded(folder: str | None) -> float:
    """Photographs a second, cut out and decoded into the cache of the package."""
    place = root(folder) / "celeba"
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name, "celeba")
        (copy / "img_align_celeba").mkdir(parents=True)
        photographs = sorted((place / "img_align_celeba").glob("*.jpg"))[:2000]
        for each in photographs:
            (copy / "img_align_celeba" / each.name).symlink_to(each)
        for each in place.glob("*.txt"):
            (copy / each.name).symlink_to(each)
        started = time.perf_counter()
        found = data.load("celeba", name)
        return (len(found.train) + len(found.test)) / (time.perf_counter() - started)


def many(workers: int, folder: str | None) -> float:
    """Seconds for four trainings of one thread each, so many at a time."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as executor:
        list(executor.map(measured, [int] * workers, [1] * workers))  # until they have imported what they need
        started = time.perf_counter()
        list(executor.map(measured, [ours] * 4, [1] * 4, ["digits"] * 4, [folder] * 4))
        return time.perf_counter() - started


def imported(module: str) -> float:
    """Seconds of a process that imports it: the least of seven."""
    times = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("benchmark-cpu.json"))
    parser.add_argument("--peers", action="store_true", help="only whole epochs in turn with JAX, which must be there")
    options = parser.parse_args()
    folder, cores = options.folder, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    result = {"processor": processor(), "cores": cores, "torch": torch.__version__, "python": platform.python_version()}

    def note(part: str, found: object) -> None:  # at once, for what comes later may fail
        result[part] = found
        options.output.write_text(json.dumps(result, indent=1) + "\n")

    if options.peers:
        result["jax"] = version("jax")
        for case in ("binary", "digits"):
            note(case, alone(turns, 1, case, folder, [functions, compiled, ours, jax], 1, 7)[0])
        return
    loops = [authors, memory, tuned, complete, ours]
    if "avx512_bf16" in CPU:
        loops.append(bfloat16)
    if find_spec("pythae"):
        loops.insert(1, pythae)
    for case in ("digits", "faces"):
        found = {loop.__name__: {"seconds": [], "megabytes": []} for loop in loops}
        for _ in range(options.repeats):  # in turn, so that a machine that drifts is unfair to nobody
            for loop in loops:
                seconds, megabytes = alone(loop, cores, case, folder)
                found[loop.__name__]["seconds"].append(seconds)
                found[loop.__name__]["megabytes"].append(megabytes)
        count = CASES[case][1] * CASES[case][4]
        note(case, {"images": count, "threads": cores, "loops": found, "parts": alone(parts, 1, case)[0]})
        near = [loop for loop in loops if loop in (tuned, complete, ours, bfloat16)]
        in_turn = {threads: alone(turns, threads, case, folder, near)[0] for threads in (1, cores)}
        note(case, result[case] | {"turns": in_turn})
        print(case, {name: f"{count / min(row['seconds']):,.0f} images/s" for name, row in found.items()}, flush=True)
    count = {"digits": 38_400, "faces": 2_560}
    varied = {
        "latent_dim": [(K, 128, 1.0, cores) for K in (2, 16, 64, 256)],
        "batch_size": [(2, size, 1.0, cores) for size in (32, 128, 512)],
        "images": [(2, 128, share, cores) for share in (0.25, 0.5, 1.0)],
        "threads": [(2, 128, 1.0, threads) for threads in range(1, cores + 1)],
    }
    growth = {}
    for case in count:
        for name, rows in varied.items():
            growth[f"{case}, {name}"] = [
                [*row, alone(rate, row[3], case, folder, row[0], row[1], int(row[2] * count[case]))[0]] for row in rows
            ]
    note("growth", growth)
    note("workers", {str(workers): many(workers, folder) for workers in (1, 2)})
    note("decoded", alone(decoded, cores, folder)[0])
    note("imports", {module: imported(module) for module in ("torch", "vaelib")})


def processor() -> str:
    name = re.search(r"model name\s*: (.*)", CPU)
    tiles = " (with AMX)" if "amx_bf16" in CPU else ""  # bfloat16 gains more by these
    return (name[1] if name else platform.processor()) + tiles


if __name__ == "__main__":
    main()
