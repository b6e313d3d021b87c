"""Jupyter kernels for sweeps: reached through files, and on Linux forked from one process that has imported torch.

Jupyter picks a kernel's TCP ports, frees them, and the kernel binds them a moment later. When another process takes one
in between, the kernel dies. Sockets that are files in the kernel's own folder cannot be taken. A forked kernel starts
in half a second; one that imports torch and what trainings need takes six.
"""

import os
import sys
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from traitlets.config import Config

IMPORTED = ["book.machinery.__main__", "ipykernel.ipkernel", "matplotlib.pyplot", "sympy", "torch._dynamo"]
IMPORTED += ["scipy.stats", "sklearn.datasets", "sklearn.linear_model", "sklearn.mixture"]


def options(folder: Path) -> dict:
    """What papermill is given for a kernel whose connection file and sockets are in a folder, which has a short path."""
    if os.name == "nt":  # which has no sockets that are files
        return {}
    places = {"transport": "ipc", "ip": str(folder / "socket"), "connection_file": str(folder / "connection.json")}
    manager = ForkingManager if sys.platform == "linux" else AsyncKernelManager
    return {"config": Config(KernelManager=places), "kernel_manager_class": manager}


class ForkingManager(AsyncKernelManager):
    """Jupyter's manager of a kernel, which is forked."""

    def __init__(self, **options):
        super().__init__(**options)
        self.provisioner = _Provisioner(parent=self, kernel_spec=self.kernel_spec)


class _Provisioner(LocalProvisioner):
    async def launch_kernel(self, cmd, **kwargs):
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        context = get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        process = context.Process(target=_become_kernel, args=(arguments, kwargs["cwd"], kwargs["env"]))
        process.start()
        self.process = _Popen(process)
        self.pid = self.pgid = process.pid
        return self.connection_info


class _Popen:
    """A process of multiprocessing with the names that Jupyter's provisioner knows from subprocess."""

    stdin = stdout = stderr = None

    def __init__(self, process):
        self.kill, self.terminate, self.wait = process.kill, process.terminate, process.join
        self.poll = lambda: process.exitcode
        self.send_signal = lambda number: os.kill(process.pid, number)


def _become_kernel(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    import numpy
    from ipykernel import kernelapp

    os.setsid()  # Jupyter signals the group of a kernel
    os.chdir(folder)
    os.environ |= environment
    numpy.random.seed()  # noqa: NPY002 -- or all kernels would draw the same numbers
    Thread(target=_end_with_sweep, daemon=True).start()
    sys.argv = ["ipykernel_launcher", *arguments]
    kernelapp.launch_new_instance()


def _end_with_sweep():
    parent_process().join()
    os._exit(1)
