"""Jupyter kernels for sweeps, with sockets in files, and forked on Linux from a process that has imported torch.

Jupyter chooses free TCP ports, which the kernel opens a moment later. If another process takes a port meanwhile, the
kernel dies. Sockets in the kernel's own folder can't be taken. A forked kernel starts in 0.5 s. A kernel that imports
torch and the other modules takes 6 s.
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
    """Return papermill's options for a kernel with its connection file and sockets in a folder, whose path is short."""
    if os.name == "nt":  # Windows doesn't support sockets in files
        return {}
    places = {"transport": "ipc", "ip": str(folder / "socket"), "connection_file": str(folder / "connection.json")}
    manager = ForkingManager if sys.platform == "linux" else AsyncKernelManager
    return {"config": Config(KernelManager=places), "kernel_manager_class": manager}


class ForkingManager(AsyncKernelManager):
    """Jupyter's kernel manager for a forked kernel."""

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
    """A process of multiprocessing with the interface of subprocess that Jupyter's provisioner uses."""

    stdin = stdout = stderr = None

    def __init__(self, process):
        self.kill, self.terminate, self.wait = process.kill, process.terminate, process.join
        self.poll = lambda: process.exitcode
        self.send_signal = lambda number: os.kill(process.pid, number)


def _become_kernel(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    import numpy
    from ipykernel import kernelapp

    os.setsid()  # Jupyter sends signals to the kernel's process group
    os.chdir(folder)
    os.environ |= environment
    numpy.random.seed()  # noqa: NPY002 -- otherwise all kernels would draw the same numbers
    Thread(target=_end_with_sweep, daemon=True).start()
    sys.argv = ["ipykernel_launcher", *arguments]
    kernelapp.launch_new_instance()


def _end_with_sweep():
    parent_process().join()
    os._exit(1)
