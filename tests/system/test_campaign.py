"""The short form of the fault campaign: nothing is lost, nothing false is recorded, and every error tells its file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and mounts file systems")
def test_a_short_campaign_finds_no_fault():
    campaign = Path(__file__).with_name("campaign.py")
    process = subprocess.run([sys.executable, campaign, "--short"], capture_output=True, text=True, env=os.environ)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "training killed" in process.stdout
