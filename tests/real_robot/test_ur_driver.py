"""The driver over ur-rtde, in a process of its own: a client that lost its controller may end the one that it is in."""

import subprocess
import sys
from pathlib import Path

import pytest

CASES = ("ur_driver_cases", "ur_loop_cases")
# what is abandoned in the last case is not waited for
RUN = "import os, sys, pytest; code = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(code)"


@pytest.mark.parametrize("name", CASES)
def test_the_driver_of_universal_robots(name):
    pytest.importorskip("rtde_control", reason="needs ur-rtde: pip install 'robopol[ur]'")
    words = [
        sys.executable,
        "-X",
        "faulthandler",
        "-c",
        RUN,
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(Path(__file__).with_name(f"{name}.py")),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
