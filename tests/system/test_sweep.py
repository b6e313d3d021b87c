"""Notebooks executed in bulk: pages, what is skipped, what fails; and what is published of the runs."""

import base64
import copy
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import Mock

import jsonschema
import nbformat
import pytest
import torch
import yaml
from conftest import is_alive
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from book.machinery import __main__ as command_line
from book.machinery import pictures, profiles, publish
from book.machinery import sweep as batch
from book.machinery.sweep import Job, sweep, training_jobs
from vaelib import data, plots, runs, storage

ROOT = Path(__file__).parents[2]
TRANSPORT = """from ipykernel.kernelapp import IPKernelApp
assert IPKernelApp.instance().transport == "ipc"
print(IPKernelApp.instance().ip)"""
FIGURE = {"mystnb": {"figure": {"caption": "A caption.", "name": "fig-one"}}}
EVALUATION = '{"test_elbo": -1.0}'
METRICS = '{"epoch": 1}\n'


def _notebook(path: Path, code: str) -> Path:
    cells = [
        new_markdown_cell("# A title\n\nSee {numref}`fig-one` and {eq}`eq-one`.\n\n$$\nx\n$$ (eq-one)"),
        new_code_cell("latent_dim = 1", metadata={"tags": ["parameters"]}),
        new_code_cell(code, metadata=FIGURE),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def _run(folder: Path) -> Path:
    """What a complete run leaves on disk; the weights are empty."""
    folder.mkdir(parents=True)
    settings = {"latent_dim": 1, "epochs": 1, "seed": 0, "batch_size": 128, "learning_rate": 1e-3}
    (folder / "config.json").write_text(json.dumps({"settings": settings, "data": {"name": "digits"}}))
    (folder / "metrics.jsonl").write_text(METRICS)
    (folder / "evaluation.json").write_text(EVALUATION)
    (folder / "model.safetensors").touch()
    return folder


def _job(notebook: Path, K: int, run: Path | None = None) -> Job:
    page = notebook.parent / "pages" / f"page-k{K}.ipynb"
    return Job(notebook, page, {"latent_dim": K}, f"K = {K} (quick)", run)


def _complete_runs(plan):
    for schedule in (plan.short, plan.long):
        for settings in plan.settings(schedule):
            _run(runs.default_root() / runs.name(plan.dataset, settings))


@pytest.fixture
def small_plan(monkeypatch, tmp_path):
    """Two trainings in place of a whole profile, and runs in a temporary folder."""
    plan = replace(profiles.load("quick", "mnist"), latent_dims=[1, 2])
    plan = replace(plan, short=profiles.Schedule(1, [0]), long=profiles.Schedule(2, [0]))
    monkeypatch.setattr(profiles, "load", lambda profile, experiment: plan)
    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path / "runs"))
    return plan


def test_a_page_is_executed_with_its_parameters_and_has_names_of_its_own(tmp_path):
    job = _job(_notebook(tmp_path / "train.ipynb", "print(latent_dim * 100)"), 3)
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        assert sweep([job], executor) == {}
    page = nbformat.read(job.page, as_version=4)
    assert page.cells[-1].outputs[0].text == "300\n"
    title, text, equation = page.cells[0].source.split("\n\n")
    assert title == "# A title: K = 3 (quick)"
    assert text == "See {numref}`fig-one-K---3--quick-` and {eq}`eq-one-K---3--quick-`."
    assert equation == "$$\nx\n$$ (eq-one-K---3--quick-)"
    assert page.cells[-1].metadata.mystnb.figure.name == "fig-one-K---3--quick-"
    assert "papermill" not in page.metadata
    assert not any("papermill" in cell.metadata for cell in page.cells)
    assert list(job.page.parent.iterdir()) == [job.page]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no sockets that are files")
def test_kernels_of_the_sweep_and_of_nbval_use_no_ports(tmp_path):
    job = _job(_notebook(tmp_path / "train.ipynb", TRANSPORT), 1)
    with ThreadPoolExecutor(1) as executor:
        assert sweep([job], executor) == {}
    sockets = Path(nbformat.read(job.page, as_version=4).cells[-1].outputs[0].text)
    assert not sockets.parent.exists()  # they went with the kernel
    name = re.search(r"^export JUPYTER_DEFAULT_PROVISIONER_NAME := (\S+)$", (ROOT / "Makefile").read_text(), re.M)[1]
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", str(job.page)]
    environment = os.environ | {"JUPYTER_DEFAULT_PROVISIONER_NAME": name}
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)


def test_one_failure_is_reported_with_its_notebook_and_the_others_finish(tmp_path):
    notebook = _notebook(tmp_path / "train.ipynb", "assert latent_dim != 2, 'two is one too many'")
    jobs = [_job(notebook, K) for K in (1, 2, 3)]
    with ThreadPoolExecutor(1) as executor:
        failures = sweep(jobs, executor)
    assert list(failures) == [jobs[1]]
    assert "two is one too many" in str(failures[jobs[1]])
    assert [job.page.exists() for job in jobs] == [True, False, True]
    assert any(output.output_type == "error" for output in nbformat.read(jobs[1].failure, 4).cells[-1].outputs)


def test_a_page_is_skipped_only_while_run_notebook_parameters_and_package_are_the_same(tmp_path, monkeypatch):
    notebook = _notebook(tmp_path / "train.ipynb", "latent_dim")
    job = _job(notebook, 1, run=tmp_path / "run")
    assert not job.finished  # no run
    _run(job.run)
    assert not job.finished  # no page
    with ThreadPoolExecutor(1) as executor:
        sweep([job], executor)
    assert job.finished
    assert sweep([job], executor) == {}  # nothing is submitted: this executor has been shut down
    assert not replace(job, parameters={"latent_dim": 2}).finished
    (job.run / "evaluation.json").write_text('{"test_elbo": -2.0}')
    assert not job.finished  # the run was made again
    (job.run / "evaluation.json").write_text(EVALUATION)
    assert job.finished
    monkeypatch.setattr(batch, "_package", lambda: "other code")
    assert not job.finished  # the package was edited
    monkeypatch.undo()
    assert job.finished
    _notebook(notebook, "latent_dim + 1")
    assert not job.finished  # the notebook was edited


def test_damaged_pages_are_made_again_and_damaged_runs_and_notebooks_are_failures_of_theirs(tmp_path):
    notebook = _notebook(
        tmp_path / "train.ipynb",
        f"import vaelib.runs, pathlib\nvaelib.runs.load(pathlib.Path({str(tmp_path)!r}, f'run-{{latent_dim}}'))",
    )
    jobs = [_job(notebook, K, _run(tmp_path / f"run-{K}")) for K in (1, 2, 3)]
    jobs.append(_job(tmp_path / "empty.ipynb", 4, _run(tmp_path / "run-4")))
    jobs[3].notebook.touch()
    for job, content in zip(jobs, ("", '{"metadata": []}', "{}", "[]"), strict=True):
        job.page.parent.mkdir(exist_ok=True)
        job.page.write_text(content)
    (jobs[1].run / "metrics.jsonl").write_text('{"epo')
    with ThreadPoolExecutor(2) as executor:
        failures = sweep(jobs, executor)
    assert set(failures) == {jobs[1], jobs[3]}
    assert f"{jobs[1].run / 'metrics.jsonl'} is damaged" in str(failures[jobs[1]])
    assert f"{jobs[3].notebook} is no notebook, or a damaged one" in str(failures[jobs[3]])
    assert [job.finished for job in jobs] == [True, False, True, False]


def test_an_interrupted_sweep_executes_nothing_more(tmp_path, monkeypatch):
    jobs = [_job(_notebook(tmp_path / "train.ipynb", "latent_dim"), K) for K in range(1, 9)]

    def interrupted(futures):
        yield next(iter(futures))
        raise KeyboardInterrupt

    monkeypatch.setattr("book.machinery.sweep.as_completed", interrupted)
    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        sweep(jobs, executor)
    assert sum(job.page.exists() for job in jobs) <= 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_a_sweep_that_is_told_to_stop_or_killed_starts_nothing_more_and_its_kernels_end(tmp_path):
    # On Linux a kernel ends even while it does not answer, as when it imports torch
    wait = "__import__('ctypes').PyDLL(None).sleep(600)" if sys.platform == "linux" else "__import__('time').sleep(600)"
    waiting = f"import os, pathlib\npathlib.Path(f'{{os.getpid()}}.pid').touch()\n{wait}"
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    sweeps, command = {}, [sys.executable, "-m", "vaelib", "sweep", "mnist", "--profile", "quick", "--workers", "2"]
    for each in signals:
        _notebook(tmp_path / each.name / "mnist" / "train.ipynb", waiting)
        environment = os.environ | {"VAELIB_RUNS": str(tmp_path / each.name)}
        sweeps[each] = subprocess.Popen(
            [*command, "--book", str(tmp_path / each.name)],
            env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
    try:
        kernels = {each: _wait_for_kernels(tmp_path / each.name / "mnist", 2) for each in signals}
        for each, process in sweeps.items():
            process.send_signal(each)
        began = time.monotonic()
        assert [process.wait(5) for process in sweeps.values()] == [130, -signal.SIGTERM, -signal.SIGKILL]
        while alive := [number for numbers in kernels.values() for number in numbers if is_alive(number)]:
            assert time.monotonic() < began + 5, f"kernels {alive} live on"
            time.sleep(0.1)
        time.sleep(1)
        for each in signals:
            assert _wait_for_kernels(tmp_path / each.name / "mnist", 2) == kernels[each]
            assert not list((tmp_path / each.name / "runs" / "quick").iterdir())
    finally:
        for process in sweeps.values():
            process.kill()
        for number in map(int, (path.stem for path in tmp_path.rglob("*.pid"))):
            if is_alive(number):
                os.kill(number, signal.SIGKILL)


def _wait_for_kernels(folder, count):
    deadline = time.monotonic() + 120  # of a machine that is busy otherwise
    while len(found := {int(path.stem) for path in folder.glob("*.pid")}) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_every_run_of_a_profile_has_a_page_and_a_run_of_its_own():
    jobs = training_jobs("paper", "mnist", Path("book/mnist/train.ipynb"), Path("pages"))
    assert len(jobs) == 6 * 3 + 6 == len({job.page for job in jobs}) == len({job.run for job in jobs})
    assert Path("pages/mnist-train-k64.ipynb") in {job.page for job in jobs}
    assert {job.label for job in jobs} >= {"K = 2, 10 epochs, seed 1 (paper)", "K = 2, 100 epochs, seed 0 (paper)"}


def test_the_command_exits_with_an_error_that_names_the_failed_page(small_plan, tmp_path, monkeypatch, capsys):
    _complete_runs(small_plan)  # this notebook trains nothing itself
    _notebook(tmp_path / "mnist" / "train.ipynb", "assert latent_dim != 2")
    monkeypatch.setattr(sys, "argv", ["vaelib", "sweep", "mnist", "--book", str(tmp_path), "--workers", "2"])
    with pytest.raises(SystemExit, match="2 of 4 runs failed"):
        command_line.main()
    failed = tmp_path / "runs" / "paper" / "mnist-train-k2-failed.ipynb"
    assert str(failed) in capsys.readouterr().err
    assert failed.exists()


def test_several_experiments_are_swept_at_once_all_runs_before_all_summaries(small_plan, tmp_path, monkeypatch):
    _complete_runs(small_plan)
    for name in ("mnist/train", "mnist/all", "celeba/train", "celeba/all"):
        _notebook(tmp_path / f"{name}.ipynb", "latent_dim")
    monkeypatch.setattr(sys, "argv", ["vaelib", "sweep", "celeba", "mnist", "--book", str(tmp_path)])
    swept = []
    monkeypatch.setattr(batch, "sweep", lambda jobs, *_: swept.append([job.page.stem for job in jobs]))
    command_line.main()
    assert swept == [
        [f"{name}-train-k{K}{end}" for name in ("celeba", "mnist") for end in ("", "-long") for K in (1, 2)],
        ["celeba-all", "mnist-all"],
    ]


def test_the_kernels_of_an_installed_package_keep_runs_where_the_command_does(small_plan, tmp_path, monkeypatch):
    monkeypatch.delenv("VAELIB_RUNS")
    monkeypatch.setattr(runs, "__file__", "/elsewhere/site-packages/vaelib/runs.py")
    monkeypatch.chdir(tmp_path)
    _complete_runs(small_plan)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    _notebook(tmp_path / "book" / "mnist" / "train.ipynb", "import os\nprint(os.environ['VAELIB_RUNS'])")
    monkeypatch.setattr(sys, "argv", ["vaelib", "sweep", "mnist"])
    command_line.main()
    page = nbformat.read(tmp_path / "book" / "runs" / "paper" / "mnist-train-k1.ipynb", as_version=4)
    assert page.cells[-1].outputs[0].text == f"{tmp_path / 'runs'}\n"


def test_a_scheduler_without_dask_is_told_what_to_install(small_plan, tmp_path, monkeypatch, capsys):
    _notebook(tmp_path / "mnist" / "train.ipynb", "latent_dim")
    monkeypatch.setitem(sys.modules, "distributed", None)
    options = ["--book", str(tmp_path), "--scheduler", "tcp://127.0.0.1:1"]
    monkeypatch.setattr(sys, "argv", ["vaelib", "sweep", "mnist", *options])
    with pytest.raises(SystemExit):
        command_line.main()
    error = capsys.readouterr().err
    assert error == "error: --scheduler needs the package distributed: pip install distributed\n"


def test_a_sweep_on_dask_makes_its_pages_in_the_sweeps_environment(small_plan, tmp_path, monkeypatch):
    """The longer trials, in which workers are killed, are in `dask_campaign`."""
    distributed = pytest.importorskip("distributed")
    _complete_runs(small_plan)
    code = "import os\nprint(latent_dim, os.environ['VAELIB_RUNS'])"
    _notebook(tmp_path / "mnist" / "train.ipynb", code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with distributed.LocalCluster(1, threads_per_worker=1, dashboard_address=None) as cluster:
        os.environ["VAELIB_RUNS"] = str(tmp_path / "runs")
        options = ["--no-summary", "--book", ".", "--scheduler", cluster.scheduler_address]
        monkeypatch.setattr(sys, "argv", ["vaelib", "sweep", "mnist", *options])
        command_line.main()
    pages = sorted((tmp_path / "runs" / "paper").glob("*.ipynb"))
    printed = [nbformat.read(page, as_version=4).cells[-1].outputs[0].text for page in pages]
    assert printed == [f"{K} {tmp_path / 'runs'}\n" for K in (1, 1, 2, 2)]


def test_the_lines_for_slurm_submit_workers_that_do_the_sweep(tmp_path, monkeypatch):
    """Those of the page "Run it yourself"; Slurm is two scripts that start and stop a job on this machine."""
    pytest.importorskip("dask_jobqueue")
    from distributed import Client

    submit = 'cp "$1" "$0.script"; sh "$0.script" >/dev/null 2>&1 & echo "Submitted batch job $!"'
    for name, line in (("sbatch", submit), ("scancel", 'kill "$1"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    exec(_lines("SLURMCluster").replace("jobs=4", "jobs=1"), here := {})
    job = _job(_notebook(tmp_path / "train.ipynb", "print(latent_dim * 100)"), 3)
    with here["cluster"] as cluster, Client(cluster.scheduler_address) as client:
        client.wait_for_workers(1, timeout=60)
        assert sweep([job], client.get_executor()) == {}
    assert nbformat.read(job.page, as_version=4).cells[-1].outputs[0].text == "300\n"
    script = (tmp_path / "sbatch.script").read_text()
    for option in ("--cpus-per-task=1", "--mem=15G", "-t 04:00:00", "--gres=gpu:1"):  # 16 GB are 15 of Slurm's, of 2^30
        assert f"#SBATCH {option}\n" in script
    assert " --nthreads 1 " in script


def test_the_lines_for_kubernetes_ask_for_workers_that_do_the_sweep(tmp_path, monkeypatch):
    """Those of the same page; there is no cluster, so its containers' commands run on this machine."""
    operator = pytest.importorskip("dask_kubernetes.operator")
    import dask_kubernetes.operator.controller.controller as controller
    from distributed import Client

    monkeypatch.setattr(operator, "KubeCluster", Mock())
    exec(_lines("KubeCluster"), here := {})
    asked = json.loads(json.dumps(here["spec"]), object_hook=lambda it: {k: v for k, v in it.items() if v is not None})
    operator.KubeCluster.assert_called_once_with(custom_cluster_spec=here["spec"])
    folder = Path(operator.__file__).parent / "deployment/helm/dask-kubernetes-operator/crds"
    (version,) = yaml.safe_load((folder / "daskcluster.yaml").read_text())["spec"]["versions"]
    jsonschema.validate(asked, version["schema"]["openAPIV3Schema"])

    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    described = "vaelib-default", "here", "vaelib", "0", asked["spec"]["worker"]["spec"], {}, {}
    pod = controller.build_worker_deployment_spec(*described)["spec"]["template"]["spec"]
    (worker,), (volume,) = pod["containers"], pod["volumes"]
    assert worker["volumeMounts"] == [{"name": volume["name"], "mountPath": "/work"}]
    names = {each["name"]: each["value"] for each in worker["env"]}
    command = [re.sub(r"\$\((\w+)\)", lambda it: names[it[1]], each) for each in worker["args"]]
    job = _job(_notebook(tmp_path / "train.ipynb", "print(latent_dim * 100)"), 3)
    with Client(n_workers=0, dashboard_address=None) as client:
        names["DASK_SCHEDULER_ADDRESS"] = client.scheduler.address
        process = subprocess.Popen(command, env=os.environ | names, cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            client.wait_for_workers(1, timeout=60)
            (found,) = client.scheduler_info()["workers"].values()
            assert (found["id"], found["nthreads"]) == (names["DASK_WORKER_NAME"], 1)
            assert sweep([job], client.get_executor()) == {}
        finally:
            process.terminate()
            process.wait()
    assert nbformat.read(job.page, as_version=4).cells[-1].outputs[0].text == "300\n"


def _lines(name):
    """Those of the page "Run it yourself" that use it."""
    page = (ROOT / "book" / "run.md").read_text()
    (lines,) = (each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if name in each)
    return lines


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system ties no process to cores")
def test_a_sweep_takes_the_cores_that_it_may_use(monkeypatch):
    monkeypatch.setattr(command_line, "sweep", lambda options: taken.append(options.workers))
    monkeypatch.setattr(sys, "argv", ["vaelib", "sweep", "mnist"])
    taken, allowed = [], os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        command_line.main()
    finally:
        os.sched_setaffinity(0, allowed)
    assert taken == [1]


def test_the_version_names_all_that_a_report_needs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vaelib", "--version"])
    with pytest.raises(SystemExit) as exit:
        command_line.main()
    assert exit.value.code == 0
    printed = capsys.readouterr().out
    for part in (
        "vaelib 0.",
        f"torch {torch.__version__.split('+')[0]}",
        "torchvision ",
        "numpy ",
        "Python 3.",
        "thread",
    ):
        assert part in printed


def test_published_records_are_the_runs_without_their_weights(small_plan, tmp_path):
    with pytest.raises(ValueError, match=r"4 of 4 runs give no record:\n.*digits-k1-e1-s0"):
        publish.records("quick", "mnist", tmp_path / "records")
    _complete_runs(small_plan)
    folders = publish.records("quick", "mnist", tmp_path / "records")
    names = ["digits-k1-e1-s0", "digits-k2-e1-s0", "digits-k1-e2-s0", "digits-k2-e2-s0"]
    assert [folder.name for folder in folders] == names
    assert runs.load(folders[0]).evaluation == json.loads(EVALUATION)
    assert {path.name for path in folders[0].iterdir()} == {"config.json", "metrics.jsonl", "evaluation.json"}


def test_only_the_paper_profile_publishes_weights_and_pictures_unless_told_where(small_plan, tmp_path, monkeypatch):
    _complete_runs(small_plan)
    book = tmp_path / "book"
    monkeypatch.setattr(storage, "PRETRAINED", tmp_path / "package")
    monkeypatch.setattr(sys, "argv", ["vaelib", "publish", "mnist", "--profile", "mine", "--book", str(book)])
    command_line.main()
    assert [path.name for path in book.iterdir()] == ["records"] and len(
        list((book / "records" / "mine").iterdir())
    ) == 4
    monkeypatch.setattr(publish, "WEIGHTS", {"mnist": (3,)})
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--weights", str(tmp_path / "weights")])
    with pytest.raises(SystemExit, match="profile 'mine' does not train mnist with K = 3"):
        command_line.main()
    assert not (tmp_path / "package").exists()


def test_one_damaged_run_or_page_is_named_and_the_others_are_published(small_plan, tmp_path, monkeypatch):
    _complete_runs(small_plan)
    damaged = runs.default_root() / "digits-k1-e1-s0" / "metrics.jsonl"
    damaged.write_text('{"epo')
    book = tmp_path / "book"
    page = _notebook(book / "runs" / "page.ipynb", "draw()")
    failed = book / "runs" / "other-failed.ipynb"
    failed.touch()
    Image.linear_gradient("L").convert("RGB").save(drawn := io.BytesIO(), "png", compress_level=0)
    for path in (page, broken := _notebook(book / "broken.ipynb", "draw()")):
        notebook = nbformat.read(path, as_version=4)
        png = drawn.getvalue() if path == page else drawn.getvalue()[:5000]
        picture = new_output("display_data", data={"image/png": base64.b64encode(png).decode()})
        notebook.cells[-1].outputs = [picture]
        nbformat.write(notebook, path)
    before = page.stat().st_size
    monkeypatch.setattr(publish, "training", lambda path: None)  # it would take a minute
    monkeypatch.setattr(sys, "argv", ["vaelib", "publish", "mnist", "--book", str(book)])
    with pytest.raises(SystemExit) as exit:
        command_line.main()
    for path in (damaged, failed, broken):
        assert str(path) in str(exit.value)
    assert len(list((book / "records" / "paper").iterdir())) == 3
    assert page.stat().st_size < before / 2


def test_a_picture_is_taken_from_the_notebook_that_shows_it(tmp_path):
    notebook = _notebook(tmp_path / "page.ipynb", "draw()")
    with pytest.raises(ValueError, match="shows no figure named 'fig-one'"):
        publish.picture(notebook, "fig-one", tmp_path / "picture.png")
    page = nbformat.read(notebook, as_version=4)
    Image.new("RGB", (3, 2), "red").save(drawn := io.BytesIO(), "png")
    page.cells[-1].outputs = [
        new_output("display_data", data={"image/png": base64.b64encode(drawn.getvalue()).decode()})
    ]
    nbformat.write(page, notebook)
    publish.picture(notebook, "fig-one", tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
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
    return plan


def test_published_weights_decode_as_the_run_does_and_come_with_a_card(trained, trained_plan, tmp_path, monkeypatch):
    (path,) = publish.weights("quick", "mnist", tmp_path / "weights")
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
@pytest.mark.parametrize(
    "addition", [1000.0, 1e6]
)  # half precision keeps no fractions of one, and makes nan of the other
def test_weights_that_half_precision_would_change_are_not_published(trained, tmp_path, monkeypatch, addition):
    rough = trained.model()
    next(rough.decoder.parameters()).data += addition
    monkeypatch.setattr(runs.Run, "model", lambda self: copy.deepcopy(rough))
    with pytest.raises(ValueError, match="half precision changes tiny-k2-e3-s0's pixels by"):
        publish.weights("quick", "mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("trained_plan")
def test_weights_that_cannot_be_published_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "CARD", "{of no such thing}")
    with pytest.raises(KeyError):
        publish.weights("quick", "mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interactive_page_gets_its_data_and_a_picture(trained, trained_plan, tiny, tmp_path, monkeypatch):
    def page(dataset, models):
        assert dataset is tiny and [model.latent_dim for model in models] == [2]
        return {"codes": [[0.5, -1.25]], "labels": [3]}, plots.panels({"": models[0].sample(4)}, columns=2)

    monkeypatch.setattr(publish, "LIVE", {"mnist": page})
    monkeypatch.setattr(data, "load", lambda name: tiny)
    path = publish.interactive("quick", "mnist", tmp_path / "live")
    assert json.loads(path.read_text()) == {"codes": [[0.5, -1.25]], "labels": [3]}
    assert len(path.read_text().splitlines()) == 4  # a line for each part
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert {each.name for each in path.parent.iterdir()} == {"mnist.json", "mnist.png"}


def test_an_interactive_page_is_refused_other_data_and_missing_runs(
    trained, trained_plan, digits, tmp_path, monkeypatch
):
    monkeypatch.setattr(data, "load", lambda name: digits)
    with pytest.raises(ValueError, match="tiny-k2-e3-s0 was trained on other images or labels"):
        publish.interactive("quick", "mnist", tmp_path)
    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="tiny-k2-e3-s0"):
        publish.interactive("quick", "mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_published_model_lists_the_known_ones():
    with pytest.raises(ValueError, match="no published model 'nope'; known: "):
        storage.from_pretrained("nope")


def test_the_animation_is_a_loop_of_frames_side_by_side(tmp_path):
    publish.animation(storage.PRETRAINED / "celeba-k64.safetensors", tmp_path / "walk.webp", faces=3, frames=4, zoom=1)
    with Image.open(tmp_path / "walk.webp") as picture:
        assert picture.n_frames == 4 and picture.info["loop"] == 0
        assert picture.size == (3 * 49 + 1, 64 + 2)


def test_a_notebook_is_shrunk_once_and_its_pictures_hardly_change(tmp_path):
    model = storage.from_pretrained("celeba-k64")
    figure = plots.panels({"faces": model.sample(32, seed=0)}, columns=8, panels_in_row=1)
    figure.savefig(drawn := io.BytesIO(), format="png")
    notebook = _notebook(tmp_path / "page.ipynb", "draw()")
    page = nbformat.read(notebook, as_version=4)
    png = base64.b64encode(drawn.getvalue()).decode()
    page.cells[-1].outputs = [new_output("display_data", data={"image/png": png, "text/plain": "a figure"})]
    nbformat.write(page, notebook)
    pictures.shrink(notebook)
    once = notebook.read_bytes()
    pictures.shrink(notebook)
    assert notebook.read_bytes() == once
    (output,) = nbformat.read(notebook, as_version=4).cells[-1].outputs
    small = base64.b64decode(output.data["image/png"])
    assert output.data["text/plain"] == "a figure" and len(small) < len(drawn.getvalue()) / 2
    opened = (Image.open(io.BytesIO(each)).convert("RGB") for each in (drawn.getvalue(), small))
    before, after = (torch.frombuffer(bytearray(each.tobytes()), dtype=torch.uint8).float() for each in opened)
    assert (before - after).abs().mean() < 3
