"""Write docs/results.md from the results that the other scripts have stored.

python benchmarks/report.py
"""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"


def read(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return tree


def imitation() -> list[str]:
    tree = read("imitation")
    lines = [
        "## Imitation on the arm suite",
        "",
        "The same demonstrations, networks of about the same size, the same number of updates, "
        f"{len(tree['seeds'])} training seeds, 100 held-out episodes each. Success with the 95% Wilson interval over "
        "all episodes; in brackets each seed. Ways: successful episodes that took each way. The Gaussian acts with its "
        "mean, and in a second row with samples. `python benchmarks/imitation.py`",
        "",
        "| task | policy | success | by seed | ways | parameters | updates |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, rows in tree["tasks"].items():
        for name, row in rows.items():
            low, high = row["success_ci95"]
            ways = ", ".join(f"{way} {count}" for way, count in row["ways"].items()) or "-"
            seeds = " ".join(f"{rate:.0%}" for rate in row["by_seed"])
            lines.append(
                f"| {task} | {name} | {row['success_rate']:.1%} ({low:.1%} to {high:.1%}) | {seeds} | {ways} | "
                f"{row['parameters']:,} | {row['updates']:,} |"
            )
    pictures = [
        "",
        "Where the disc went on Push, a diffusion policy and the Gaussian:",
        "",
        "![diffusion](../benchmarks/results/push-diffusion.png)",
        "![gaussian](../benchmarks/results/push-gaussian.png)",
        "",
    ]
    return lines + pictures


def speed() -> list[str]:
    tree = read("train_speed")
    lines = [
        "## A gradient step, beside the published codes",
        "",
        f"One interleaved run on {tree['machine']['cores']} CPU cores, torch {tree['versions']['torch']}; median and "
        "range. `python benchmarks/train_speed.py --peers DIR`",
        "",
        "| step | ms | ratio | precision, matmul, threads |",
        "|---|---|---|---|",
    ]
    for part in ("unet", "dppo_mlp"):
        for name, row in tree[part]["rows"].items():
            lines.append(
                f"| {name} | {row['median_ms']:.1f} [{row['min_ms']:.1f}..{row['max_ms']:.1f}] | "
                f"{row['speed_up']:.2f}x | {row['precision']}, {row['matmul']}, {row['threads']} |"
            )
    curve = tree["bf16_curve"]
    lines += [
        "",
        "U-Net loss, float32 against the published step from the same weights, data and noise: relative error at most "
        f"{max(tree['unet']['relative_loss_error']):.1e}. bfloat16 against float32 over {len(curve['finals']['fp32'])} "
        f"seeds of a small U-Net: final losses differ by {curve['difference']:+.5f}, the float32 seeds by "
        f"{curve['fp32_std']:.5f} (standard deviation).",
        "",
    ]
    return lines


def startup() -> list[str]:
    tree = read("startup")
    lines = [
        "## Start-up",
        "",
        f"Fresh interpreters in turns, median of {tree['rounds']}. `python benchmarks/startup.py --peers DIR`",
        "",
        "| | s |",
        "|---|---|",
        *(f"| {name} | {seconds:.2f} |" for name, seconds in tree["median_seconds"].items()),
        "",
        f"To the first gradient step in {tree['ratio']:.2f} of the time that the published code takes to import.",
        "",
    ]
    return lines


def kills() -> list[str]:
    tree = read("kill_resume")
    return [
        "## Kill and resume",
        "",
        f"{tree['kills']} processes of {tree['runs']} runs killed at random instants, {tree['during a save']} of them "
        f"during a save: {tree['differences']} differences from a run that was left alone. "
        "`python benchmarks/kill_resume.py`",
    ]


def main() -> None:
    sections = [imitation(), speed(), startup(), kills()]
    intro = ["# Results", "", "Written by `python benchmarks/report.py` from `benchmarks/results/`.", ""]
    PAGE.write_text("\n".join([*intro, *(line for section in sections for line in section)]) + "\n")


if __name__ == "__main__":
    main()
