"""A Sphinx extension: below its title, every notebook's page says where it is, how to open it, and how long it takes.

(A page that opens with a picture to play with says it below that.)
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

GUIDE = "/book/run"


def notebook(page: str) -> str:
    """The notebook that a page shows, or that papermill made it from: `book/runs/paper/mnist-train-k2` is a copy."""
    path = Path(page)
    if path.is_relative_to("book/runs"):
        experiment, name, *_ = path.name.split("-")
        path = Path("book", experiment, name)
    return f"{path.as_posix()}.ipynb"


def duration(page: Path) -> str:
    """What the guide's table says of how long a notebook takes, as a sentence; nothing if it is not there."""
    table = Path(__file__).with_name("run.md").read_text()
    row = (
        rf"^\| {{doc}}`{page.parent.name}/{page.stem}` \| (.+) \| (.+) \|$"
    )
    found = re.search(row, table, re.MULTILINE)
    if found is None:
        return ""
    return (
        f" Time on one CPU core: trainings, {found[1]}; page, {found[2]}. "
        "On a GPU: not measured."
    )


def add_line(app, doctree) -> None:
    page = app.env.docname
    if Path(app.env.doc2path(page)).suffix != ".ipynb":
        return
    name, parts = notebook(page), []
    parts += [
        nodes.Text(
            "Executed from " if name != f"{page}.ipynb" else "This page is "
        ),
        nodes.literal(text=name),
    ]
    if any(
        "tag_parameters" in cell["classes"]
        for cell in doctree.findall(nodes.container)
    ):
        parts.append(
            nodes.Text(", whose first cell of code holds its parameters")
        )
    parts += [
        nodes.Text("; "),
        nodes.literal(text="make lab"),
        nodes.Text(" opens it. See "),
    ]
    link = {
        "refdomain": "std",
        "reftype": "doc",
        "refdoc": page,
        "reftarget": GUIDE,
        "refexplicit": False,
    }
    parts += [
        addnodes.pending_xref("", nodes.inline(), **link),
        nodes.Text(f".{duration(Path(name))}"),
    ]
    title = next(iter(doctree.findall(nodes.title)))
    place = title.parent.index(title) + 1
    while isinstance(title.parent[place], nodes.raw):
        place += 1
    title.parent.insert(
        place,
        nodes.paragraph("", "", *parts, classes=["notebook"]),
    )


def setup(app) -> dict:
    app.connect("doctree-read", add_line)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
