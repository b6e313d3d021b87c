"""Try to lose work: `python tests/system/campaign.py` kills, cuts the power, fills disks and damages files, and counts.

Every trial ends in one of these ways: the same result as without the fault; an error that names the file; or a fault of
ours, which is listed: finished work lost, a record of what was not trained, another result, a traceback instead of an
error message. `--short` does a few of each, in less than two minutes. The table is printed, and written as JSON with
`--json FILE`. Needs Linux; what needs root is left out, and said, where that is not to be had.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import inspect
import io
import json
import os
import platform
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TQDM_DISABLE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from conftest import lay_out_celeba, tiny_digits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tabulate import tabulate

from book.machinery import profiles, publish
from vaelib import TrainConfig, data, evaluation, runs, training
from vaelib.data import Dataset

CLEAR = (ValueError, FileNotFoundError, RuntimeError, OSError)  # what may be raised, with the name of a file
SETTINGS = TrainConfig(latent_dim=2, epochs=6, batch_size=32)
EXT4_SHUTDOWN, WITHOUT_FLUSHING = 0x8004587D, struct.pack("I", 2)


# One trial


def child(work: Callable, *arguments) -> tuple[int, int]:
    """Start work in a process of its own, which inherits what is imported; its number, and where its result comes."""
    reading, writing = os.pipe()
    if process := os.fork():
        os.close(writing)
        with contextlib.suppress(OSError):  # which the child may have done, and ended
            os.setpgid(process, process)
        return process, reading
    os.setpgid(0, 0)
    os.close(reading)
    torch.set_num_threads(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    try:
        result = {"result": work(*arguments)}
    except CLEAR as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    except BaseException:
        result = {"traceback": traceback.format_exc()}
    os.write(writing, json.dumps(result).encode()[:65536])
    os._exit(0)


def ended(started: tuple[int, int]) -> dict:
    """What the process left: a result, an error, a traceback; or nothing, if it was killed."""
    process, reading = started
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(process, 0)
    return json.loads(text) if text else {"killed": True}


def alone(work: Callable, *arguments) -> dict:
    return ended(child(work, *arguments))


class Table:
    """What was tried, how often, and what became of it."""

    def __init__(self):
        self.rows: dict[str, dict[str, int]] = {}
        self.faults: list[str] = []

    def add(self, what: str, outcome: str, fault: str = "") -> None:
        row = self.rows.setdefault(what, {"trials": 0, "same": 0, "told": 0, "unnoticed": 0, "faults": 0})
        row["trials"] += 1
        row[outcome] += 1
        if fault:
            self.faults.append(f"{what}: {fault}")
            print(f"FAULT {self.faults[-1]}", file=sys.stderr, flush=True)

    def judge(self, what: str, left: dict, expected: object, names: str | None = None) -> None:
        """Count a trial; `expected` is the result without the fault, `names` what an error must tell, if it may."""
        if "result" in left:
            same = left["result"] == json.loads(json.dumps(expected))
            self.add(what, "same" if same else "faults", "" if same else f"another result, {left['result']!r:.300}")
        elif names is not None and names in left.get("error", ""):
            self.add(what, "told")
        else:
            self.add(what, "faults", str(left)[:1500])


def digest(folder: Path) -> dict:
    """All that a complete run holds, but for times."""
    run = runs.load(folder)
    weights = b"".join(tensor.numpy().tobytes() for tensor in run.model().state_dict().values())
    metrics = [line | {"seconds": 0} for line in run.metrics]
    found = {"weights": hashlib.sha256(weights).hexdigest(), "data": run.record["data"]["fingerprint"]}
    return found | {"metrics": metrics, "evaluation": run.evaluation}


def train(dataset: Dataset, root: Path, settings: TrainConfig = SETTINGS) -> dict:
    """Train with a checkpoint at every look, as if it took hours."""
    training.CHECK_EVERY = 2
    training.time = SimpleNamespace(monotonic=lambda: 0.0)  # what writing one takes does not put off the next
    return digest(runs.train(dataset, settings, root, "cpu", checkpoint_seconds=0).folder)


# Killed


def kernels(folder: Path) -> list[str]:
    """The processes that work in a folder, as kernels do in their notebook's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(process.name)
    return found


def kill(table: Table, what: str, work: Callable, expected: object, trials: int, seconds: float, chance, *arguments):
    """Kill work at random moments of its whole length; whoever does it again must come to the same."""
    fresh = 0
    for _ in range(trials):
        places = [argument(fresh) if callable(argument) else argument for argument in arguments]
        started = child(work, *places)
        time.sleep(chance.uniform(0, 1.1 * seconds))
        os.killpg(started[0], signal.SIGKILL)  # a sweep's kernels are of other groups, and must notice
        left, deadline = ended(started), time.monotonic() + 5
        while (alive := kernels(places[-1])) and time.monotonic() < deadline:
            time.sleep(0.1)
        if alive:
            table.add(what, "faults", f"kernels {alive} live on after five seconds")
        if "killed" in left and chance.random() < 0.5:  # it is killed again, where it stands now
            table.add(what, "same")
            continue
        table.judge(what, alone(work, *places) if "killed" in left else left, expected)
        fresh += 1


def timed(work: Callable, *arguments) -> tuple[dict, float]:
    started = time.monotonic()
    left = alone(work, *arguments)
    if "result" not in left:
        sys.exit(f"without any fault: {left}")
    return left["result"], time.monotonic() - started


def faces(folder: Path, count: int) -> Path:
    """Noisy pictures in the form of CelebA."""
    noise = np.random.default_rng(0)
    pictures = (Image.fromarray(noise.integers(0, 256, (109, 89, 3), np.uint8)) for _ in range(count))
    lay_out_celeba(folder, pictures, [0 if number < count * 0.8 else 2 for number in range(count)])
    return folder


def decode(folder: Path) -> dict:
    loaded = data.load("celeba", folder)
    pixels = b"".join(split.images.numpy().tobytes() for split in (loaded.train, loaded.test))
    return {"pixels": hashlib.sha256(pixels).hexdigest(), "data": loaded.fingerprint}


def published(root: Path, folder: Path) -> dict:
    """Publish two runs of a profile of our own: their records, and weights of half precision."""
    os.environ["VAELIB_RUNS"] = str(root)
    plan = profiles.Experiment("tiny", [1, 2], profiles.Schedule(SETTINGS.epochs, [0]))
    profiles.load = lambda *_: plan
    publish.records("paper", "mnist", folder / "records")
    publish.weights("paper", "mnist", folder / "weights")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def notebook(path: Path) -> Path:
    """A notebook that trains a tiny run, and shows a number of it."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from vaelib import TrainConfig, data, runs\n"
        "from vaelib.data import Dataset, Split\n"
        f"{inspect.getsource(tiny_digits)}"
        "settings = TrainConfig(latent_dim, epochs=4, batch_size=32)\n"
        f"run = runs.train(tiny_digits(), settings, {str(path.parent / 'runs')!r}, 'cpu')\n"
        "run.evaluation['test_elbo']"
    )
    cells = [new_markdown_cell("# A page"), new_code_cell("latent_dim = 1", metadata={"tags": ["parameters"]})]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True)
    nbformat.write(new_notebook(cells=[*cells, new_code_cell(code)], metadata={"kernelspec": kernel}), path)
    return path


def jobs(folder: Path) -> list:
    """Two pages that train a tiny run each."""
    from book.machinery import sweep as batch

    path = folder / "train.ipynb"
    if not path.exists():
        notebook(path)
    return [
        batch.Job(path, folder / "pages" / f"k{K}.ipynb", {"latent_dim": K}, f"K = {K}",
                  folder / "runs" / runs.name("tiny", TrainConfig(K, epochs=4, batch_size=32)))
        for K in (1, 2)
    ]  # fmt: skip


def sweep(folder: Path) -> dict:
    """Make the pages by one worker; what they show."""
    from book.machinery import sweep as batch

    both = jobs(folder)
    if failures := batch.sweep(both, 1):
        raise RuntimeError(str(next(iter(failures.values()))))
    return {job.page.name: json.loads(job.page.read_text())["cells"][-1]["outputs"] for job in both}


def page(folder: Path) -> object:
    """What a page shows, if the sweep takes it for finished; else it is made again."""
    job = jobs(folder)[0]
    if not job.finished:
        raise ValueError(f"{job.page} is made again")
    return json.loads(job.page.read_text())["cells"]


# Power cuts, and disks


def cut_power(at: int, work: Callable, place: Path, after: Path) -> object:
    """Work until the `at`-th time that something is synced; leave `after` only what a disk is sure to have then.

    Of a file, that is what it held when it was synced, else nothing; of a folder, the names that it had when it was.
    """
    synced, shadow, fsync = {}, {}, os.fsync

    def layer(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            files = {each: each.read_bytes() for each in path.iterdir() if each.is_file()}
            sure = {each: synced.get(each.stat().st_ino) == content for each, content in files.items()}
            shadow[path] = {each.name: content if sure[each] else b"" for each, content in files.items()}
        else:
            synced[path.stat().st_ino] = path.read_bytes()
        layer.count += 1
        if layer.count == at:
            for folder, files in shadow.items():
                target = after / folder.relative_to(place)
                target.mkdir(parents=True, exist_ok=True)
                for name, content in files.items():
                    (target / name).write_bytes(content)
            os.kill(os.getpid(), signal.SIGKILL)

    layer.count = 0
    os.fsync = layer
    work(place)
    return layer.count


def nothing_to_do(*_, **__):
    raise AssertionError("finished work is done again")


def train_nothing(dataset: Dataset, root: Path) -> dict:
    training.fit = nothing_to_do
    return digest(runs.train(dataset, SETTINGS, root, "cpu").folder)


def train_without_evaluation(dataset: Dataset, root: Path) -> dict:
    evaluation.evaluate = nothing_to_do
    return train(dataset, root)


def cut_powers(table: Table, place: Path, dataset: Dataset, expected: dict, trials: int, chance) -> None:
    what = "power cut (a file layer that forgets what was not synced)"
    work = partial(train, dataset)
    syncs = alone(cut_power, 0, work, place / "count", place / "none")["result"]
    for number in range(trials):
        at = syncs if number == 0 else chance.randint(1, syncs)
        after = place / f"after-{number}"
        after.mkdir(parents=True)
        ended(child(cut_power, at, work, place / f"before-{number}", after))
        table.judge(what, alone(train_nothing if at == syncs else train, dataset, after), expected)


def root_can(*command: str) -> bool:
    return os.getuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


@contextlib.contextmanager
def mounted(place: Path, *what: str):
    place.mkdir(parents=True, exist_ok=True)
    yield subprocess.run(["mount", *what, str(place)], capture_output=True).returncode == 0
    subprocess.run(["umount", str(place)], capture_output=True)


def cut_ext4(table: Table, place: Path, dataset: Dataset, expected: dict, seconds: float, trials: int, chance) -> None:
    """An ext4 file system that stops at a random moment, or as soon as a run is complete, with nothing flushed."""
    what, image, disk = "power cut (ext4 on a loop device)", place / "image", place / "disk"
    place.mkdir()
    for number in range(trials):
        with image.open("wb") as file:
            file.truncate(200_000_000)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        with mounted(disk, "-o", "loop", str(image)) as there:
            if not there:
                print("no loop device is to be had here", flush=True)
                return
            started = child(train, dataset, disk)
            if number % 2:
                time.sleep(chance.uniform(0, seconds))
            else:
                ended(started)
            descriptor = os.open(disk, os.O_RDONLY)
            fcntl.ioctl(descriptor, EXT4_SHUTDOWN, WITHOUT_FLUSHING)
            os.close(descriptor)
            if number % 2:
                os.killpg(started[0], signal.SIGKILL)
                ended(started)
        with mounted(disk, "-o", "loop", str(image)):
            table.judge(what, alone(train if number % 2 else train_nothing, dataset, disk), expected)


def limited(work: Callable, size: int, *arguments) -> object:
    """Work, while no file may become larger than that."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    return work(*arguments)


def fill_disks(table: Table, place: Path, dataset: Dataset, expected: dict, trials: int, chance) -> None:
    for number in range(trials):
        size, disk = chance.randint(10_000, 12_000_000), place / f"disk-{number}"
        with mounted(disk, "-t", "tmpfs", "-o", f"size={size}", "none") as there:
            if there:
                table.judge("full disk (tmpfs)", alone(train, dataset, disk), expected, str(disk))
                subprocess.run(["mount", "-o", "remount,size=100M", str(disk)], check=True)
            else:
                left = alone(limited, train, size, dataset, disk)
                table.judge("full disk (limit of a file)", left, expected, str(disk))
            table.judge("full disk, with room again", alone(train, dataset, disk), expected)


def lock_folders(table: Table, place: Path, dataset: Dataset, expected: dict) -> None:
    """A run, and images, in folders that nobody may write to: what is complete is read, all else is told."""
    what, disk = "read-only folder", place / "disk"
    with mounted(disk, "-t", "tmpfs", "none") as there:
        alone(train, dataset, disk / "complete")
        (disk / "empty").mkdir()
        images = faces(disk / "images", 20)
        decoded = alone(decode, faces(place / "writable", 20))["result"]
        if there:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        elif os.getuid() == 0:
            return
        else:
            subprocess.run(["chmod", "-R", "a-w", str(disk)], check=True)
        table.judge(what, alone(train_nothing, dataset, disk / "complete"), expected)
        table.judge(what, alone(train, dataset, disk / "empty"), None, str(disk / "empty"))
        os.environ["VAELIB_CACHE"] = str(place / "cache")
        table.judge(what, alone(decode, images), decoded)
        subprocess.run(["chmod", "-R", "u+w", str(disk)], capture_output=True)


def race(table: Table, place: Path, datasets: list[Dataset], trials: int) -> None:
    """Two processes start the same run on different data: one of them trains it, and its record says on which."""
    expected = {each.fingerprint: alone(train, each, place / each.fingerprint)["result"] for each in datasets}
    for number in range(trials):
        pair = [child(train, each, place / str(number)) for each in datasets]
        for each, left in zip(datasets, map(ended, pair), strict=True):
            table.judge("two processes, other data", left, expected[each.fingerprint], str(place / str(number)))
        left = alone(digest, place / str(number) / runs.name("tiny", SETTINGS))
        table.judge("two processes, the record", left, expected.get(left.get("result", {}).get("data")))


# Damaged and made-up files


def damage(path: Path, chance) -> None:
    content = bytearray(path.read_bytes())
    kind = chance.choice(["cut", "emptied", "flipped"])
    if kind == "flipped":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    length = {"cut": chance.randrange(len(content)), "emptied": 0, "flipped": len(content)}[kind]
    path.write_bytes(content[:length])


def damage_files(table: Table, place: Path, pages: Path, dataset: Dataset, expected: dict, trials: int, chance) -> None:
    """Cut, empty or flip a bit of a file; read all; put it back."""
    alone(train, dataset, place / "run")
    run = next((place / "run").iterdir())
    stopped = place / "stopped"
    while not list(stopped.rglob("checkpoint")):
        shutil.rmtree(stopped, ignore_errors=True)
        started = child(train, dataset, stopped)
        time.sleep(chance.uniform(0.1, 1))
        os.killpg(started[0], signal.SIGKILL)
        ended(started)
    alone(train_without_evaluation, dataset, place / "evaluated")
    images = faces(place / "faces", 30)
    decoded = alone(decode, images)["result"]
    jpegs = sorted((images / "celeba").rglob("*.jpg"))
    read_run = (partial(digest, run), expected)
    readers = [(f"a run's {path.name}", path, *read_run) for path in sorted(run.iterdir()) if path.name != ".lock"]
    for root, when in ((stopped, "training"), (place / "evaluated", "evaluation")):
        paths = sorted(path for path in next(root.iterdir()).iterdir() if path.name != ".lock")
        go_on = partial(train, dataset, root)
        readers += [(f"{path.name} of a run stopped in its {when}", path, go_on, expected) for path in paths]
    read_images = (partial(decode, images), decoded)
    readers += [("a cache", path, *read_images) for path in sorted((images / "celeba").glob("celeba-*"))]
    readers.append(("a page", jobs(pages)[0].page, partial(page, pages), alone(page, pages)["result"]))
    lists = sorted((images / "celeba").glob("list_*"))
    readers += [(f"CelebA's {path.name}", path, *read_images) for path in lists]
    for number in range(trials):
        what, path, read, right = readers[number % len(readers)]
        folder = run if path.parent == run else path.parent
        kept = shutil.copytree(folder, place / "kept")
        damage(path, chance)
        left = alone(read)
        if "result" in left and path in lists and left["result"]["data"] != right["data"]:
            table.add(f"damaged: {what}", "told")  # by another fingerprint
        else:
            table.judge(f"damaged: {what}", left, right, path.name if path in lists else str(path))
        shutil.rmtree(folder)
        shutil.move(kept, folder)
    # An image has no checksum that anybody knows: what its decoder does not notice is not noticed
    for number in range(trials // 10):
        for cached in (images / "celeba").glob("celeba-*"):
            cached.unlink()
        path = jpegs[number % len(jpegs)]
        content = path.read_bytes()
        damage(path, chance)
        left = alone(decode, images)
        other = "result" in left and left["result"] != decoded and left["result"]["data"] == decoded["data"]
        if other:
            table.add("damaged: an image before it is decoded", "unnoticed")
        elif "result" in left and left["result"]["data"] != decoded["data"]:
            table.add("damaged: an image before it is decoded", "told")
        else:
            table.judge("damaged: an image before it is decoded", left, decoded, path.name)
        path.write_bytes(content)


def make_up(table: Table, place: Path, examples: int) -> None:
    """Files that hypothesis makes up: they are read, or refused by name."""

    def tried(what: str, strategy, write: Callable, read: Callable) -> None:
        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(strategy)
        def attempt(content):
            path = write(content)
            try:
                read()
                table.add(what, "same")
            except CLEAR as error:
                named = str(path) in str(error)
                table.add(what, "told" if named else "faults", "" if named else f"{content!r:.300}: {error!r:.300}")
            except Exception:
                table.add(what, "faults", f"{content!r:.300}: {traceback.format_exc()[-800:]}")

        with contextlib.redirect_stdout(io.StringIO()):
            attempt()

    def writes(path: Path) -> Callable:
        path.parent.mkdir(parents=True, exist_ok=True)
        return lambda content: (path.write_bytes(content if isinstance(content, bytes) else content.encode()), path)[1]

    idx = st.tuples(st.sampled_from([b"\0\0\x08\x03", b"\0\0\x08\x01", b"\0\0\x0d\x03"]), st.binary(max_size=60))
    raw = place / "idx" / "MNIST" / "raw"
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            writes(raw / f"{part}-{kind}-ubyte")(b"\0\0\x08\x01" + bytes(4))
    write = writes(raw / "train-images-idx3-ubyte")
    tried("made up: IDX", idx.map(b"".join) | st.binary(max_size=60), write, lambda: data.load("mnist", place / "idx"))

    images = faces(place / "lists", 4)
    alone(decode, images)
    path = images / "celeba" / "list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    words = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30)
    mixed = st.lists(st.sampled_from(lines) | words, max_size=8).map("\n".join)
    tried("made up: attribute lists", mixed, writes(path), lambda: data.load("celeba", images))

    run = place / "configs" / "run"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"epoch": 1}\n')
    (run / "evaluation.json").write_text("{}")
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
        max_leaves=12,
    )
    path = run / "config.json"
    texts = values.map(json.dumps) | st.text(max_size=50)
    tried("made up: configurations", texts, writes(path), lambda: runs.load(run))
    tried("made up: records", texts, writes(place / "run.json"), lambda: runs.load(place / "run.json"))


KEYS = st.sampled_from(
    ["settings", "functions", "data", "latent_dim", "epochs", "seed", "fingerprint", "metrics", "evaluation", "x"]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few trials of each, in less than two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and damages")
    options = parser.parse_args()
    chance, table, started = random.Random(options.seed), Table(), time.monotonic()
    count = (lambda full, short: short) if options.short else (lambda full, short: full)

    # What takes long to import is imported once, and each trial is a process that was forked
    importlib.import_module("book.machinery.sweep")

    dataset, other = tiny_digits(), tiny_digits(shift=200)
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        place = Path(folder)
        expected, seconds = timed(train, dataset, place / "whole")
        kill(table, "training killed", partial(train, dataset), expected, count(60, 4), seconds, chance,
             lambda number: place / "killed" / str(number))  # fmt: skip
        places = [faces(place / "decoded" / str(number), count(1500, 500)) for number in range(count(20, 1) + 1)]
        right, seconds = timed(decode, places.pop())
        kill(table, "decoding killed", decode, right, count(20, 1), seconds, chance, lambda number: places[number])
        alone(train, dataset, place / "published", TrainConfig(1, epochs=SETTINGS.epochs))
        alone(train, dataset, place / "published", TrainConfig(2, epochs=SETTINGS.epochs))
        right, seconds = timed(published, place / "published", place / "book")
        kill(table, "publishing killed", partial(published, place / "published"), right, count(10, 1), seconds, chance,
             lambda number: place / "books" / str(number))  # fmt: skip
        right, seconds = timed(sweep, place / "sweeps" / "whole")
        kill(table, "sweep killed", sweep, right, count(10, 1), seconds, chance,
             lambda number: place / "sweeps" / str(number))  # fmt: skip
        expected, seconds = timed(train, dataset, place / "again")
        cut_powers(table, place / "layer", dataset, expected, count(20, 3), chance)
        if root_can("which", "mkfs.ext4"):
            cut_ext4(table, place / "ext4", dataset, expected, seconds, count(20, 2), chance)
        fill_disks(table, place / "full", dataset, expected, count(10, 2), chance)
        lock_folders(table, place / "locked", dataset, expected)
        race(table, place / "race", [dataset, other], count(20, 2))
        damage_files(table, place / "damaged", place / "sweeps" / "whole", dataset, expected, count(500, 20), chance)
        make_up(table, place / "made-up", count(200, 20))

    rows = [(what, *row.values()) for what, row in table.rows.items()]
    minutes = (time.monotonic() - started) / 60
    print(tabulate(rows, ["what", "trials", "same result", "told by name", "unnoticed", "faults"], "github"))
    print(f"{minutes:.1f} minutes, {platform.platform()}, torch {torch.__version__}")
    if options.json:
        record = {"rows": rows, "minutes": round(minutes, 1), "seed": options.seed, "platform": platform.platform()}
        options.json.write_text(json.dumps(record | {"torch": str(torch.__version__)}, indent=1) + "\n")
    sys.exit(1 if table.faults else 0)


if __name__ == "__main__":
    main()
