"""A Sphinx extension for the whole site: docstrings, figures, numbers, the search page, and a smaller theme."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.errors import ExtensionError

from . import pictures

ENTRY = re.compile(r"^(\w[\w, ]*) : (.+)")
NUMBER = re.compile(r"[+−-]?\d[\d,.]*(e[+-]\d+)?%?( (± |to )?[<+−-]?[\d.]+%?| \[.*\])*")
ALIGNED = re.compile(r"[+−-]?[\d,]+((?:\.\d+)?(?: ± [\d.]+)?)")
SPACES = str.maketrans("0123456789±. ", "\u2007" * 11 + "\u2008\u00a0")  # as wide
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PRINTED: dict[re.Pattern, str | Callable] = {
    re.compile(r"(?<![\w)-])-(?=\d|ELBO|log )"): "−",
    re.compile(r"\b(\d(?:\.\d+)?)e([+-]\d+)"): lambda found: _power(*found.groups()),
    re.compile(r"(?<=\d) x (?=\d)"): "\u00a0×\u00a0",
    re.compile(r"(?<=[\dK]) - (?=[\dK])"): "\u00a0–\u00a0",  # between layers
    re.compile(r"(?<=\w) = (?=[\d−])"): "\u00a0=\u00a0",
    re.compile(r"\b[A-Z\d][a-z]*(_[A-Za-z][a-z]*)+\b"): lambda found: found[0].replace("_", " "),  # CelebA's attributes
}
VERBATIM = (nodes.literal, nodes.math, nodes.raw)
UNUSED = {  # files in _static that pages don't load
    "source maps of the theme": r".*\.map",
    "search in other languages": r"locales/.*",
    "fonts that are also there as woff2": r"vendor/.*\.ttf",
    "parts of MathJax": r"mathjax/(?!.*/tex/extensions/|.*/woff-v2/|(.*/)?tex-chtml\.js$).*|mathjax/.*/all-packages\.js",
    "script that draws the icons of the fonts": r"scripts/fontawesome\.js",
}
LOADED = "scripts/fontawesome.js"  # loaded by every page, so we keep an empty file


def describe(app, what, name, found, options, lines: list[str]) -> None:
    """Move a parameter's description from the place of numpydoc's type to the line below."""
    lines[:] = [part for line in lines for part in ENTRY.sub(r"\1\n    \2", line).split("\n")]


def add_texts(app, pagename, templatename, context, doctree) -> None:
    """Give the search page the prose of all pages, from which `scorer.js` cuts excerpts.

    Sphinx cuts excerpts from the pages, which a browser can't read from disk.
    """
    if doctree is not None:
        app.texts[pagename] = "\n".join(each.astext() for each in doctree.findall(nodes.paragraph))
    elif pagename == "search":  # the last page
        path = Path(app.outdir, "_static", "texts.js")
        path.write_text(f"const TEXTS = {json.dumps(app.texts)};\n", "utf-8")
        app.add_js_file(path.name)


def class_figures(app, doctree) -> None:
    """Put captions next to figures, by the theme's class, and prepare them for dark pages.

    A plot (mostly white, hardly black) is inverted there, of other figures only the white ground around their images.
    A plot is shown at two thirds of its size, where 9 points at 144 dots per inch are 12 pixels.
    """
    for figure in doctree.findall(nodes.figure):
        figure["classes"].append("margin-caption")
        for image in list(figure.findall(nodes.image)):
            if image["uri"].endswith(".png"):
                with Image.open(Path(app.srcdir, image["uri"])) as opened:
                    shades = np.asarray(opened.convert("L"))
                if (shades == 255).mean() > 0.7 and (shades == 0).mean() < 0.02:
                    figure["classes"].append("plot")
                    image["width"] = f"{shades.shape[1] * 2 // 3}px"
                elif panes := pictures.panes(shades):
                    figure.insert(1, _ground(panes, *shades.shape))


def _ground(panes: list[tuple[int, int, int, int]], height: int, width: int) -> nodes.raw:
    """Return an element that covers a picture, but for its panes."""
    corners = ["0 0", "100% 0", "100% 100%", "0 100%", "0 0"]
    for top, left, bottom, right in panes:
        box = (left, top), (right, top), (right, bottom), (left, bottom), (left, top)
        corners += [f"{100 * x / width:.2f}% {100 * y / height:.2f}%" for x, y in box] + ["0 0"]
    style = f"max-width: {width}px; aspect-ratio: {width} / {height}; clip-path: polygon(evenodd, {', '.join(corners)})"
    return nodes.raw("", f'<span class="ground" style="{style}"></span>', format="html")


def set_numbers(app, doctree, page: str) -> None:
    """Set numbers as in print: with minus signs, powers of ten and unbroken, in tables aligned; attributes without _."""
    for table in doctree.findall(nodes.table):
        rows = [row.children for row in table.findall(nodes.row)]
        for head, *cells in zip(*rows, strict=False):
            said = [cell.astext() for cell in cells if cell.astext()]
            if said and all(map(NUMBER.fullmatch, said)):
                for cell in (head, *cells):
                    cell["classes"].append("number")
                _align([cell for cell in cells if cell.astext()])
    prose = [each for kind in (nodes.paragraph, nodes.caption) for each in doctree.findall(kind)]
    for text in [text for each in prose for text in each.findall(nodes.Text)]:
        if text.parent and not isinstance(text.parent, VERBATIM):  # paragraphs in paragraphs were done already
            new = str(text)
            for pattern, printed in PRINTED.items():
                new = pattern.sub(printed, new)
            text.parent.replace(text, nodes.Text(new))


def _align(cells: list[nodes.entry]) -> None:
    """Bring decimal points in line: after its number a cell gets spaces as wide as what longer ones have there."""
    tails = [found[1] for cell in cells if (found := ALIGNED.fullmatch(cell.astext()))]
    if len(tails) == len(cells):
        longest = max(tails, key=len, default="")
        for cell, tail in zip(cells, tails, strict=True):
            cell[0] += nodes.Text(longest[len(tail) :].translate(SPACES))


def _power(factor: str, exponent: str) -> str:
    return f"{'' if factor == '1' else f'{factor} × '}10{str(int(exponent)).translate(RAISED)}"


def remove_unused(app, error) -> None:
    """Remove files that pages don't load, about 10 MB. The build fails if the theme doesn't contain them any more."""
    if error or app.builder.format != "html":
        return
    static = Path(app.outdir, "_static")
    paths = {path.relative_to(static).as_posix(): path for path in static.rglob("*") if path.is_file()}
    for what, pattern in UNUSED.items():
        unused = [name for name in paths if re.fullmatch(pattern, name)]
        if not unused:
            raise ExtensionError(f"the theme doesn't contain {what} ({pattern}) any more; adapt {__file__}")
        for name in unused:
            paths.pop(name).unlink()
    (static / LOADED).touch()


def setup(app) -> dict:
    app.texts = {}
    app.connect("autodoc-process-docstring", describe, priority=400)  # before napoleon, whose priority is 500
    app.connect("doctree-read", class_figures, priority=600)  # when paths of images are known
    app.connect("doctree-resolved", set_numbers)
    app.connect("html-page-context", add_texts)
    app.connect("build-finished", remove_unused, priority=900)  # after everything that copies files
    return {"parallel_read_safe": True, "parallel_write_safe": False}
