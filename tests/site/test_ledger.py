"""The ledger of claims: only what a stored page measured, on runs that have a record, gets into the book."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from book.machinery import __main__ as command_line
from book.machinery import claims
from book.machinery import sphinx_ledger as ledger
from vaelib import runs

RECORDS = ledger.BOOK / "records" / "paper"
RUN = "mnist-k2-e10-s0"


@pytest.fixture
def book(tmp_path):
    """A book with one page, which judges C7 by one run that has a record."""
    book = tmp_path / "book"
    (book / "records" / "paper").mkdir(parents=True)
    shutil.copy(RECORDS / f"{RUN}.json", book / "records" / "paper")
    found = claims.judge("C7", "test data", [runs.load(RECORDS / RUN)], kept=1, mostly_kept=1, fine=0.2)
    _write(book, found._repr_mimebundle_())
    return book


def _write(book, bundle):
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("execute_result", bundle, execution_count=1)])
    path = book / f"{claims.rules()['C7']['page']}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


@pytest.mark.parametrize("claim", claims.rules())
def test_every_claim_is_judged_by_its_page_on_published_data_and_the_page_says_so(claim):
    found = claims.judgement(claim, ledger.BOOK)
    assert "faces" not in found.data
    assert found.runs or found.rule["page"].startswith(("idea/", "beyond/rivals"))
    page = nbformat.read(ledger.BOOK / f"{found.rule['page']}.ipynb", as_version=4)
    shown = [output["data"] for cell in page.cells for output in cell.get("outputs", []) if "data" in output]
    (said,) = (each for each in shown if each.get(claims.MIME, {}).get("claim") == claim)
    assert said["text/markdown"] == found._repr_mimebundle_()["text/markdown"]


def test_a_judgement_is_read_from_the_page_which_must_judge(book):
    assert claims.judgement("C7", book).verdict == "holds"
    stored = claims.judge("C7", "test data", kept=1, mostly_kept=1, fine=0.2)._repr_mimebundle_()
    stored[claims.MIME]["values"] = {"kept": [1.0]}
    _write(book, stored)
    with pytest.raises(ValueError, match="C7 asks for kept, mostly_kept, fine, not kept"):
        claims.judgement("C7", book)
    _write(book, {"text/plain": "nothing"})
    with pytest.raises(ValueError, match="does not judge C7; execute it"):
        claims.judgement("C7", book)


def test_a_run_without_a_record_or_with_that_of_another_training_is_refused(book):
    path = book / "records" / "paper" / f"{RUN}.json"
    run = runs.load(path)
    path.write_text(replace(run, evaluation=run.evaluation | {"test_elbo": -1.0}).dumps())
    with pytest.raises(ValueError, match="by other runs than those of the records"):
        claims.judgement("C7", book)
    shutil.rmtree(book / "records")
    with pytest.raises(FileNotFoundError, match=RUN):
        claims.judgement("C7", book)


def test_the_runs_of_a_page_beyond_the_paper_get_their_records(book, monkeypatch):
    shutil.move(book / "records" / "paper", book.parent / "runs")  # as it is before anything was published
    monkeypatch.setenv("VAELIB_RUNS", str(book.parent / "runs"))
    monkeypatch.setattr(claims, "numbered", lambda letter: {"B": ["C7"]}[letter])  # as if C7 were one of them
    monkeypatch.setattr(sys, "argv", ["machinery", "publish", "beyond"])
    monkeypatch.chdir(book.parent)
    Path("_toc.yml").touch()
    command_line.main()
    assert claims.judgement("C7", book).runs.keys() == {RUN}
