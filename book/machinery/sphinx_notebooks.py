"""A Sphinx extension for notebooks' pages: how to open them, how long they take, and buttons to save and launch them.

A script saves a notebook, without outputs, because a browser would only show a file on disk. The buttons that launch it
elsewhere need the repository's address in `_config.yml`. The build fails if a published notebook was executed with the
quick profile. The links "Previous" and "Next" skip the pages of single runs.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError

from vaelib import runs

from . import notebooks, profiles

GUIDE = "/book/run"
QUICK = [
    runs.name(plan.dataset, settings)
    for plan in profiles.PROFILES["quick"].values()
    for settings in plan.settings(plan.short) + plan.settings(plan.long)
]
QUICK_RUN = re.compile(rf"\b(?:{'|'.join(QUICK)})\b")
EMBEDDED = re.compile(r"\b(?:digits|faces(?:-small)?): [\d,]+ training")
ON_EMBEDDED_DATA = ("factors", "slips")  # pages with a profile that always use drawn faces
# The cell that a launched notebook needs first: it gets the project, and enters the notebook's folder
INSTALL = """\
!git clone -q {address} project
!pip install -q ./project tabulate
%cd project/{folder}
import sys
sys.path.insert(0, "../..")"""


def notebook(page: str) -> str:
    """Return the notebook of a page. `book/runs/paper/mnist-train-k2` is a copy made by papermill."""
    path = Path(page)
    if path.is_relative_to("book/runs"):
        experiment, name, *_ = path.name.split("-")
        path = Path("book", experiment, name)
    return f"{path.as_posix()}.ipynb"


def duration(page: Path) -> str:
    """Return the notebook's run time in the guide's table, as a sentence, or "" if it isn't listed."""
    table = Path(__file__).parents[1].joinpath("run.md").read_text("utf-8").replace("`", "")  # for a plain sentence
    row = rf"^\| {{doc}}{page.parent.name}/{page.stem} \| (.+) \| (.+) \|$"
    found = re.search(row, table, re.MULTILINE)
    if found is None:
        return ""
    separate = found[1] not in ("none", "with the page")
    trainings = f" Trainings: {found[1]}; on a GPU: not measured." if separate else ""
    return f" Time on one CPU core: {found[2]}.{trainings}"


def quick_numbers(path: Path) -> str | None:
    """Return the first output of a notebook that comes from the quick profile, if any."""
    shown = "\n".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
        for cell in notebooks.read(path).cells
        for output in cell.get("outputs", [])
    )
    found = QUICK_RUN.search(shown)
    if path.stem not in ON_EMBEDDED_DATA:
        found = found or EMBEDDED.search(shown)
    return found[0] if found else None


def refuse_quick_numbers(app, env, docnames) -> None:
    for page in env.found_docs:
        path = Path(env.doc2path(page))
        if path.suffix != ".ipynb" or not re.match("book/(beyond|mnist|celeba|verdict|runs/paper)/", page):
            continue
        if found := quick_numbers(path):
            name = path.relative_to(app.srcdir)
            raise ExtensionError(
                f"{name} was executed with the quick profile ({found}), which would replace published results; restore "
                f"it: git checkout {name} {name.with_suffix('.py')}"
            )


def forget_launchers(app, config) -> None:
    """Drop the launch buttons as long as the repository's address is empty, because the theme can't."""
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options.pop("launch_buttons", None)


def add_line(app, doctree) -> None:
    page = app.env.docname
    if Path(app.env.doc2path(page)).suffix != ".ipynb":
        return
    name = notebook(page)
    has_parameters = any("tag_parameters" in cell["classes"] for cell in doctree.findall(nodes.container))
    link = {"refdomain": "std", "reftype": "doc", "refdoc": page, "reftarget": GUIDE, "refexplicit": False}
    line = nodes.paragraph("", "", classes=["notebook"])
    line += nodes.Text("This page is " if name == f"{page}.ipynb" else "Executed from ")
    line += nodes.literal(text=name)
    line += nodes.Text(f"{', whose first cell of code holds its parameters' if has_parameters else ''}; ")
    line += [nodes.literal(text="make lab"), nodes.Text(" opens it. See ")]
    line += [addnodes.pending_xref("", nodes.inline(), **link), nodes.Text(f".{duration(Path(name))}")]
    section = next(iter(doctree.findall(nodes.section)))
    section.append(line)
    if (address := app.config.html_theme_options.get("repository_url")) and name == f"{page}.ipynb":
        section.append(nodes.paragraph(text="On Binder, Colab or JupyterHub, run this first:", classes=["notebook"]))
        cell = INSTALL.format(address=address, folder=Path(name).parent.as_posix())
        section.append(nodes.literal_block(text=cell, language="ipython3"))


def offer(app, page, template, context, doctree) -> None:
    """Add a button that saves the page's notebook, and keep those that launch it only if it's in the repository."""
    if Path(app.env.doc2path(page)).suffix != ".ipynb":
        return
    name = notebook(page)
    found = notebooks.read(Path(app.srcdir, name))
    for cell in found.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    path = Path("_static", "notebooks", name).with_suffix(".js")
    Path(app.outdir, path).parent.mkdir(parents=True, exist_ok=True)
    Path(app.outdir, path).write_text(f"saveNotebook({json.dumps(Path(name).name)}, {json.dumps(found)});\n", "utf-8")
    save = {"type": "javascript", "icon": "fas fa-download", "tooltip": "Download this page's notebook"}
    save |= {"label": "save", "javascript": f"loadNotebook('{context['pathto'](path.as_posix(), 1)}')"}
    if name != f"{page}.ipynb":
        context["header_buttons"] = [each for each in context["header_buttons"] if each["label"] != "launch-buttons"]
    context["header_buttons"].insert(0, save)


def leave_runs_out(app, page, template, context, doctree) -> None:
    """Leave the pages of single runs, and their lists, out of the links from one chapter to the next."""
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
    app.connect("config-inited", forget_launchers)
    app.connect("html-page-context", offer, priority=900)  # after the theme's buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
