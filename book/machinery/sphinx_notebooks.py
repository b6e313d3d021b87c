"""A Sphinx extension: below its title, every notebook's page says where it is, how to open it, and how long it takes.

(A page that opens with a picture to play with says it below that.) No book is built of published notebooks that were
executed with the quick profile. And the way from page to page, by "Next", leaves out those of single runs.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError

from vaelib import files, runs

from . import profiles

GUIDE = "/book/run"
EMBEDDED = re.compile(r"\b(?:digits|faces(?:-small)?): [\d,]+ training")
ON_EMBEDDED_DATA = ("factors", "slips")  # of the pages with a profile, those that always look at drawn faces


def notebook(page: str) -> str:
    """The notebook that a page shows, or that papermill made it from: `book/runs/paper/mnist-train-k2` is a copy."""
    path = Path(page)
    if path.is_relative_to("book/runs"):
        experiment, name, *_ = path.name.split("-")
        path = Path("book", experiment, name)
    return f"{path.as_posix()}.ipynb"


def duration(page: Path) -> str:
    """What the guide's table says of how long a notebook takes, as a sentence; nothing if it is not there."""
    table = Path(__file__).parents[1].joinpath("run.md").read_text("utf-8")
    row = rf"^\| {{doc}}`{page.parent.name}/{page.stem}` \| (.+) \| (.+) \|$"
    found = re.search(row, table, re.MULTILINE)
    if found is None:
        return ""
    trainings = f" Trainings: {found[1]}; on a GPU: not measured."
    within = found[1] in ("none", "with the page")
    return f" Time on one CPU core: {found[2]}.{'' if within else trainings}"


def quick_numbers(path: Path) -> str | None:
    """What in a notebook's outputs is of the quick profile, if anything is."""
    shown = "\n".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
        for cell in files.read_notebook(path).cells
        for output in cell.get("outputs", [])
    )
    for experiment in ("mnist", "celeba", "faces"):
        plan = profiles.load("quick", experiment)
        for settings in plan.settings(plan.short) + plan.settings(plan.long):
            name = runs.name(plan.dataset, settings)
            if re.search(rf"\b{name}\b", shown):
                return name
    found = EMBEDDED.search(shown)
    return found[0] if found and path.stem not in ON_EMBEDDED_DATA else None


def refuse_quick_numbers(app, env, docnames) -> None:
    published = [
        Path(env.doc2path(page))
        for page in env.found_docs
        if re.match("book/(beyond|mnist|celeba|verdict|runs/paper)/", page)
    ]
    for path in published:
        if path.suffix == ".ipynb" and (found := quick_numbers(path)):
            name = path.relative_to(app.srcdir)
            raise ExtensionError(
                f"{name} was executed with the quick profile ({found}), and would take the place of what is published; "
                f"get that back: git checkout {name} {name.with_suffix('.py')}"
            )


def add_line(app, doctree) -> None:
    page = app.env.docname
    if Path(app.env.doc2path(page)).suffix != ".ipynb":
        return
    name, parts = notebook(page), []
    parts += [nodes.Text("Executed from " if name != f"{page}.ipynb" else "This page is "), nodes.literal(text=name)]
    if any("tag_parameters" in cell["classes"] for cell in doctree.findall(nodes.container)):
        parts.append(nodes.Text(", whose first cell of code holds its parameters"))
    parts += [nodes.Text("; "), nodes.literal(text="make lab"), nodes.Text(" opens it. See ")]
    link = {"refdomain": "std", "reftype": "doc", "refdoc": page, "reftarget": GUIDE, "refexplicit": False}
    parts += [addnodes.pending_xref("", nodes.inline(), **link), nodes.Text(f".{duration(Path(name))}")]
    title = next(iter(doctree.findall(nodes.title)))
    place = title.parent.index(title) + 1
    while isinstance(title.parent[place], nodes.raw):
        place += 1
    title.parent.insert(place, nodes.paragraph("", "", *parts, classes=["notebook"]))


def leave_runs_out(app, page, template, context, doctree) -> None:
    """The pages of single runs, and those that list them, are on nobody's way from one chapter to the next."""
    road = [each for each in app.env.collect_relations() if not each.startswith("book/runs/")]
    at = road.index(page) if page in road else None
    for name, step in (("prev", -1), ("next", 1)):
        context[name] = None
        if at is not None and 0 <= at + step < len(road):
            other = road[at + step]
            title = app.builder.render_partial(app.env.titles[other])["title"]
            link = app.builder.get_relative_uri(page, other)
            context[name] = {"link": link, "title": title}


def setup(app) -> dict:
    app.connect("env-before-read-docs", refuse_quick_numbers)
    app.connect("doctree-read", add_line)
    app.connect("html-page-context", leave_runs_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
