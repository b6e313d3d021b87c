"""A Sphinx extension: the search page shows excerpts from disk too.

Sphinx cuts them from the pages, which a browser does not hand out from disk. So the search page loads a script with
the prose of all pages, and `scorer.js` cuts from that.
"""

import json
from pathlib import Path

from docutils import nodes


def add_texts(app, pagename, templatename, context, doctree) -> None:
    if doctree is not None:
        prose = doctree.findall(nodes.paragraph)
        app.texts[pagename] = "\n".join(each.astext() for each in prose)
    elif pagename == "search":  # which comes after the others
        path = Path(app.outdir, "_static", "texts.js")
        path.write_text(f"const TEXTS = {json.dumps(app.texts)};\n", "utf-8")
        app.add_js_file(path.name)


def setup(app) -> dict:
    app.texts = {}
    app.connect("html-page-context", add_texts)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
