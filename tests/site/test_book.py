"""What is published: the stored notebooks, the records, the README, and the ledger of claims."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pytest
from conftest import BOOK, ROOT
from jupyter_book.config import get_final_config
from jupyter_server.services.contents.largefilemanager import LargeFileManager
from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class
from sklearn.utils import Bunch
from sphinx.errors import ExtensionError
from sphinx_book_theme.header_buttons import update_context_with_repository_info
from sphinx_book_theme.header_buttons.launch import add_launch_buttons

from book.machinery import __main__ as command_line
from book.machinery import claims, profiles
from book.machinery import sphinx_ledger as ledger
from book.machinery import sphinx_notebooks as extension
from vaelib import runs

RECORDS = BOOK / "records" / "paper"
NOTEBOOKS = sorted(path for path in BOOK.rglob("*.ipynb") if not re.search(r"runs/quick|checkpoints|-s\d", str(path)))
PLANS = {experiment: profiles.load("paper", experiment) for experiment in ("mnist", "celeba")}
FINGERPRINTS = {"mnist": "97ee8cdd93d91db9", "celeba": "e44082404df45fd2"}  # the four files; 9,000 half-size faces
RUN = "mnist-k2-e10-s0"
C7 = claims.rules()["C7"]
README = (ROOT / "README.md").read_text()


def _outputs(path):
    return [output for cell in nbformat.read(path, 4).cells if cell.cell_type == "code" for output in cell.outputs]


def _published(experiment, K, schedule):
    settings = PLANS[experiment].settings(getattr(PLANS[experiment], schedule))
    return [runs.load(RECORDS / runs.name(experiment, each)) for each in settings if each.latent_dim == K]


def _glued(page):
    found = {}
    for output in _outputs(BOOK / page):
        if key := output.get("metadata", {}).get("scrapbook", {}).get("name"):
            found[key.removeprefix("application/papermill.record/")] = next(iter(output.data.values()))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_stored_outputs_are_of_the_paper_profile_and_of_no_particular_machine(path):
    outputs = _outputs(path)
    assert outputs, "not executed"
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    text = "\n".join(f"{each.get('text', '')}{each.get('data', {}).get('text/plain', '')}" for each in outputs)
    assert extension.quick_numbers(path) is None
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
    assert not re.search(r"\r|\d%\|", text), "a progress bar was stored: execute it with TQDM_DISABLE=1"


def test_jupyterlab_writes_a_text_beside_the_books_notebooks_and_beside_no_other(tmp_path):
    notebook, page = BOOK / "mnist" / "train.ipynb", BOOK / "runs" / "quick" / "mnist-train-k2.ipynb"
    copies = {"book/mnist/train.ipynb": notebook, "book/runs/quick/page.ipynb": page, "copy.ipynb": notebook}
    for name, original in copies.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(original, tmp_path / name)
    shutil.copy(BOOK / "jupytext.toml", tmp_path / "book")
    manager = build_sync_jupytext_contents_manager_class(LargeFileManager)(root_dir=str(tmp_path))
    for name in copies:
        manager.save({"type": "notebook", "format": "json", "content": manager.get(name)["content"]}, name)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.py")] == ["book/mnist/train.py"]


def test_no_book_is_built_of_a_published_page_with_numbers_of_the_quick_profile(tmp_path):
    quick = sorted((BOOK / "runs" / "quick").glob("*.ipynb"))
    assert len(quick) > 20, "run `make book` first"
    assert all(map(extension.quick_numbers, quick))
    env = SimpleNamespace(found_docs=["book/mnist/train"], doc2path=lambda _: BOOK / "runs/quick/mnist-train-k2.ipynb")
    with pytest.raises(ExtensionError, match=r"mnist-train-k2.ipynb was .* git checkout .*mnist-train-k2.py"):
        extension.refuse_quick_numbers(SimpleNamespace(srcdir=ROOT), env, [])


def test_a_notebook_can_be_launched_as_soon_as_the_repository_has_an_address(tmp_path):
    settings = tmp_path / "_config.yml"
    address = "https://github.com/someone/vae"
    settings.write_text((ROOT / "_config.yml").read_text().replace('{url: "", ', f'{{url: "{address}", '))
    final, _ = get_final_config(user_yaml=settings, cli_config={"latex_individualpages": False})
    config = Bunch(html_theme_options=final["html_theme_options"], html_context={})
    env = SimpleNamespace(metadata={"book/idea/vae": {"kernelspec": {}}}, doc2path=lambda page: f"{page}.ipynb")
    app = SimpleNamespace(config=config, env=env, builder=None)
    extension.forget_launchers(app, config)
    update_context_with_repository_info(app)
    context = {"pagename": "book/idea/vae", "sourcename": "vae.ipynb", "header_buttons": [], **config.html_context}
    add_launch_buttons(app, "book/idea/vae", "page.html", context, None)
    offered = [button["url"] for group in context["header_buttons"] for button in group["buttons"]]
    assert offered == [
        "https://mybinder.org/v2/gh/someone/vae/main?urlpath=lab/tree/book/idea/vae.ipynb",
        "https://colab.research.google.com/github/someone/vae/blob/main/book/idea/vae.ipynb",
    ]


def test_the_notebooks_that_are_opened_are_copies(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    published, opened = tmp_path / "book" / "mnist" / "train.ipynb", tmp_path / ".venv" / "bin" / "jupyter"
    needed = "pyproject.toml", "book/machinery/pyproject.toml", "requirements.txt", ".venv/ready"
    for path in (published, opened, *(tmp_path / name for name in needed)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("published")
    opened.write_text('#!/bin/sh\necho saved > "$3/book/mnist/train.ipynb"\n')
    opened.chmod(0o755)
    for _ in range(2):
        subprocess.run(["make", "lab"], cwd=tmp_path, check=True)
        assert published.read_text() == "published"
        assert (tmp_path / "lab" / "book" / "mnist" / "train.ipynb").read_text() == "saved\n"


def test_papermill_tells_the_type_and_the_meaning_of_every_parameter(caplog):
    found = [each for path in sorted(BOOK.glob("*/*.ipynb")) for each in papermill.inspect_notebook(path).values()]
    assert len(found) > 60 and not caplog.records
    for parameter in found:
        assert parameter["inferred_type_name"] in ("int", "str", "bool", "list") and parameter["help"], parameter


@pytest.mark.parametrize("experiment", PLANS)
def test_every_published_run_has_a_record_on_all_of_the_data(experiment):
    plan = PLANS[experiment]
    for settings in plan.settings(plan.short) + plan.settings(plan.long):
        run = runs.load(RECORDS / runs.name(experiment, settings))
        assert run.config == settings and len(run.metrics) == settings.epochs
        found = run.record["data"]["name"], run.record["data"]["fingerprint"]
        assert found == (experiment, FINGERPRINTS[experiment])


@pytest.mark.parametrize(("experiment", "K"), [(name, K) for name, plan in PLANS.items() for K in plan.latent_dims])
def test_the_pages_and_the_readme_show_what_the_records_hold(experiment, K):
    short, glued = _published(experiment, K, "short"), _glued(f"{experiment}/dimensions.ipynb")

    def shown(key, sign=1, digits=1):
        return runs.plus_minus([sign * run.evaluation[key] for run in short], f".{digits}f")

    elbo, log_prob, units = shown("test_elbo", -1), shown("log_prob", -1), shown("active_units")
    if experiment == "mnist":
        assert elbo.startswith(f"{float(glued[f'negative_elbo_{K}']):.1f} ± ")
        (long,) = _published(experiment, K, "long")
        row = elbo, log_prob.split()[0], units.split()[0], f"{-long.evaluation['test_elbo']:.1f}"
    else:
        row = elbo, log_prob, units, shown("reconstruction_error", digits=4)
        names = "negative_elbo", "negative_log_prob", "active_units", "error"
        assert tuple(glued[f"{name}_{K}"].strip("'") for name in names) == row
    assert f"| {K} | {' | '.join(row)} |" in README


@pytest.mark.parametrize(
    "page", sorted(BOOK.glob("[!rl]*/*.ipynb")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_the_numbers_of_an_opening_are_in_the_outputs_of_its_page(page):
    cells = nbformat.read(page, 4).cells
    opening = next(cell.source for cell in cells if cell.cell_type == "markdown" and "**" in cell.source)
    plain = re.sub(r"\$[^$]*\$|\{[a-z]+\}`[^`]*`|`[^`]*`", "", opening.partition("\n## ")[0])
    told = re.findall(r"(?<![\d.,])\d[\d,]*(?:\.\d+)?(?=%| nats)|(?<![\d.,])\d+\.\d+(?! million)", plain)
    texts = [str({**output.get("data", output), "image/png": ""}) for output in _outputs(page)]
    found = [float(each.replace(",", "")) for each in re.findall(r"\d[\d,]*(?:\.\d+)?", " ".join(texts))]
    for number in told:
        value, digits = float(number.replace(",", "")), len(number.partition(".")[2])
        assert any(value in (round(each, digits), round(100 * each, digits)) for each in found), number


@pytest.fixture
def book(tmp_path):
    """A book with one page, which judges C7 by one run that has a record."""
    book = tmp_path / "book"
    (book / "records" / "paper").mkdir(parents=True)
    shutil.copy(RECORDS / f"{RUN}.json", book / "records" / "paper")
    found = claims.judge("C7", "test data", [runs.load(RECORDS / RUN)], kept=1, fine=0.2)
    _write(book, found._repr_mimebundle_())
    return book


def _write(book, bundle):
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("execute_result", bundle, execution_count=1)])
    path = book / f"{C7['page']}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


@pytest.mark.parametrize("claim", claims.rules())
def test_every_claim_is_judged_by_its_page_on_published_data_as_the_page_says(claim):
    name, found = claims.rules()[claim]["page"], claims.judgement(claim, BOOK)
    assert found.verdict in ledger.SIGNS and not found.data.startswith("faces")  # which are drawn
    assert found.runs or name.startswith(("idea/", "beyond/rivals"))
    page = nbformat.read(BOOK / f"{name}.ipynb", as_version=4)
    shown = [output["data"] for cell in page.cells for output in cell.get("outputs", []) if "data" in output]
    (said,) = (each for each in shown if each.get(claims.MIME, {}).get("claim") == claim)
    assert said["text/markdown"] == found._repr_mimebundle_()["text/markdown"]


def _refused(book, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        claims.judgement("C7", book)


def test_a_page_that_judges_otherwise_or_not_or_is_damaged_is_refused(book):
    stored = claims.judgement("C7", book)._repr_mimebundle_()
    stored[claims.MIME]["values"] = {"kept": [1.0]}
    _write(book, stored)
    _refused(book, "C7 asks for kept, fine, not kept")
    _write(book, {"text/plain": "nothing"})
    _refused(book, "does not judge C7; execute it")
    (book / f"{C7['page']}.ipynb").write_text("")
    _refused(book, f"{C7['page']}.ipynb isn't a notebook, or is damaged")


def test_runs_without_a_record_or_with_that_of_another_training_are_refused(book):
    path = book / "records" / "paper" / f"{RUN}.json"
    run = runs.load(path)
    path.write_text(replace(run, evaluation=run.evaluation | {"test_elbo": -1.0}).dumps())
    _refused(book, "by runs that differ from their records")
    shutil.rmtree(book / "records")
    _refused(book, RUN)


def test_the_runs_of_a_page_beyond_the_paper_get_their_records(book, monkeypatch):
    shutil.move(book / "records" / "paper", book.parent / "runs")  # as it is before anything was published
    monkeypatch.setenv("VAELIB_RUNS", str(book.parent / "runs"))
    monkeypatch.setattr(claims, "numbered", lambda letter: {"B": ["C7"]}[letter])  # as if C7 were one of them
    monkeypatch.setattr(sys, "argv", ["machinery", "publish", "beyond"])
    monkeypatch.chdir(book.parent)
    Path("_toc.yml").touch()
    command_line.main()
    assert claims.judgement("C7", book).runs.keys() == {RUN}
    shutil.rmtree(book.parent / "runs")
    command_line.main()  # a page that only reads records leaves no runs
    assert claims.judgement("C7", book).runs.keys() == {RUN}


def test_newcomers_get_one_sentence_and_the_verdict_of_each_claim():
    judged = [claims.judgement(claim, BOOK) for claim in claims.numbered("C")]
    for row, each in zip(ledger._plain(judged).splitlines()[2:], judged, strict=True):
        assert f"{claims.rules()[each.claim]['plain']} </book/" in row and f"**{each.label}**" in row
        assert not any(character.isdigit() for character in row)


@pytest.mark.parametrize("claim", claims.rules())
def test_a_row_of_the_ledger_has_a_dot_for_each_condition_on_its_side_of_the_bound_and_unfolds_to_the_rest(claim):
    judged = claims.judgement(claim, BOOK)
    row = ledger._row(judged)
    label = re.search(r"<strong>(.*)</strong></summary>$", row)[1].replace(" <small>", ", ").replace("</small>", "")
    assert label == judged.label and f"<small>{claim}</small></span>" in row
    dots = re.findall(r'<g class="(\w+)"><path d="M([\d-]+) \d+H([\d-]+)"/><circle cx="(\d+)"', row)
    assert len(dots) == len(judged.met)
    for (shade, *places), met in zip(dots, judged.met.values(), strict=True):
        low, high, middle = map(int, places)
        assert min(low, high) >= 0 and max(low, high, middle) <= 100
        if met is not None:  # a hollow dot may be on either side
            assert shade == ("met" if met else "missed")
            assert all(place >= 50 if met else place <= 50 for place in (low, high, middle))
    assert judged.rule["before"] in ledger.SIGNS
    told = ledger._detail(judged)
    assert judged.table() in told and judged.rule["why"] in told and f"*{judged.rule['before']}*" in told
