"""The ledger of claims: only what a stored page measured, on runs that have a record, gets into the book."""

import json
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

from book.machinery import __main__ as command_line
from book.machinery import claims
from book.machinery import sphinx_ledger as ledger
from vaelib import runs

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "book" / "records" / "paper"


@pytest.fixture
def book(tmp_path):
    """A book with one page, which judges C7 by one run that has a record."""
    name = "mnist-k2-e10-s0"
    shutil.copytree(RECORDS / name, tmp_path / "records" / "paper" / name)
    found = claims.judge("C7", "test data", [runs.load(RECORDS / name)], kept=1, mostly_kept=1, fine=0.2)
    _write(tmp_path, found._repr_mimebundle_())
    return tmp_path


def _write(book, bundle):
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("execute_result", bundle, execution_count=1)])
    path = book / f"{claims.rules()['C7']['page']}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


@pytest.mark.parametrize("claim", claims.rules())
def test_every_claim_is_judged_by_its_page_on_published_data(claim):
    found = claims.judgement(claim, ledger.BOOK)
    assert found.verdict in ("holds", "holds in part", "does not hold")
    assert "faces" not in found.data
    assert found.runs or claims.rules()[claim]["page"].startswith(("idea/", "beyond/rivals"))


@pytest.mark.parametrize("claim", claims.rules())
def test_a_page_says_of_a_claim_what_its_rule_makes_of_the_values_that_were_measured(claim):
    page = nbformat.read(ledger.BOOK / f"{claims.rules()[claim]['page']}.ipynb", as_version=4)
    shown = [output["data"] for cell in page.cells for output in cell.get("outputs", []) if "data" in output]
    (said,) = (each for each in shown if each.get(claims.MIME, {}).get("claim") == claim)
    assert said["text/markdown"] == claims.judgement(claim, ledger.BOOK)._repr_mimebundle_()["text/markdown"]


def test_a_judgement_is_read_from_the_page(book):
    assert claims.judgement("C7", book).verdict == "holds"


def test_a_page_that_does_not_judge_is_refused(book):
    _write(book, {"text/plain": "nothing"})
    with pytest.raises(ValueError, match="does not judge C7; execute it"):
        claims.judgement("C7", book)


def test_a_run_without_a_record_is_refused(book):
    shutil.rmtree(book / "records")
    with pytest.raises(FileNotFoundError, match="mnist-k2-e10-s0"):
        claims.judgement("C7", book)


def test_a_record_of_another_training_is_refused(book):
    path = book / "records" / "paper" / "mnist-k2-e10-s0" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"test_elbo": -1.0}))
    with pytest.raises(ValueError, match="by other runs than those of the records"):
        claims.judgement("C7", book)


def test_values_that_the_rules_do_not_ask_for_are_refused(book):
    stored = claims.judge("C7", "test data", kept=1, mostly_kept=1, fine=0.2)._repr_mimebundle_()
    stored[claims.MIME]["values"] = {"kept": [1.0]}
    _write(book, stored)
    with pytest.raises(ValueError, match="C7 asks for kept, mostly_kept, fine, not kept"):
        claims.judgement("C7", book)


def test_the_runs_of_a_page_beyond_the_paper_get_their_records(book, monkeypatch):
    name = "mnist-k2-e10-s0"
    shutil.move(book / "records" / "paper", book / "runs")  # as it is before anything was published
    monkeypatch.setenv("VAELIB_RUNS", str(book / "runs"))
    monkeypatch.setattr(claims, "numbered", lambda letter: {"B": ["C7"]}[letter])  # as if C7 were one of them
    monkeypatch.setattr(sys, "argv", ["vaelib", "publish", "beyond", "--book", str(book)])
    command_line.main()
    assert claims.judgement("C7", book).runs.keys() == {name}


def test_an_unknown_claim_and_a_damaged_page_are_named(book):
    with pytest.raises(ValueError, match="no claim 'C99'; known: C1, "):
        claims.judgement("C99", book)
    page = book / f"{claims.rules()['C7']['page']}.ipynb"
    page.write_text("")
    with pytest.raises(ValueError, match=f"{page} is no notebook, or a damaged one"):
        claims.judgement("C7", book)


def test_newcomers_get_one_sentence_and_the_verdict_of_each_claim():
    judged = [claims.judgement(claim, ledger.BOOK) for claim in claims.numbered("C")]
    rows = ledger._plain(judged).splitlines()[2:]
    assert len(rows) == len(judged) == 12
    for row, each in zip(rows, judged, strict=True):
        assert f"{claims.rules()[each.claim]['plain']} </book/" in row and f"**{each.verdict}**" in row
        assert not any(character.isdigit() for character in row)
