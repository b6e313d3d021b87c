"""Where data lie, how a missing file gets there, and how file names are told."""

import os
import socket
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import files

HOME = "~/.cache/vaelib"
PATIENCE = 20  # seconds without a byte, after which a download counts as failed
ADVICE = "or name another folder (argument `folder`, or VAELIB_DATA)"


def root(folder: str | Path | None = None) -> Path:
    """The absolute folder of the data: the argument, else the variable VAELIB_DATA, else `~/.cache/vaelib`."""
    return Path(folder).expanduser().absolute() if folder else named("VAELIB_DATA", HOME)


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


def say(text: str) -> None:
    """Print a line, if there is still somewhere to print it: what is done goes on after a closed pipe or a full disk.

    Characters that the output's encoding lacks, as a file's name may have, are printed as escapes.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with suppress(OSError):
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def some(names: Collection[str], most: int = 3) -> str:
    """The number of names, and the first of them."""
    shown = ", ".join([*sorted(names)[:most], *(["..."] if len(names) > most else [])])
    return f"{len(names)} ({shown})" if names else "0"


def leave_out(damaged: Sequence[str], folder: Path, skip_damaged: bool) -> None:
    """Refuse images that cannot be read, or warn of them; all are listed."""
    listed = "\n  ".join(["", *damaged])
    if damaged and not skip_damaged:
        raise ValueError(
            f"{len(damaged)} images in {folder} cannot be read; mend or remove them, or leave them out: "
            f"skip_damaged=True, or --skip-damaged on the command line{listed}"
        )
    if damaged:
        warnings.warn(f"{len(damaged)} images in {folder} cannot be read, and are left out{listed}", stacklevel=3)


@contextmanager
def fetching(what: Sequence[str], folder: Path, by_hand: str) -> Iterator[None]:
    """Announce a download, give up after 20 s without data, and explain on failure how to do without.

    Raises
    ------
    FileNotFoundError
        Instead of whatever goes wrong in the block.
    """
    say(f"fetching {', '.join(what)} into {folder} ...")
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
