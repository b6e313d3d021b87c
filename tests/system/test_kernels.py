"""Kernels that are forked, against those that Jupyter starts by itself."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from book.machinery import kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are not forked")
LOOK = """
import json, os, signal, sys
torch = "torch" in sys.modules
import matplotlib.pyplot, numpy
from ipykernel.kernelapp import IPKernelApp
print(json.dumps([{
    "folder": os.getcwd(), "backend": matplotlib.pyplot.get_backend(), "session": os.getsid(0) == os.getpid(),
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler, "variable": os.environ["VAELIB_RUNS"],
    "names": sorted(globals()), "main": __name__,
}, torch, IPKernelApp.instance().transport, numpy.random.rand()]))"""


def _looks(folder: Path, **options):
    notebook = new_notebook(cells=[new_code_cell(LOOK)])
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, resources=resources, extra_arguments=["--log-level=CRITICAL"], **options).execute()
    return json.loads(notebook.cells[0].outputs[0].text)


def test_forked_kernels_are_like_jupyters_but_have_imported_torch_and_use_no_ports(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as a sweep sets it
    monkeypatch.setenv("VAELIB_RUNS", str(tmp_path))
    usual, *_ = _looks(tmp_path)
    drawn = set()
    for _ in range(2):
        with TemporaryDirectory(dir="/tmp") as folder:
            found, torch_imported, transport, number = _looks(tmp_path, **kernels.options(Path(folder)))
            assert not list(Path(folder).iterdir())  # all went with the kernel
        assert found == usual
        assert torch_imported and transport == "ipc"
        drawn.add(number)
    assert len(drawn) == 2
