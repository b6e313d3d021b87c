"""The package's docstrings on a page: what a parameter means stands where numpydoc has its type, which signatures show."""

import re

ENTRY = re.compile(r"^(\w[\w, ]*) : (.+)")


def meant(app, what, name, found, options, lines: list[str]) -> None:
    """Move each meaning to the line below its name, where it is taken for a description."""
    lines[:] = [part for line in lines for part in ENTRY.sub(r"\1\n    \2", line).split("\n")]


def setup(app):
    app.connect("autodoc-process-docstring", meant, priority=400)  # before napoleon, which has 500
    return {"parallel_read_safe": True}
