"""Files that are either whole or not there, also after a crash of the machine; and folders held by one at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from nbformat import NotebookNode


def write(path: Path, *parts: bytes | memoryview | str) -> None:
    """Write under a temporary name, then `place`: no reader sees half a file, and no killed process leaves one."""
    temporary = path.with_name(f"{path.name}.{token_hex(4)}.part")  # no other thread or process writes to it
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part.encode() if isinstance(part, str) else part)
        place(temporary, path)
    except OSError as error:  # one of a full disk names no file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def place(temporary: Path, path: Path) -> None:
    """Give a finished file its name. When this returns, a power cut takes neither the content nor the name."""
    _sync(temporary, os.O_RDWR)
    temporary.replace(path)
    if os.name != "nt":  # which cannot open folders
        _sync(path.parent, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a folder for this thread alone; the hold ends with the block, or with the process.

    Raises
    ------
    RuntimeError
        If another thread or process holds it, unless told to wait until it does not.
    """
    lock = FileLock(folder / ".lock", timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(f"{folder} is in use by another process or thread; wait until it has finished") from None
    try:
        yield
    finally:
        lock.release()


def read_notebook(path: Path) -> "NotebookNode":
    """A Jupyter notebook. Raises ValueError, with the file's name, if it is damaged."""
    import nbformat  # a machine that only trains may lack it

    try:
        return nbformat.read(path, as_version=4)
    except OSError:
        raise
    except Exception as error:  # whatever the parser comes across: it has no error of its own for this
        raise ValueError(f"{path} is no notebook, or a damaged one ({error})") from error
