"""Data folders, downloads of missing files, and lists of file names in messages."""

import os
import socket
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from .. import files

HOME = "~/.cache/vaelib"
PATIENCE = 20  # seconds without data, after which a download fails
ADVICE = "or name another folder (argument `folder`, or VAELIB_DATA)"


def root(folder: str | Path | None = None) -> Path:
    """Return the absolute data folder: the argument, else the variable VAELIB_DATA, else `~/.cache/vaelib`."""
    return files.expanded(folder).absolute() if folder else named("VAELIB_DATA", HOME)


def named(variable: str, otherwise: str | Path) -> Path:
    """Return the absolute folder that an environment variable names.

    Inside the project, a relative path starts from the project's folder, because a kernel runs in its notebook's
    folder.
    """
    project = Path(__file__).resolve().parents[2]
    inside = (project / "pyproject.toml").exists() and Path.cwd().is_relative_to(project)
    return (project if inside else Path.cwd()) / files.expanded(os.environ.get(variable) or otherwise)


def say(text: str) -> None:
    """Print a line. After a closed pipe or a full disk, this and later lines are lost, and nothing is raised.

    Characters that the output's encoding lacks, for example in file names, are printed as escapes.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError:
        sys.stdout = StringIO()  # else Python would write the rest at its end, and complain


def some(names: Collection[str], most: int = 3) -> str:
    """Return the number of names, and the first few of them."""
    shown = ", ".join([*sorted(names)[:most], *(["..."] if len(names) > most else [])])
    return f"{len(names)} ({shown})" if names else "0"


def leave_out(damaged: Sequence[str], folder: Path, skip_damaged: bool) -> None:
    """Raise an error, or warn, if images can't be read. The message lists all of them."""
    left_out = "are left out" if skip_damaged else "repair or remove them, or use skip_damaged=True (--skip-damaged)"
    message = "\n  ".join([f"{len(damaged)} images in {folder} cannot be read; {left_out}", *damaged])
    if damaged and not skip_damaged:
        raise ValueError(message)
    if damaged:
        warnings.warn(message, stacklevel=3)


@contextmanager
def fetching(what: Sequence[str], folder: Path, by_hand: str) -> Iterator[None]:
    """Announce a download, give up after 20 s without data, and explain the manual alternative on failure.

    Raises
    ------
    FileNotFoundError
        If anything fails in the block.
    """
    say(f"fetching {', '.join(what)} into {folder} ...")
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder, wait=True):
            yield
    except Exception as error:  # of the disk, the network, torchvision or gdown, which raises its own kinds
        reason = " ".join(str(error).split())  # some messages have several lines
        missing = f"{', '.join(what)} missing in {folder}, and the download failed ({reason})"
        raise FileNotFoundError(f"{missing}. {by_hand}, {ADVICE}") from error
    finally:
        socket.setdefaulttimeout(patience)
