"""Jupyter kernels that are reached through files instead of TCP ports, and start in a fraction of a second.

Jupyter picks a kernel's ports, frees them, and the kernel binds them a moment later: when another process takes one in
between, the kernel dies ("Address already in use"). Sockets that are files in a folder of the kernel's own cannot be
taken. On Linux a kernel is forked from a process that has imported torch already (see `forking`), which takes seconds.
Whatever starts kernels (papermill, nbval, jupytext, JupyterLab) uses them where the environment variable
JUPYTER_DEFAULT_PROVISIONER_NAME is `vaelib`.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

from jupyter_client.provisioning import LocalProvisioner

from . import forking

USUAL = [sys.executable, "-m", "ipykernel_launcher"]
SPECIAL = (subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL)
_TURN = threading.Lock()
_servers: dict[tuple, tuple[subprocess.Popen, socket.socket]] = {}


class Provisioner(LocalProvisioner):
    """Starts kernels here, as Jupyter's own does; on Windows, which has no such sockets, in every respect.

    On Linux a kernel ends with the process that started it. Elsewhere it looks once a second whether its parent is
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
        streams = [kwargs.get(name) or number for number, name in enumerate(("stdout", "stderr"), 1)]
        if sys.platform != "linux" or cmd[:3] != USUAL or any(each in SPECIAL for each in streams):
            return await super().launch_kernel(cmd, **kwargs)
        environment, self.cwd = kwargs.get("env", os.environ), kwargs.get("cwd") or Path.cwd()
        self.process = await asyncio.to_thread(Forked, cmd[3:], dict(environment), str(self.cwd), streams)
        self.pid = self.pgid = self.process.pid
        return self.connection_info

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart)
        if self.sockets and not restart:
            shutil.rmtree(self.sockets, ignore_errors=True)


class Forked:
    """A kernel's process, as far as Jupyter's provisioner asks for a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: str, streams: list):
        request = json.dumps([arguments, environment, folder]).encode()
        with _TURN:
            process, requests = _server(environment)
            socket.send_fds(requests, [request], [each if isinstance(each, int) else each.fileno() for each in streams])
            if not (answer := requests.recv(100)):
                raise RuntimeError(f"no kernel can be forked: {process.args} has ended, see above")
        self.pid = int(answer)

    def poll(self) -> int | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return None

    def wait(self) -> int:
        return 0  # Jupyter's polls before

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # as subprocess does
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _server(environment: dict[str, str]) -> tuple[subprocess.Popen, socket.socket]:
    """What this process' kernels are forked from: for each setting of what Python and libraries read at their start."""
    early = [(key, value) for key, value in environment.items() if key.startswith("PYTHON") or key.endswith("_THREADS")]
    key = (os.getpid(), *sorted(early))
    if key not in _servers or _servers[key][0].poll() is not None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, forking.__file__, str(theirs.fileno())]
            options = {"env": environment, "pass_fds": [theirs.fileno()], "start_new_session": True}
            _servers[key] = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options), ours
    return _servers[key]
