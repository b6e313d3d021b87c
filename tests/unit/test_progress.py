"""Progress bars, in a notebook and in a terminal."""

import os
import subprocess
import sys

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

CODE = """
import time
from vaelib import progress
for _ in progress.bar(range(4), desc="faces", unit="image", {options}):
    time.sleep({seconds})
"""


def _outputs(monkeypatch, disable, **values):
    monkeypatch.setenv("TQDM_DISABLE", disable)
    notebook = new_notebook(cells=[new_code_cell(CODE.format(**values))])
    NotebookClient(notebook, kernel_name="python3").execute()
    return notebook.cells[0].outputs


def test_in_a_notebook_a_bar_is_one_output_and_its_last_state_is_what_is_saved(monkeypatch):
    (output,) = _outputs(monkeypatch, "", options="", seconds=0.6)
    assert output.output_type == "display_data" and list(output.data) == ["text/plain"]
    assert output.data["text/plain"].startswith("faces: 100%|██████████| 4/4 [")
    assert "\r" not in output.data["text/plain"]


@pytest.mark.parametrize(("disable", "options"), [("1", ""), ("", "delay=60")])
def test_none_is_shown_where_none_is_wanted_or_all_was_soon_done(monkeypatch, disable, options):
    assert _outputs(monkeypatch, disable, options=options, seconds=0) == []


def test_in_a_terminal_it_is_written_to_stderr():
    code = CODE.format(options="", seconds=0)
    environment = os.environ | {"TQDM_DISABLE": ""}  # which a sweep that was tested before has set
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    assert "faces: 100%" in told.stderr and told.stdout == ""
