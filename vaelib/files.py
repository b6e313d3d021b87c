"""Files that are either whole or not there, also after a crash of the machine; and folders held by one at a time."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from threading import get_ident
from typing import TYPE_CHECKING

from filelock import FileLock, SoftFileLock, Timeout

if TYPE_CHECKING:
    from nbformat import NotebookNode

# What network and other file systems answer that cannot sync; an error of the disk is another
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}
_HELD: dict[tuple[int, Path], os.stat_result] = {}  # the folders that a thread holds, and their lock files


def exists(path: Path) -> bool:
    """Whether there is a file or folder; raises if it cannot be known, as `Path.exists` of Python 3.14 does not."""
    with suppress(FileNotFoundError, NotADirectoryError):
        path.stat()
        return True
    return False


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
    """Give a finished file its name. When this returns, a power cut takes neither the content nor the name.

    Raises
    ------
    RuntimeError
        If this thread holds the file's folder, and there is another one in its place now.
    """
    _sync(temporary, os.O_RDWR)
    held = _HELD.get((get_ident(), path.parent.absolute()))
    if held and not os.path.samestat(held, (path.parent / ".lock").stat()):
        raise RuntimeError(f"{path.parent} was moved away and made again while it was in use; stop one of the two")
    temporary.replace(path)
    if os.name != "nt":  # which cannot open folders
        _sync(path.parent, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a folder for this thread alone; the hold ends with the block, or with the process.

    Raises
    ------
    RuntimeError
        If another thread or process holds it, unless told to wait until it does not.
    OSError
        If the folder cannot be locked.
    """
    path, held = folder / ".lock", (get_ident(), folder.absolute())
    lock = FileLock(path, timeout=-1 if wait else 0, mode=0o666)
    in_use = f"{folder} is in use by another process or thread; wait until it has finished"
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(in_use) from None
    except OSError as error:
        why = f"{folder} cannot be locked ({error.strerror or error}); take a folder on another disk"
        raise type(error)(f"{why}, for runs by VAELIB_RUNS") from error
    try:
        _HELD[held] = path.stat()
        # Where the file system has no locks, filelock writes a mark into the file, which is then removed
        if _HELD[held].st_size and not isinstance(lock, SoftFileLock):
            raise RuntimeError(f"{in_use}, on a machine without file locks; if there is none, delete {path}")
        yield
    finally:
        _HELD.pop(held, None)
        lock.release()


def read_notebook(path: Path) -> "NotebookNode":
    """A Jupyter notebook. Raises ValueError, with the file's name, if it is damaged."""
    import nbformat  # a machine that only trains may lack it

    content = path.read_bytes()
    try:
        return nbformat.reads(content.decode(), as_version=4)
    except Exception as error:  # whatever the parser comes across: it has no error of its own for this
        raise ValueError(f"{path} is no notebook, or a damaged one ({error})") from error
