"""Files that are complete or absent, even after a crash, and folders that only one thread can use at a time."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from filelock import FileLock, SoftFileLock, Timeout

_HELD: dict[Path, os.stat_result] = {}  # the folders that this process holds, with their lock files


def expanded(path: Path | str) -> Path:
    """Return a path with the home folder for ~. Raises OSError if there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        where = "as an argument, or by the variable VAELIB_DATA or VAELIB_RUNS"
        raise OSError(f"the home folder in {path} is unknown; name a folder without ~ {where}") from error


def exists(path: Path) -> bool:
    """Return whether a file or folder exists. Raises OSError if this can't be determined, unlike Python 3.14."""
    with suppress(FileNotFoundError, NotADirectoryError):
        path.stat()
        return True
    return False


def write(path: Path, *parts: bytes | memoryview | str) -> None:
    """Write a file under a temporary name, then `place` it, so that readers never see half a file."""
    temporary = path.with_name(f"{path.name}.{token_hex(4)}.part")  # so that no other thread or process uses this name
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part.encode() if isinstance(part, str) else part)
        place(temporary, path)
    except OSError as error:  # the error of a full disk doesn't name the file
        gone = "" if path.parent.exists() else "; its folder was deleted or moved, so start again"
        raise OSError(error.errno, f"{error.strerror or error}{gone}", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def place(temporary: Path, path: Path) -> None:
    """Rename a finished file. After this returns, a power cut loses neither its content nor its name.

    Raises
    ------
    RuntimeError
        If this process holds the file's folder, and the folder or its lock was deleted or replaced by another one.
    """
    _sync(temporary, os.O_RDWR)
    held, lock = _HELD.get(path.parent.absolute()), path.parent / ".lock"
    if held and not (exists(lock) and os.path.samestat(held, lock.stat())):
        why = f"{path.parent} was moved away and made again, or its file .lock was deleted, while in use"
        raise RuntimeError(f"{why}; stop its other user, and start again")
    temporary.replace(path)
    if os.name != "nt":  # Windows can't open folders
        _sync(path.parent, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as error:  # many file systems can't sync, and have other errors than a failing or full disk
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a folder for this thread only, until the end of the block or the process.

    Parameters
    ----------
    folder : the folder to hold; created if necessary
    wait : whether to wait while another thread or process holds it

    Raises
    ------
    RuntimeError
        If another thread or process holds it, and `wait` is False.
    OSError
        If the folder can't be made or locked.
    """
    path, held = folder / ".lock", folder.absolute()
    lock = FileLock(path, timeout=-1 if wait else 0, mode=0o666)
    in_use = f"{folder} is in use by another process or thread; wait until it has finished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RuntimeError(in_use) from None
    except OSError as error:
        why = f"{folder} cannot be made or locked ({error.strerror or error}); choose another folder"
        raise type(error)(f"{why}, for runs by `root`, --runs or VAELIB_RUNS") from error
    try:
        _HELD[held] = path.stat()
        # On file systems without locks, filelock writes a mark into the file and removes it later
        if _HELD[held].st_size and not isinstance(lock, SoftFileLock):
            raise RuntimeError(f"{in_use}; if nothing uses it (file systems without locks can't tell), delete {path}")
        yield
    finally:
        _HELD.pop(held, None)
        lock.release()
