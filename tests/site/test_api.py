"""The API page's examples, and what it, the package's namespace and its types promise."""

import doctest
import importlib
import inspect
import re

import pytest
from bs4 import BeautifulSoup
from conftest import PAGES, ROOT

import vaelib

PAGE = (ROOT / "book" / "own" / "api.md").read_text()
DIRECTIVES = re.findall(r"automodule:: (\S+)\n +:members:(.*)", PAGE)
MEMBERS = {module: re.findall(r"\w+", names) for module, names in DIRECTIVES}
SESSION = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
# Of use to the package alone
WITHIN = {"CodeMixture", "IndependentBernoulli", "architecture", "at_least_float32", "batches", "best_epoch", "call"}
WITHIN |= {"check_bound", "code_mixture", "densities", "device_name", "draw", "evaluating", "make"}
WITHIN |= {"full_precision", "is_mixed", "options", "plane", "serialize", "sha256", "whole_number"}
WITHIN |= {"attempt", "environment", "laws", "positive_number", "read", "tensor_digest"}


def test_the_examples_of_the_api_page_run(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path))
    test = doctest.DocTestParser().get_doctest(SESSION, {}, "api.md", "api.md", 0)
    assert len(test.examples) > 50
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("path", (ROOT / "vaelib").rglob("*.py"), ids=lambda path: path.stem)
def test_nothing_that_one_imports_knows_what_only_makes_the_book(path):
    assert not re.search(r"^\s*(from|import) book\b", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("module", MEMBERS)
def test_the_namespace_and_the_api_page_have_every_public_function_of_a_module_and_no_other(module):
    found, name = importlib.import_module(module), module.removeprefix("vaelib.")
    assert getattr(vaelib, name) is found and not hasattr(vaelib, "abacus")
    assert name in vaelib.__all__ and name in dir(vaelib) and name in vaelib.__doc__
    here = inspect.getmembers(found, lambda it: inspect.isroutine(it) or inspect.isclass(it))
    public = {each for each, value in here if each[0] != "_" and str(value.__module__).startswith(module)}
    if module == "vaelib.data":
        public &= set(found.__all__)
    named = set(MEMBERS[module]) or public
    assert named <= public
    assert public - named <= WITHIN
    for each in named:
        assert inspect.getdoc(getattr(found, each)), each
        if inspect.isfunction(getattr(found, each)) and each != "image_folder":  # shown on the page of one's own images
            assert re.search(rf"\b{each}\(", SESSION) or f"{name}.{each}" in SESSION


def test_the_api_page_shows_modules_and_types_and_says_nothing_of_torchs():
    text = BeautifulSoup((PAGES / "own" / "api.html").read_text(), "html.parser").select_one("article").get_text()
    for shown in ("vaelib.runs.load(", "vaelib.decoders.Gaussian(", "device | str | None"):
        assert shown in text
    assert "Define the computation performed" not in text
    assert {"labels", "standard_error", "on_epoch", "latent_dim"} <= set(re.findall(r"(?m)^([a-z]\w*) \u2013 ", text))
    assert not re.search(r"(?m)^\w+ \((\S+ ){3}.*\) \u2013 |^Type:", text)
