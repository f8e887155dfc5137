"""Write docs/results.md from the results that the other scripts have stored.

    python benchmarks/report.py

``section`` of a script makes the Markdown lines of what is in ``results/NAME.json``; here they are joined.
"""

import ast
import importlib
import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
SCRIPTS = (
    "imitation",
    "window_rule",
    "worlds",
    "experts",
    "backbones",
    "predictions",
    "consistency",
    "beso",
    "decision_diffuser",
    "stitching",
    "two_wishes",
    "ebt",
    "meow",
    "meow_rl",
    "execution",
    "pausing",
    "rtc",
    "vgps",
    "gpc",
    "shown_goal",
    "dynaguide",
    "safety",
    "poco",
    "steer_ways",
    "itps",
    "pstl",
    "repair_reach",
    "camera",
    "critics",
    "td3_bc",
    "rlpd",
    "diffusion_ql",
    "fql",
    "finetune",
    "offline_to_online",
    "rl_curves",
    "aql",
    "trust_regions",
    "train_speed",
    "plan_speed",
    "export_speed",
    "dataset_metrics",
    "data_speed",
    "sim_speed",
    "gpu_sim",
    "rl_speed",
    "startup",
    "kill_resume",
    "bridge",
)
"""In the order of the page; those that have stored nothing are named at its end."""


def about(name: str) -> str:
    """Return the first sentence of a script's own text."""
    text = ast.get_docstring(ast.parse((Path(__file__).parent / f"{name}.py").read_text())) or name
    return text.split("\n\n")[0].replace("\n", " ")


def main() -> None:
    lines = [
        "# Results",
        "",
        "Written by `python benchmarks/report.py` from `benchmarks/results/`.",
        "",
        "Intervals are of 95%. All training seeds of a table meet the same held-out episodes, and end in much the same "
        "way there, so intervals of success count each episode once, however many seeds met it (Wilson's), and those "
        "of differences pair episodes and draw them again (bootstrap).",
        "",
    ]
    missing = []
    for name in SCRIPTS:
        stored = RESULTS / f"{name}.json"
        if stored.exists():
            lines += importlib.import_module(name).section(json.loads(stored.read_text()))
        else:
            missing.append(f"* not measured yet: {about(name)} `python benchmarks/{name}.py`")
    if missing:
        lines += ["## What is missing here", "", *missing]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
