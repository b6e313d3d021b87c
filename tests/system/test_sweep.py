"""Notebooks executed in bulk: pages, what is skipped, what fails; and what is published of the runs."""

import base64
import copy
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import ROOT, is_alive
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from book.machinery import __main__ as command_line
from book.machinery import profiles, publish
from book.machinery import sweep as batch
from book.machinery.sweep import Job, sweep
from vaelib import data, plots, runs, storage

FIGURE = {"mystnb": {"figure": {"caption": "A caption.", "name": "fig-one"}}}
EVALUATION = '{"test_elbo": -1.0}'


def _notebook(path: Path, code: str, *outputs) -> Path:
    cells = [
        new_markdown_cell("# A title\n\nSee {numref}`fig-one` and {eq}`eq-one`.\n\n$$\nx\n$$ (eq-one)"),
        new_code_cell("latent_dim = 1", metadata={"tags": ["parameters"]}),
        new_code_cell(code, metadata=FIGURE, outputs=list(outputs)),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def _picture(image: Image.Image, **options):
    image.save(drawn := io.BytesIO(), "png", **options)
    return new_output("display_data", data={"image/png": base64.b64encode(drawn.getvalue()).decode()})


def _run(folder: Path) -> Path:
    """What a complete run leaves on disk; the weights are empty."""
    folder.mkdir(parents=True)
    settings = {"latent_dim": 1, "epochs": 1, "seed": 0, "batch_size": 128, "learning_rate": 1e-3}
    (folder / "config.json").write_text(json.dumps({"settings": settings, "data": {"name": "digits"}}))
    (folder / "metrics.jsonl").write_text('{"epoch": 1}\n')
    (folder / "evaluation.json").write_text(EVALUATION)
    (folder / "model.safetensors").touch()
    return folder


def _job(notebook: Path, K: int, run: Path | None = None) -> Job:
    page = notebook.parent / "pages" / f"page-k{K}.ipynb"
    return Job(notebook, page, {"latent_dim": K}, f"K = {K} (quick)", run)


@pytest.fixture
def project(monkeypatch, tmp_path):
    """An empty book with a table of contents, two trainings in place of a profile, and all of their runs."""
    plan = profiles.Experiment("digits", [1, 2], profiles.Schedule(1, [0]), profiles.Schedule(2, [0]))
    monkeypatch.setattr(profiles, "load", lambda profile, experiment: plan)
    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)
    for settings in plan.settings(plan.short) + plan.settings(plan.long):
        _run(runs.default_root() / runs.name(plan.dataset, settings))
    names = [f"book/{name}" for name in ("mnist/all", "mnist/train", "celeba/all", "celeba/train", "damaged")]
    Path("_toc.yml").write_text("".join(f"- file: {name}\n" for name in names), "utf-8")
    return tmp_path


def _command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["machinery", *arguments])
    command_line.main()


def test_a_page_is_executed_with_its_parameters_and_has_names_of_its_own(tmp_path):
    kernel = "from ipykernel.kernelapp import IPKernelApp as app\nprint(latent_dim * 100, app.instance().transport)"
    job = _job(_notebook(tmp_path / "train.ipynb", kernel), 3)
    assert sweep([job], 1) == {}
    page = nbformat.read(job.page, as_version=4)
    assert page.cells[-1].outputs[0].text == ("300 tcp\n" if os.name == "nt" else "300 ipc\n")
    title, text, equation = page.cells[0].source.split("\n\n")
    assert title == "# A title: K = 3 (quick)"
    assert text == "See {numref}`fig-one-K---3--quick-` and {eq}`eq-one-K---3--quick-`."
    assert equation == "$$\nx\n$$ (eq-one-K---3--quick-)"
    assert page.cells[-1].metadata.mystnb.figure.name == "fig-one-K---3--quick-"
    assert not any("papermill" in each.metadata for each in (page, *page.cells))
    assert list(job.page.parent.iterdir()) == [job.page]


def test_a_page_is_skipped_only_while_run_notebook_parameters_and_package_are_the_same(tmp_path, monkeypatch):
    notebook = _notebook(tmp_path / "train.ipynb", "latent_dim")
    job = _job(notebook, 1, run=tmp_path / "run")
    assert not job.finished  # no run
    _run(job.run)
    assert not job.finished  # no page
    sweep([job], 1)
    assert job.finished
    with monkeypatch.context() as changed:
        changed.setattr(batch, "execute", None)  # is not called
        assert sweep([job], 1) == {}
        changed.setattr(batch, "_package", lambda: "other code")
        assert not job.finished  # the package was edited
    assert not replace(job, parameters={"latent_dim": 2}).finished
    (job.run / "evaluation.json").write_text('{"test_elbo": -2.0}')
    assert not job.finished  # the run was made again
    (job.run / "evaluation.json").write_text(EVALUATION)
    assert job.finished
    _notebook(notebook, "latent_dim + 1")
    assert not job.finished  # the notebook was edited


def test_a_page_whose_notebook_was_edited_meanwhile_is_made_again(tmp_path):
    path = tmp_path / "train.ipynb"
    edit = "p = __import__('pathlib').Path('train.ipynb'); p.write_text(p.read_text().replace('p =', 'q = p ='))"
    job = _job(_notebook(path, edit), 1, _run(tmp_path / "run"))
    assert sweep([job], 1) == {} and job.page.exists()
    assert not job.finished


def test_what_is_damaged_is_made_again_or_a_failure_that_stops_no_other(tmp_path):
    code = f"import vaelib.runs, pathlib\nvaelib.runs.load(pathlib.Path({str(tmp_path)!r}, f'run-{{latent_dim}}'))"
    notebook = _notebook(tmp_path / "train.ipynb", code)
    jobs = [_job(notebook, K, _run(tmp_path / f"run-{K}")) for K in (1, 2, 3)]
    jobs.append(_job(tmp_path / "empty.ipynb", 4, _run(tmp_path / "run-4")))
    jobs[3].notebook.touch()
    (tmp_path / "pages").mkdir()
    for job, content in zip(jobs, ("", '{"metadata": []}', "{}", "[]"), strict=True):
        job.page.write_text(content)
    (jobs[1].run / "metrics.jsonl").write_text('{"epo')
    failures = sweep(jobs, 2)
    assert set(failures) == {jobs[1], jobs[3]}
    assert f"{jobs[1].run} is damaged" in str(failures[jobs[1]])
    assert f"{jobs[3].notebook} isn't a notebook, or is damaged" in str(failures[jobs[3]])
    assert [job.finished for job in jobs] == [True, False, True, False]
    assert any(output.output_type == "error" for output in nbformat.read(jobs[1].failure, 4).cells[-1].outputs)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_a_sweep_that_is_stopped_starts_nothing_more_and_its_kernels_end(tmp_path):
    wait = "import os, pathlib, time\npathlib.Path(f'{os.getpid()}.pid').touch()\ntime.sleep(600)"
    folder = _notebook(tmp_path / "book" / "mnist" / "train.ipynb", wait).parent
    (tmp_path / "_toc.yml").write_text("- file: book/mnist/train")
    environment = os.environ | {"VAELIB_RUNS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "book.machinery", "sweep", "mnist", "--profile", "quick", "--workers", "2"]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path)
    deadline = time.monotonic() + 300  # of a machine that is busy otherwise
    try:
        while len(kernels := list(folder.glob("*.pid"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        deadline = time.monotonic() + 30
        while alive := [path.stem for path in kernels if is_alive(int(path.stem))]:
            assert time.monotonic() < deadline, f"kernels {alive} live on"
            time.sleep(0.1)
        assert len(list(folder.glob("*.pid"))) == 2 and not list(folder.parent.glob("runs/quick/*"))
    finally:
        process.kill()


def test_a_sweep_makes_each_page_of_the_book_once_all_runs_before_all_summaries(project, monkeypatch, capsys):
    for name in ("mnist/train", "mnist/all", "mnist/scratch", "celeba/train", "celeba/all"):
        _notebook(Path("book", f"{name}.ipynb"), "latent_dim")
    made, failing = [], set()

    def execute(job):
        made.append(job.page.stem)
        if job.page.stem in failing:
            job.failure.touch()
            raise ValueError("it fails")
        job.page.parent.mkdir(parents=True, exist_ok=True)
        job.page.touch()

    monkeypatch.setattr(batch, "execute", execute)
    _command(monkeypatch, "sweep", "celeba", "mnist", "mnist", "--workers", "2")
    trainings = [f"train-k{K}{ending}" for K in (1, 2) for ending in ("", "-long")]
    expected = [f"{experiment}-{name}" for experiment in ("celeba", "mnist") for name in trainings]
    assert sorted(made[:8]) == sorted(expected)
    assert set(made[8:]) == {"celeba-all", "mnist-all"} and len(made) == 10
    assert {path.stem for path in Path("book/runs/paper").iterdir()} == set(made)
    failing.update(("mnist-train-k2", "mnist-train-k2-long"))
    with pytest.raises(SystemExit, match="2 of 4 runs failed"):
        _command(monkeypatch, "sweep", "mnist", "--workers", "2")
    assert str(Path("book/runs/paper/mnist-train-k2-failed.ipynb").absolute()) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sweep", "publish"])
def test_where_there_is_no_book_the_commands_say_so_and_write_nothing(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        _command(monkeypatch, command, "mnist", "--profile", "quick")
    assert f"no book here: {tmp_path} lacks _toc.yml" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_of_other_profiles_than_the_papers_only_records_are_published(project, monkeypatch, capsys):
    monkeypatch.setattr(storage, "PRETRAINED", project / "package")
    _command(monkeypatch, "publish", "mnist", "--profile", "mine")
    assert list(Path("book").iterdir()) == [Path("book/records")] and not storage.PRETRAINED.exists()
    folders = list(Path("book/records/mine").iterdir())
    assert {each.stem for each in folders} == {f"digits-k{K}-e{epochs}-s0" for K in (1, 2) for epochs in (1, 2)}
    assert runs.load(folders[0]).evaluation == json.loads(EVALUATION)
    assert not list(Path("book").rglob("*.safetensors"))
    monkeypatch.setenv("VAELIB_RUNS", str(project / "none"))
    with pytest.raises(SystemExit):
        _command(monkeypatch, "publish", "mnist", "--profile", "mine")
    assert "digits-k1-e1-s0" in capsys.readouterr().err


def test_a_damaged_run_or_page_is_named(project, monkeypatch, capsys):
    metrics = runs.default_root() / "digits-k2-e1-s0" / "metrics.jsonl"
    page = _notebook(Path("book/mnist/all.ipynb"), "", _picture(Image.linear_gradient("L"), compress_level=0))
    broken = _notebook(Path("book/damaged.ipynb"), "", new_output("display_data", data={"image/png": "iVBORw0KGgo="}))
    before, size = metrics.read_text(), page.stat().st_size

    def refused():
        with pytest.raises(SystemExit):
            _command(monkeypatch, "publish", "mnist")
        return capsys.readouterr().err

    metrics.write_text('{"epo')
    assert f"{metrics.parent} is damaged" in refused() and not Path("book/records").exists()
    metrics.write_text(before)
    assert f"{broken} contains a damaged picture" in refused()
    assert page.stat().st_size < size / 2


def test_a_picture_is_taken_from_the_notebook_that_shows_it(tmp_path):
    notebook, saved = tmp_path / "page.ipynb", tmp_path / "picture.png"
    with pytest.raises(ValueError, match="doesn't contain a figure named 'fig-one'"):
        publish.picture(_notebook(notebook, ""), "fig-one", saved)
    publish.picture(_notebook(notebook, "", _picture(Image.new("RGB", (3, 2), "red"))), "fig-one", saved)
    with Image.open(saved) as picture:
        assert picture.size == (3, 2) and picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


@pytest.fixture
def trained_plan(trained, monkeypatch, tmp_path_factory):
    """A plan of the one training that there is, and its weights to be published."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(trained.folder, root / "tiny-k2-e3-s0")  # the name that the plan's settings give
    monkeypatch.setenv("VAELIB_RUNS", str(root))
    plan = profiles.Experiment("tiny", [2], profiles.Schedule(trained.config.epochs, [0, 1]))
    monkeypatch.setattr(profiles, "load", lambda *_: plan)
    monkeypatch.setattr(publish, "WEIGHTS", {"mnist": (2,)})


@pytest.mark.usefixtures("trained_plan")
def test_published_weights_decode_as_the_run_does_and_come_with_a_card(trained, tmp_path, monkeypatch):
    publish.weights("quick", "mnist", tmp_path / "weights")
    path = tmp_path / "weights" / "mnist-k2.safetensors"
    assert path.stat().st_size < 0.6 * (trained.folder / "model.safetensors").stat().st_size
    monkeypatch.setattr(storage, "PRETRAINED", path.parent)
    published, z = storage.from_pretrained("mnist-k2"), 2 * torch.randn(1000, 2)
    assert {each.dtype for each in published.parameters()} == {torch.float32}
    torch.testing.assert_close(published.decode(z), trained.model().decode(z), rtol=0, atol=2 / 255)
    card = path.with_suffix(".md").read_text()
    assert f"test ELBO | {trained.evaluation['test_elbo']:.2f} nats" in card
    assert "learning_rate 0.001" in card and trained.record["data"]["fingerprint"] in card
    assert {each.name for each in path.parent.iterdir()} == {"mnist-k2.safetensors", "mnist-k2.md"}


@pytest.mark.usefixtures("trained_plan")
@pytest.mark.parametrize("addition", [1000.0, 1e6])  # half precision keeps no fractions of one, makes nan of the other
def test_weights_that_half_precision_would_change_are_not_published(trained, tmp_path, monkeypatch, addition):
    rough = trained.model()
    next(rough.decoder.parameters()).data += addition
    monkeypatch.setattr(runs.Run, "model", lambda self: copy.deepcopy(rough))
    with pytest.raises(ValueError, match="half precision changes tiny-k2-e3-s0's pixels by"):
        publish.weights("quick", "mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("trained_plan")
def test_an_interactive_page_gets_its_data_and_a_picture(tiny, digits, tmp_path, monkeypatch):
    def page(dataset, models):
        assert dataset is tiny and [model.latent_dim for model in models] == [2]
        return {"codes": [[0.5, -1.25]], "labels": [3]}, plots.panels({"": models[0].sample(4)}, columns=2)

    monkeypatch.setattr(publish, "LIVE", {"mnist": page})
    monkeypatch.setattr(data, "load", lambda name: digits)
    with pytest.raises(ValueError, match="tiny-k2-e3-s0 was trained on other images or labels"):
        publish.interactive("quick", "mnist", tmp_path / "live")
    monkeypatch.setattr(data, "load", lambda name: tiny)
    path = publish.interactive("quick", "mnist", tmp_path / "live")
    assert json.loads(path.read_text()) == {"codes": [[0.5, -1.25]], "labels": [3]}
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert {each.name for each in path.parent.iterdir()} == {"mnist.json", "mnist.png"}


def test_the_animation_is_a_loop_of_frames_side_by_side(tmp_path):
    publish.animation(storage.PRETRAINED / "celeba-k64.safetensors", tmp_path / "walk.webp", faces=3, frames=4, zoom=1)
    with Image.open(tmp_path / "walk.webp") as picture:
        assert picture.n_frames == 4 and picture.info["loop"] == 0
        assert picture.size == (3 * 49 + 1, 64 + 2)
