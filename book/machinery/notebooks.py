"""Notebooks on disk."""

from pathlib import Path

import nbformat


def read(path: Path) -> nbformat.NotebookNode:
    """Read a Jupyter notebook. Raises ValueError, with the file's name, if it's damaged."""
    content = path.read_bytes()
    try:
        return nbformat.reads(content.decode(), as_version=4)
    except Exception as error:  # the parser raises errors of any kind
        raise ValueError(f"{path} isn't a notebook, or is damaged ({error})") from error
