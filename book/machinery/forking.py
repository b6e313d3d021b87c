"""A process that has imported what takes kernels seconds, and becomes one kernel after the other by forking: `kernels`.

It is run as a script, and imports nothing of this package, whose code every kernel reads afresh.
"""

import ctypes
import gc
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

FIRST = "torch", "ipykernel.ipkernel"
# In pieces of less than a second, since only between them is it seen that whoever asks is gone
LATER = ("matplotlib.pyplot", "sympy", "torch._dynamo", "torchvision.utils", "scipy.stats", "sklearn.datasets")
LATER += ("sklearn.linear_model", "sklearn.mixture")
PAUSE = 3  # seconds after which nobody seems to wait for a kernel, and the rest is imported
PR_SET_PDEATHSIG = 1


def serve(requests: socket.socket) -> list[str]:
    """Answer each request by the number of a new process, in which this returns with a kernel's arguments.

    A request is one byte and three descriptors: standard output and errors for the kernel, and a file with its
    arguments, its environment, its folder, and another folder, to be removed when whoever asks is gone.
    """
    later = [*LATER]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a kernel has ended
    here, left = os.getpid(), set()
    while True:
        pause = PAUSE
        while later and not select.select([requests], [], [], pause)[0]:
            load(later.pop(0))
            pause = 0
        try:
            message, files, _, _ = socket.recv_fds(requests, 1, 3)
        except ConnectionError:
            message = b""
        # Nobody asks for a second kernel before he has the first: there is something to read because he is gone
        if not message or select.select([requests], [], [], 0)[0]:
            with suppress(OSError):  # there may be too many processes
                if not os.fork():
                    time.sleep(1)  # meanwhile its parent ends, and with that the kernels, which might write there
                    for folder in left:
                        shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)
        *streams, file = files
        with os.fdopen(file, encoding="utf-8") as lines:
            arguments, environment, folder, sockets = json.load(lines)
        left.add(sockets)
        try:
            if number := os.fork():
                answer = str(number)
        except OSError as error:  # as there are too many processes
            number, answer = -1, str(error)
        if number:
            for each in streams:
                os.close(each)
            with suppress(ConnectionError):
                requests.send(answer.encode())
            continue
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != here:  # it ended before that
            os._exit(1)
        requests.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, each in enumerate(streams, 1):
            os.dup2(each, number)
            os.close(each)
        os.chdir(folder)
        os.environ.clear()
        os.environ |= environment | {"JPY_PARENT_PID": str(here)}
        return arguments


def load(*names: str) -> None:
    for name in names:
        __import__(name)
    gc.freeze()  # or each kernel's collector would touch, and so copy, all of this


def main() -> None:
    if sys.path[0] == str(Path(__file__).parent):
        del sys.path[0]
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # kernels do, but too late
    os.chdir(Path(__file__).parent)  # has no matplotlibrc. Not before: PYTHONPATH may be relative
    load(*FIRST)
    given = serve(socket.socket(fileno=int(sys.argv[1])))
    import ipykernel_launcher
    import numpy
    import torch
    from ipykernel import kernelapp

    numpy.random.seed()  # noqa: NPY002 -- both have drawn their seeds already, once for all kernels
    torch.default_generator.seed()
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib and Path("matplotlibrc").exists():  # in the notebook's folder
        matplotlib.rc_file("matplotlibrc")
    sys.argv = [ipykernel_launcher.__file__, *given]
    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
