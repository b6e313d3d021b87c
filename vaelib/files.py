"""Files that are either whole or not there."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write(path: Path, content: bytes | str) -> None:
    """Write under a temporary name, then rename: a reader, or a killed process, never sees half a file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a folder for this process alone; the hold ends with the block, or with the process.

    Raises
    ------
    RuntimeError
        If another process holds it, unless told to wait until it does not.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    except BlockingIOError:
        raise RuntimeError(f"{folder} is in use by another process; wait until it has finished") from None
    finally:
        os.close(descriptor)
