"""The API page's examples, and what it, the package's namespace and its types promise."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from conftest import PAGES

import vaelib

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "own" / "api.md").read_text()
MEMBERS = {
    module: [name.strip() for name in names.split(",") if name.strip()]
    for module, names in re.findall(r"automodule:: (\S+)\n +:members:(.*)", PAGE)
}


SESSION = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))


# Of use to the package alone
WITHIN = {"batches", "best_epoch", "densities", "device_name", "is_mixed", "make", "plane"}
WITHIN |= {"architecture", "call", "draw", "eval_batch_size", "evaluating", "options", "serialize", "whole_number"}
WITHIN |= {"CodeMixture", "IndependentBernoulli", "at_least_float32", "code_mixture", "full_precision"}


def test_the_examples_of_the_api_page_run(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path))
    test = doctest.DocTestParser().get_doctest(SESSION, {}, "api.md", "api.md", 0)
    assert len(test.examples) > 50
    output = []
    assert doctest.DocTestRunner().run(test, out=output.append).failed == 0, "".join(output)


@pytest.mark.parametrize("module", MEMBERS)
def test_the_api_page_names_every_public_function_of_a_module_and_no_other(module):
    found = importlib.import_module(module)
    public = {
        name
        for name, value in vars(found).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__.startswith(module)
    }
    if module == "vaelib.data":
        public &= set(found.__all__)
    named = set(MEMBERS[module]) or public
    assert named <= public
    assert public - named <= WITHIN
    for name in named:
        assert inspect.getdoc(getattr(found, name)), name
        if inspect.isfunction(getattr(found, name)) and name != "image_folder":  # shown on the page of one's own images
            assert re.search(rf"\b{name}\(", SESSION) or f"{module.removeprefix('vaelib.')}.{name}" in SESSION


def test_the_namespace_has_what_one_needs_and_help_is_worth_reading():
    assert set(vaelib.__all__) <= set(dir(vaelib))
    for module in MEMBERS:
        name = module.removeprefix("vaelib.")
        assert getattr(vaelib, name) is importlib.import_module(module)
        assert name in vaelib.__all__
        assert name in vaelib.__doc__
    with pytest.raises(AttributeError, match="abacus"):
        attrgetter("abacus")(vaelib)


def test_importing_the_package_imports_nothing_that_only_some_need():
    code = "import sys, vaelib; sys.exit(bool({'matplotlib', 'sklearn', 'torchvision', 'zuko'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_nothing_that_one_imports_knows_what_only_makes_the_book():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "vaelib").rglob("*.py")
        if path.stem not in ("__main__", "__init__") and "book" not in path.parts
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('book.machinery' in sys.modules)"
    assert len(modules) > 20
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_api_page_shows_modules_and_types_and_says_nothing_of_torchs():
    text = BeautifulSoup((PAGES / "own" / "api.html").read_text(), "html.parser").select_one("article").get_text()
    assert "vaelib.runs.load(" in text
    assert "vaelib.decoders.Gaussian(" in text
    assert re.search(r"device: (torch\.)?device \| str \| None", text)
    assert "Define the computation performed" not in text
    assert "sha256sum --check" in text
    names = {found for found in re.findall(r"^([a-z]\w*) \u2013 ", text, re.MULTILINE)}
    assert {"labels", "standard_error", "on_epoch", "latent_dim"} <= names
    assert not re.search(r"^\w+ \((\S+ ){3}.*\) \u2013 ", text, re.MULTILINE)
    assert not re.search(r"^Type:", text, re.MULTILINE)
