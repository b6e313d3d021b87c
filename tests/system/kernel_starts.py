"""Start bare Jupyter kernels, several at a time, and count those that fail: `python tests/system/kernel_starts.py`."""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def start(number: int) -> str | None:
    """Start a kernel, wait until it answers, end it; what went wrong, if anything did."""
    from jupyter_client.manager import start_new_kernel

    try:
        manager, client = start_new_kernel(kernel_name="python3")
    except RuntimeError as error:
        return f"start {number}: {error}"
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--ports", action="store_true", help="by TCP ports, as Jupyter does it by itself")
    options = parser.parse_args()
    os.environ["JUPYTER_DEFAULT_PROVISIONER_NAME"] = "local-provisioner" if options.ports else "vaelib"
    began = time.monotonic()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as executor:
        failures = [failure for failure in executor.map(start, range(options.starts)) if failure]
    print(*failures, sep="\n")
    print(f"{len(failures)} of {options.starts} starts failed, in {time.monotonic() - began:.0f} s")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
