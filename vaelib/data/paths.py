"""Where data lie, where decoded images may go, and how a missing file gets there."""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import files

HOME = "~/.cache/vaelib"
PATIENCE = 20  # seconds without a byte, after which a download counts as failed
ADVICE = "or name another folder (argument `folder`, or VAELIB_DATA)"


def root(folder: str | Path | None = None) -> Path:
    """The absolute folder of the data: the argument, else the variable VAELIB_DATA, else `~/.cache/vaelib`."""
    return Path(folder).expanduser().absolute() if folder else named("VAELIB_DATA", HOME)


def cache() -> Path:
    """The absolute folder for decoded images that cannot lie with the data: VAELIB_CACHE, else `~/.cache/vaelib`."""
    return named("VAELIB_CACHE", HOME)


def named(variable: str, otherwise: str | Path) -> Path:
    """The absolute folder that a variable of the environment names.

    A relative one is meant from the project's, if this is inside: a kernel runs in its notebook's folder.
    """
    project = Path(__file__).resolve().parents[2]
    inside = (project / "pyproject.toml").exists() and Path.cwd().is_relative_to(project)
    try:
        return (project if inside else Path.cwd()) / Path(os.environ.get(variable) or otherwise).expanduser()
    except RuntimeError as error:
        raise OSError(f"there is no home folder ({error}); name a folder by the variable {variable}") from error


@contextmanager
def fetching(what: Sequence[str], folder: Path, by_hand: str) -> Iterator[None]:
    """Say what is fetched; have a network that is silent count as failed; tell how to do without a download.

    Raises
    ------
    FileNotFoundError
        Instead of whatever goes wrong in the block.
    """
    print(f"fetching {', '.join(what)} into {folder} ...", flush=True)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder, wait=True):
            yield
    except Exception as error:  # of the disk, the network, torchvision or gdown, which has kinds of its own
        reason = " ".join(str(error).split())  # some tell it in several lines
        raise FileNotFoundError(
            f"{', '.join(what)} missing in {folder}, and the download failed ({reason}). {by_hand}, {ADVICE}"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def fetch(path: Path, md5: str, download: Callable[[str], object]) -> None:
    """Download a file under a temporary name; it gets its own if it is the one meant.

    Raises
    ------
    RuntimeError
        If another file arrived. Whatever the download raises.
    """
    if path.exists():  # another process has fetched it while this one waited
        return
    part = path.with_name(f"{path.name}.part")
    try:
        download(str(part))
        with part.open("rb") as file:
            arrived = hashlib.file_digest(file, "md5").hexdigest()
        if arrived != md5:
            raise RuntimeError(f"what arrived is not {path.name}: its MD5 sum is not {md5}")
        files.place(part, path)
    finally:
        part.unlink(missing_ok=True)
