"""A room imports only from lower floors."""

import subprocess
import sys
from pathlib import Path


def test_the_layer_contract_holds():
    code = "from importlinter.cli import lint_imports_command as run; run()"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout
