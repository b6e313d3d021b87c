"""Jupyter kernels that are reached through files instead of TCP ports.

Jupyter picks a kernel's ports, frees them, and the kernel binds them a moment later: when another process takes one in
between, the kernel dies ("Address already in use"). Sockets that are files in a folder of the kernel's own cannot be
taken. Whatever starts kernels (papermill, nbval, jupytext, JupyterLab) uses them where the environment variable
JUPYTER_DEFAULT_PROVISIONER_NAME is `vaelib`.
"""

import ctypes
import os
import shutil
import signal
import sys
from tempfile import mkdtemp

from jupyter_client.provisioning import LocalProvisioner

if sys.platform == "linux":
    LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1


def _end_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Provisioner(LocalProvisioner):
    """Starts kernels here, as Jupyter's own does; on Windows, which has no such sockets, in every respect.

    On Linux a kernel ends with the thread that started it. Elsewhere it looks once a second whether its parent is
    there, if what it executes lets it.
    """

    sockets: str | None = None

    async def pre_launch(self, **kwargs):
        if os.name != "nt" and self.sockets is None:  # a kernel that starts again keeps its own
            # Not in TMPDIR, which can be long: a socket's path has 107 characters at most, on macOS 103
            self.sockets = mkdtemp(prefix="kernel-", dir="/tmp")
            self.parent.transport, self.parent.ip = "ipc", f"{self.sockets}/socket"
            self.parent.cache_ports = False
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd, **kwargs):
        if sys.platform == "linux":
            kwargs["preexec_fn"] = _end_with_parent
        return await super().launch_kernel(cmd, **kwargs)

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart)
        if self.sockets and not restart:
            shutil.rmtree(self.sockets, ignore_errors=True)
