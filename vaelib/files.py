"""Files that are either whole or not there."""

import os
from pathlib import Path


def write(path: Path, content: bytes | str) -> None:
    """Write under a temporary name, then rename: a reader, or a killed process, never sees half a file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
