"""What is published: the stored notebooks, the records, the README, and the pages that `make book` built."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pytest
from jupyter_server.services.contents.largefilemanager import LargeFileManager
from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class
from sphinx.errors import ExtensionError

from book.machinery import profiles
from book.machinery import sphinx_notebooks as extension
from vaelib import runs

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
HTML = ROOT / "_build" / "html"
NOTEBOOKS = sorted(path for path in BOOK.rglob("*.ipynb") if not re.search(r"runs/quick|checkpoints|-s\d", str(path)))
PLANS = {experiment: profiles.load("paper", experiment) for experiment in ("mnist", "celeba")}
FINGERPRINTS = {"mnist": "97ee8cdd93d91db9", "celeba": "e44082404df45fd2"}  # the four files; 9,000 half-size faces


def _outputs(path):
    return [output for cell in nbformat.read(path, 4).cells if cell.cell_type == "code" for output in cell.outputs]


def _short_runs(experiment, K):
    plan = PLANS[experiment]
    names = [runs.name(experiment, each) for each in plan.settings(plan.short) if each.latent_dim == K]
    return [runs.load(BOOK / "records" / "paper" / name) for name in names]


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
    text = "\n".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", "")) for output in outputs
    )
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
    page = tmp_path / "book" / "mnist" / "train.ipynb"
    page.parent.mkdir(parents=True)
    shutil.copy(BOOK / "runs" / "quick" / "mnist-train-k2.ipynb", page)
    env = SimpleNamespace(
        found_docs=["book/intro", "book/mnist/train"], doc2path=lambda name: tmp_path / f"{name}.ipynb"
    )
    with pytest.raises(
        ExtensionError, match=r"book/mnist/train.ipynb was .*git checkout book/mnist/train.ipynb book/mnist/train.py"
    ):
        extension.refuse_quick_numbers(SimpleNamespace(srcdir=tmp_path), env, [])


def test_the_notebooks_that_are_opened_are_copies(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "book" / "mnist").mkdir(parents=True)
    published = tmp_path / "book" / "mnist" / "train.ipynb"
    published.write_text("published")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "book" / "machinery").mkdir()
    for name in ("pyproject.toml", "book/machinery/pyproject.toml", "requirements.txt", ".venv/ready"):
        (tmp_path / name).touch()
    opened = tmp_path / ".venv" / "bin" / "jupyter"
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
        assert parameter["inferred_type_name"] in ("int", "str", "bool", "list"), parameter
        assert parameter["help"], parameter


@pytest.mark.parametrize("experiment", PLANS)
def test_every_published_run_has_a_record_on_all_of_the_data(experiment):
    plan = PLANS[experiment]
    for schedule in (plan.short, plan.long):
        for settings in plan.settings(schedule):
            run = runs.load(BOOK / "records" / "paper" / runs.name(experiment, settings))
            assert run.config == settings
            assert run.record["data"]["name"] == experiment
            assert run.record["data"]["fingerprint"] == FINGERPRINTS[experiment]
            assert len(run.metrics) == settings.epochs


@pytest.mark.parametrize("K", PLANS["mnist"].latent_dims)
def test_the_digits_page_and_the_readme_show_what_the_records_hold(K):
    plan, short = PLANS["mnist"], _short_runs("mnist", K)
    elbo, deviation = runs.mean_and_std(short, "test_elbo")
    assert -elbo == pytest.approx(float(_glued("mnist/dimensions.ipynb")[f"negative_elbo_{K}"]))
    log_prob, units = (runs.mean_and_std(short, key)[0] for key in ("log_prob", "active_units"))
    long_settings = next(each for each in plan.settings(plan.long) if each.latent_dim == K)
    long = runs.load(BOOK / "records" / "paper" / runs.name("mnist", long_settings)).evaluation["test_elbo"]
    row = f"| {K} | {-elbo:.1f} ± {deviation:.1f} | {-log_prob:.1f} | {units:.1f} | {-long:.1f} |"
    assert row in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("K", PLANS["celeba"].latent_dims)
def test_the_faces_page_and_the_readme_show_what_the_records_hold(K):
    glued = _glued("celeba/dimensions.ipynb")
    figures = {"negative_elbo": ("test_elbo", -1, 1), "negative_log_prob": ("log_prob", -1, 1)}
    figures |= {"active_units": ("active_units", 1, 1), "error": ("reconstruction_error", 1, 4)}
    row = f"| {K} |"
    for name, (key, sign, digits) in figures.items():
        shown = runs.plus_minus([sign * run.evaluation[key] for run in _short_runs("celeba", K)], f".{digits}f")
        assert glued[f"{name}_{K}"].strip("'") == shown
        row += f" {shown} |"
    assert row in (ROOT / "README.md").read_text()


def _pages():
    pages = sorted((HTML / "book").rglob("*.html"))
    assert pages, "there is no built book: run `make book` first"
    return pages


def test_the_built_book_has_every_page_of_its_table_of_contents():
    files = re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text())
    assert len(files) == len(set(files)) > 40
    for file in files:
        assert (HTML / f"{file}.html").exists(), file


def test_built_pages_load_nothing_from_other_hosts_and_miss_nothing_of_their_own():
    for page in _pages():
        html = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*?\ssrc="([^"]+)"', html)
        loaded += re.findall(r'<link[^>]*?rel="(?:stylesheet|preload|icon|shortcut icon)"[^>]*?href="([^"]+)"', html)
        for source in loaded:
            assert not re.match(r"(https?:)?//", source), f"{page.name} loads {source}"
            if not source.startswith("data:"):
                assert (page.parent / source.partition("?")[0]).exists(), f"{page.name} misses {source}"


def test_built_pages_have_a_local_mathjax_and_alternative_texts():
    train = (HTML / "book" / "mnist" / "train.html").read_text()
    assert re.search(r'src="[^"]*_static[^"]*mathjax[^"]*"', train, re.IGNORECASE)
    for page in _pages():
        for image in re.findall(r"<img[^>]*>", page.read_text()):
            if "logo__image" not in image:  # an ornament beside the book's name
                assert re.search(r'alt="[^"]+"', image), f"{page.name}: {image[:200]}"
