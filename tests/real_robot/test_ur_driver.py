"""The driver over ur-rtde, in a process of its own: a client that lost its controller may end the one that it is in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASES = ("ur_driver_cases", "ur_loop_cases")
# what is abandoned in the last case is not waited for
RUN = "import os, sys, pytest; code = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(code)"


def with_steps(folder):
    """Return an environment in which a process can step its own wall clock; as it is where nothing compiles that."""
    library = folder / "wall_clock.so"
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return dict(os.environ)
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    return os.environ | {"LD_PRELOAD": str(library), "WALL_CLOCK": str(library)}


@pytest.mark.parametrize("name", CASES)
def test_the_driver_of_universal_robots(name, tmp_path):
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
    environment = with_steps(tmp_path) if name == "ur_loop_cases" else None
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
