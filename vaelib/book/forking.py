"""A process that has imported what takes kernels seconds, and becomes one kernel after the other by forking: `kernels`.

It is run as a script, and imports nothing of this package, whose code every kernel reads afresh.
"""

import atexit
import ctypes
import gc
import json
import os
import signal
import socket
import sys

LATER = ("torch._dynamo", "torchvision.utils", "sklearn.datasets", "ipykernel.ipkernel")
PR_SET_PDEATHSIG = 1


def serve(requests: socket.socket) -> list[str]:
    """Answer each request by the number of a new process, in which this returns with a kernel's arguments."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a kernel has ended
    while True:
        message, streams, _, _ = socket.recv_fds(requests, 2**20, 2)
        if not message:  # who asks is gone
            sys.exit()
        if number := os.fork():
            try:
                requests.send(str(number).encode())
            except BrokenPipeError:  # has gone meanwhile
                sys.exit()
            for each in streams:
                os.close(each)
            continue
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # ends with the process it was forked from
        requests.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, each in enumerate(streams, 1):  # standard output, and errors
            os.dup2(each, number)
            os.close(each)
        arguments, environment, folder = json.loads(message)
        os.chdir(folder)
        os.environ.clear()
        os.environ |= environment | {"JPY_PARENT_PID": str(os.getppid())}
        return arguments


if __name__ == "__main__":
    del sys.path[0]  # this file's folder
    for name in LATER:
        __import__(name)
    gc.freeze()  # or each kernel's collector would touch, and so copy, all of this
    given = serve(socket.socket(fileno=int(sys.argv[1])))
    from ipykernel import kernelapp

    kernelapp.launch_new_instance(given)
    atexit._run_exitfuncs()
    os._exit(0)  # to take all those modules apart, as Python's own exit does, takes seconds
