"""Kernels that are forked, against those that Jupyter starts by itself."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import is_alive
from jupyter_client.manager import KernelManager

from book.machinery import kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are not forked")
LOOK = """
import os, signal, sys
print(json.dumps({
    "folder": os.getcwd(), "path": sys.path, "executable": sys.executable, "flags": list(sys.flags),
    "environment": {key: value for key, value in os.environ.items() if key != "JPY_PARENT_PID"},
    "own session": os.getsid(0) == os.getpid(), "parent": os.environ["JPY_PARENT_PID"] == str(os.getppid()),
    "signals": [str(signal.getsignal(each)) for each in (signal.SIGCHLD, signal.SIGTERM)],
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "program": sys.argv[0], "names": sorted(globals()), "main": __name__, "package": "vaelib" in sys.modules,
}))"""

SHOW = """
import matplotlib.pyplot as plt
from IPython.utils.capture import capture_output
with capture_output() as shown:
    plt.plot([1])
    plt.show()
print(plt.rcParams["lines.linewidth"], plt.get_backend(), [sorted(each.data) for each in shown.outputs])"""


@pytest.fixture(autouse=True, scope="module")
def _no_process_more_than_needed():
    yield
    kernels._forget()  # ends those for other environments than that of all tests


@contextmanager
def _kernel(provisioner="vaelib", **options):
    os.environ.setdefault("JUPYTER_DEFAULT_PROVISIONER_NAME", "vaelib")  # is looked at once in a process
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.metadata["kernel_provisioner"] = {"provisioner_name": provisioner}
    manager.start_kernel(extra_arguments=["--log-level=ERROR"], **options)
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    try:
        yield manager, lambda code: _answer(client, code)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _answer(client, code):
    said = []
    reply = client.execute_interactive(code, output_hook=said.append, timeout=60)["content"]
    return reply.get("ename") or "".join(each["content"].get("text", "") for each in said)


def test_a_forked_kernel_is_like_one_of_jupyters(tmp_path):
    with _kernel(cwd=tmp_path) as (manager, ask), _kernel("local-provisioner", cwd=tmp_path) as (usual, ask_usual):
        assert isinstance(manager.provisioner.process, kernels.Forked)
        assert isinstance(usual.provisioner.process, subprocess.Popen)
        ours, theirs = (json.loads(each("import json" + LOOK)) for each in (ask, ask_usual))
        assert ours == theirs
        assert ask("print('torch' in sys.modules)") == "True\n"
        assert ask_usual("print('torch' in sys.modules)") == "False\n"


def test_a_forked_kernel_shows_figures_as_jupyters_does_before_and_after_matplotlib_is_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "_servers", {})
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 7")
    with _kernel("local-provisioner", cwd=tmp_path) as (_, ask):
        expected = ask(SHOW)
    assert expected.startswith("7.0") and "image/png" in expected
    for imported in (False, True):
        time.sleep(imported * (kernels.forking.PAUSE + 1))
        with _kernel(cwd=tmp_path) as (_, ask):
            assert ask("import sys; print('matplotlib.pyplot' in sys.modules)") == f"{imported}\n"
            assert ask(SHOW) == expected


def test_kernels_that_are_forked_from_one_process_draw_other_numbers():
    draw = "import numpy, random, torch; print(numpy.random.rand(), random.random(), torch.rand(1).item())"
    with _kernel() as (one, ask), _kernel() as (other, ask_other):
        assert one.provisioner.process.server is other.provisioner.process.server
        assert not set(ask(draw).split()) & set(ask_other(draw).split())


def test_a_forked_kernel_is_interrupted_restarted_and_ended(tmp_path):
    with _kernel() as (manager, ask):
        ask("import os, threading, time")
        first = manager.provisioner.pid
        timer = f"threading.Timer(0.5, os.killpg, ({first}, {int(signal.SIGINT)})).start()"
        assert ask(f"{timer}; time.sleep(60)") == "KeyboardInterrupt"
        manager.restart_kernel(now=True)
    with _kernel() as (manager, ask):
        assert manager.provisioner.pid != first
        assert manager.is_alive()
        ask(f"import atexit, pathlib; atexit.register(pathlib.Path({str(tmp_path / 'ended')!r}).touch)")
        manager.shutdown_kernel()  # it is asked to end, and does so as programs do
        assert (tmp_path / "ended").exists()
        assert not manager.is_alive()
    with _kernel() as (manager, _):
        os.kill(manager.provisioner.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while manager.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_forked_kernel_has_the_streams_and_the_threads_that_it_is_given(tmp_path):
    with (tmp_path / "errors").open("w") as errors:
        for threads in ("1", "2"):
            environment = os.environ | {"OMP_NUM_THREADS": threads}
            environment |= {f"LONG_{number}": 50_000 * "µ" for number in range(3)}
            with _kernel(stderr=errors, env=environment) as (_, ask):
                assert ask("import torch; print(torch.get_num_threads())") == f"{threads}\n"
                ask("import os; os.write(2, b'words')")
    assert (tmp_path / "errors").read_text() == "wordswords"


STARTER = """import os, sys, time
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name="python3")
manager.start_kernel(extra_arguments=["--log-level=ERROR"])
print(manager.provisioner.pid, manager.provisioner.sockets, manager.connection_file, flush=True)
if not os.fork():
    time.sleep(60)  # and lives on
os._exit(0)"""


def test_nothing_is_left_of_kernels_whose_starter_is_gone():
    environment = os.environ | {"JUPYTER_DEFAULT_PROVISIONER_NAME": "vaelib"}
    starter = subprocess.Popen([sys.executable, "-c", STARTER], env=environment, stdout=subprocess.PIPE, text=True)
    number, sockets, connection = starter.stdout.readline().split()
    assert starter.wait() == 0
    deadline = time.monotonic() + 5
    while is_alive(int(number)) or Path(sockets).exists() or Path(connection).exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_kernel_that_cannot_be_forked_is_an_error_and_the_others_live_on(tmp_path, monkeypatch):
    script = tmp_path / "forking.py"  # where there can be one process only
    script.write_text(
        "import os, runpy\n\ndef fork(count=[], fork=os.fork):\n    count.append(1)\n    if len(count) > 1:\n"
        "        raise BlockingIOError(11, 'too many')\n    return fork()\n\nos.fork = fork\n"
        f"runpy.run_path({kernels.forking.__file__!r}, run_name='__main__')"
    )
    monkeypatch.setattr(kernels.forking, "__file__", str(script))
    monkeypatch.setattr(kernels, "_servers", {})
    with _kernel() as (_, ask):
        with pytest.raises(RuntimeError, match=r"no kernel can be forked: .*too many"), _kernel():
            pass
        assert ask("print(1)") == "1\n"


def test_what_kernels_are_forked_from_is_started_again_if_it_ended():
    with _kernel():
        process, _ = kernels._server(dict(os.environ))
        process.kill()
        process.wait()
    with _kernel() as (_, ask):
        assert ask("print(1)") == "1\n"
