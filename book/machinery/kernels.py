"""Jupyter kernels that are reached through files instead of TCP ports; all but the first start in half a second.

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
import sysconfig
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp

from jupyter_client.provisioning import LocalProvisioner

from . import forking

USUAL = [sys.executable, "-m", "ipykernel_launcher"]
KNOWN = {"env", "cwd", "stdout", "stderr", "kernel_id"}  # what is passed on to a kernel that is forked
EARLY = "PYTHON TORCH PYTORCH OMP_ MKL_ KMP_ OPENBLAS_ LD_ LC_ MPL TQDM_ TZ TMPDIR"  # variables read at the start
_servers: dict[tuple, tuple[subprocess.Popen, socket.socket]] = {}
_turn = threading.Lock()


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
            self.parent.connection_file = self.parent.connection_file or f"{self.sockets}/connection.json"
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd, **kwargs):
        streams = [kwargs.get(name) or number for number, name in enumerate(("stdout", "stderr"), 1)]
        special = any(each in (subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL) for each in streams)
        if sys.platform != "linux" or cmd[:3] != USUAL or special or kwargs.keys() - KNOWN:
            return await super().launch_kernel(cmd, **kwargs)
        self.cwd = Path(kwargs.get("cwd") or "").absolute()
        request = [cmd[3:], dict(kwargs.get("env", os.environ)), str(self.cwd), self.sockets]
        self.process = await asyncio.to_thread(Forked, request, streams)
        self.pid = self.pgid = self.process.pid
        return self.connection_info

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart)
        if self.sockets and not restart:
            shutil.rmtree(self.sockets, ignore_errors=True)


class Forked:
    """A kernel's process, as far as Jupyter's provisioner asks for a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, request: list, streams: list):
        with _turn, TemporaryFile("w+", encoding="utf-8") as file:
            json.dump(request, file)
            file.seek(0)
            self.server, connection = _server(request[1])
            descriptors = [each if isinstance(each, int) else each.fileno() for each in (*streams, file)]
            try:
                socket.send_fds(connection, [b" "], descriptors)
                answer = connection.recv(1000).decode()
            except ConnectionError:
                answer = ""
        if not answer.isdigit():
            raise RuntimeError(f"no kernel can be forked: {answer or f'{self.server.args} has ended, see above'}")
        self.pid = int(answer)

    def poll(self) -> int | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return self.server.poll()  # with which it ends, even if nobody takes note and its number stays

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
    """What kernels are forked from; another one for other libraries, or other variables that these have read."""
    early = [(key, value) for key, value in environment.items() if key.startswith((*EARLY.split(),))]
    key = (Path(sysconfig.get_path("purelib")).stat().st_mtime_ns, *sorted(early))
    if key not in _servers or _servers[key][0].poll() is not None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, forking.__file__, str(theirs.fileno())]
            options = {"env": environment, "pass_fds": [theirs.fileno()], "start_new_session": True}
            _servers[key] = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options), ours
    return _servers[key]


def _forget() -> None:
    """In a process that is forked from one that has started kernels: they are not its own."""
    global _turn
    _turn = threading.Lock()
    for _, connection in _servers.values():
        connection.close()
    _servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
