"""Progress bars, where they can be shown and where not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vaelib import progress

# By its path, for the package would import torch
CODE = f"""
import runpy
bar = runpy.run_path({progress.__file__!r})["bar"]
for _ in bar(range(4), desc="faces", unit="image", mininterval=0):
    pass
print("done")
"""


def _shown(**options):
    environment = os.environ | {"TQDM_DISABLE": ""} | options.pop("environment", {})
    return subprocess.run([sys.executable, "-c", CODE], env=environment, stdout=subprocess.PIPE, text=True, **options)


def test_a_bar_is_written_to_stderr_and_not_where_none_is_wanted():
    assert "faces: 100%" in _shown(stderr=subprocess.PIPE, check=True).stderr
    assert _shown(stderr=subprocess.PIPE, check=True, environment={"TQDM_DISABLE": "1"}).stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_work_goes_on_where_a_bar_cannot_be_written():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        assert _shown(stderr=full).stdout == "done\n"


def test_work_goes_on_without_a_stderr():
    """As in a process that was started with `2>&-`, or by pythonw."""
    code = "import sys; sys.stderr = None\n" + CODE
    environment = os.environ | {"TQDM_DISABLE": ""}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "done\n"
