"""A Sphinx extension that gives each interactive page its scripts, and the models' weights as scripts.

A page opened from disk can't fetch a file, but it can load a script. Weights and data therefore become scripts that
assign text or JSON to a global: `live["mnist-k2"] = "..."`. They are made from committed files. Only the interactive
pages load them.
"""

import base64
import json
import re
import shutil
from itertools import chain
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import load_file, save

from vaelib import storage
from vaelib.data import digits

from . import live, notebooks

SHARED = ["decoder", "page"]
DIGITS = ["encoder", "mnist-k2-encoder", "mnist-k2", "mnist"]
WIDE = {"book/intro", "book/idea/vae", "book/live/training"}  # pages without the list of sections, for more room
PAGES = {  # from each page to its scripts, in this order
    "book/intro": ["page", "digits", "learner", "course", "pad", "toy"],
    "book/idea/vae": [*SHARED, *DIGITS, "pad", "vae", "bell", "betas", "clouds"],
    "book/idea/elbo": ["page", "bell", "posteriors", "bound"],
    "book/idea/kl": ["page", "bell", "price", "betas", "clouds"],
    "book/idea/reparameterization": ["page", "bell", "noise"],
    "book/live/plane": [*SHARED, "mnist-k1", "mnist-k2", "mnist", "plane"],
    "book/live/training": ["page", "digits", "learner", "course", "training"],
    "book/live/faces": [*SHARED, "convolutional", "celeba-k64", "celeba", "photo", "faces"],
}
ASKED_FOR = ["celeba-k64-mean"]  # loaded by a page only when the reader wants it
PARTS = {  # from a suffix of a model's name to the tensors
    "": re.compile("decoder"),
    "-encoder": re.compile("encoder"),
    "-mean": re.compile("encoder(?!.log_variance)"),  # the encoder without σ
}


def stored(notebook: Path, kind: str) -> str:
    """Return the output of the given MIME type in an executed notebook."""
    for cell in notebooks.read(notebook).cells:
        for output in cell.get("outputs", []):
            if kind in output.get("data", {}):
                return output.data[kind]
    raise ValueError(f"{notebook} doesn't contain {kind}; execute it")


def weights(path: Path, names: re.Pattern) -> str:
    """Return some tensors of a safetensors file, with the same metadata, as base64 text."""
    tensors = {name: each for name, each in load_file(path).items() if names.match(name)}
    with safe_open(path, "numpy") as file:
        return json.dumps(base64.b64encode(save(tensors, file.metadata())).decode())


def script(name: str, source: Path) -> str:
    """Return the text of a script, from weights (a model's name is its decoder's), from data, or unchanged."""
    model = re.sub("-(encoder|mean)$", "", name)
    path = storage.PRETRAINED / f"{model}.safetensors"
    if path.exists():
        value = weights(path, PARTS[name.removeprefix(model)])
    elif name == "digits":  # a digit in base 17 per pixel, by image and row
        pixels, labels, _ = digits.small()
        value = json.dumps({"pixels": live.shades(pixels / 16), "labels": labels.tolist()})
    elif name == "posteriors":
        content = json.loads((source / "mnist.json").read_bytes())
        value = json.dumps(live.exact_posteriors(storage.from_pretrained("mnist-k1"), content))
    elif name == "betas":
        value = stored(source.parent / "idea" / "kl.ipynb", live.CLOUDS)
    elif (source / f"{name}.json").exists():
        value = (source / f"{name}.json").read_text("utf-8")
    else:
        return (source / f"{name}.js").read_text("utf-8")
    return f'(globalThis.live ??= {{}})["{name}"] = {value};\n'


def write_scripts(app) -> None:
    if app.builder.format != "html":
        return
    source = Path(app.srcdir, "book", "live")
    folder = Path(app.outdir, "_static", "live")
    folder.mkdir(parents=True, exist_ok=True)
    for name in {*ASKED_FOR, *chain(*PAGES.values())}:
        (folder / f"{name}.js").write_text(script(name, source), "utf-8")
    for style in source.glob("*.css"):
        shutil.copy(style, folder)


def add_scripts(app, pagename, templatename, context, doctree) -> None:
    if pagename in WIDE:
        context["meta"] = (context["meta"] or {}) | {"html_theme.sidebar_secondary.remove": True}
    if pagename in PAGES:
        app.add_css_file("live/live.css")
        for name in PAGES[pagename]:
            if Path(app.srcdir, "book", "live", f"{name}.css").exists():
                app.add_css_file(f"live/{name}.css")
            app.add_js_file(f"live/{name}.js", loading_method="defer")


def setup(app) -> dict:
    app.connect("builder-inited", write_scripts)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
