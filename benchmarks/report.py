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


def percent(row: dict[str, Any]) -> str:
    low, high = row["success_ci95"]
    return f"{row['success_rate']:.1%} ({low:.1%} to {high:.1%})"


def by_seed(row: dict[str, Any]) -> str:
    return " ".join(f"{rate:.0%}" for rate in row["by_seed"])


def imitation() -> list[str]:
    tree = read("imitation")
    lines = [
        "## Imitation on the arm suite",
        "",
        "The same demonstrations, networks of about the same size, the same number of updates, "
        "100 held-out episodes for each training seed. Success with the 95% Wilson interval over all episodes. Ways: "
        "successful episodes that took each way. The Gaussian acts with its mean, and in a second row with samples. "
        "`python benchmarks/imitation.py`",
        "",
        "| task | policy | success | by seed | ways | parameters | updates |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, rows in tree["tables"].items():
        for name, row in rows.items():
            ways = ", ".join(f"{way} {count}" for way, count in row["ways"].items()) or "-"
            lines.append(
                f"| {task} | {name} | {percent(row)} | {by_seed(row)} | {ways} | {row['parameters']:,} | "
                f"{row['updates']:,} |"
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


def window_rule() -> list[str]:
    tree = read("window_rule")
    rows = [f"| {name} | {percent(row)} | {by_seed(row)} |" for name, row in tree["rows"].items()]
    return [
        "## Every step is once now",
        "",
        'A diffusion policy on PickPlace from the same demonstrations, with every step of an episode as "now", and '
        "with the published rule, by which the last ones are not. `python benchmarks/window_rule.py`",
        "",
        "| windows | success | by seed |",
        "|---|---|---|",
        *rows,
        "",
    ]


def worlds() -> list[str]:
    lines = [
        "## Cloned in worlds of others",
        "",
        "Demonstrations that nobody here scripted. Success over 100 held-out episodes a seed, beside that of the "
        "expert who demonstrated; or D4RL's normalised return, beside that of the data (D4RL's references, gymnasium's "
        "v5 worlds). 95% intervals. `python benchmarks/worlds.py`",
        "",
        "| world | data | diffusion | flow | seeds |",
        "|---|---|---|---|---|",
    ]
    for name, task in read("worlds")["tasks"].items():
        cells = []
        for row in task["rows"].values():
            if "score" in row:
                low, high = row["score_ci95"]
                cells.append(f"{row['score']:.1f} ({low:.1f} to {high:.1f})")
            else:
                cells.append(percent(row))
        lines.append(f"| {name} | {' | '.join(cells)} | {len(task['seeds'])} |")
    return [*lines, ""]


def backbones() -> list[str]:
    lines = [
        "## Every kind of policy",
        "",
        "The same demonstrations and number of updates, networks of about the same size; `distilled` and `same_noise` "
        "are students of `teacher`, which walks 100 steps. Plans in one thread on one machine: compare within the "
        "table only. `python benchmarks/backbones.py`",
        "",
        "| task | policy | success | ways | parameters | updates/s | plan p50 / p99 | at batch 64 | evaluations |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, found in read("backbones")["tasks"].items():
        for name, row in found["rows"].items():
            ways = ", ".join(f"{way} {count}" for way, count in row["ways"].items()) or "-"
            one, many = (f"{at['p50_ms']:.2f} / {at['p99_ms']:.2f} ms" for at in row["latency"].values())
            lines.append(
                f"| {task} | {name} | {percent(row)} | {ways} | {row['parameters']:,} | "
                f"{row['updates_per_second']:.0f} | {one} | {many} | {row['evaluations']:.1f} |"
            )
    return [*lines, ""]


def execution() -> list[str]:
    lines = [
        "## How plans are executed, and what latency does",
        "",
        "A diffusion policy of 10 steps; success with plans that arrive so many control steps late. Seam jump, jerk "
        "and network evaluations without latency; see [execution.md](execution.md). `python benchmarks/execution.py`",
        "",
    ]
    for task, found in read("execution")["tasks"].items():
        late = list(next(iter(found["rows"].values())))
        lines += [
            f"| {task}, {found['runs']} seed(s) | {' | '.join(f'{k} late' for k in late)} | seam jump | jerk / 1e6 | "
            "evaluations a step |",
            "|---" * (len(late) + 4) + "|",
        ]
        for name, row in found["rows"].items():
            now = row["0"]
            lines.append(
                f"| {name} | {' | '.join(percent(row[k]) for k in late)} | {now['seam_jump']:.2f} | "
                f"{now['jerk'] / 1e6:.2f} | {now['evaluations']:.1f} |"
            )
        lines.append("")
    return lines


def rtc() -> list[str]:
    tree = read("rtc")
    lines = [
        "## Late plans, and plans that go on from the last one",
        "",
        f"A flow policy of 5 steps on Push, {seeds(tree)} training seeds, "
        f"{tree['setting']['episodes']} held-out episodes each, {tree['setting']['budget']['horizon'] - 1} actions a "
        "plan; it plans again as soon as a plan "
        "has arrived (Ta = 8: every 8 steps). Success with the 95% interval, and the points gained over the first row "
        "on the same episodes, with the paired bootstrap interval. Seam jump and jerk are of all steps, those of "
        "failures too; see [execution.md](execution.md). `python benchmarks/rtc.py`",
        "",
    ]
    for late, rows in tree["tables"].items():
        lines += [
            f"| {late} control steps late | success | by seed | gained | seam jump, by seed | jerk / 1e6, by seed |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in rows.items():
            low, high = row["gain_ci95"]
            seams = " ".join("-" if value is None else f"{value:.2f}" for value in row["seam_jump"])
            jerks = " ".join(f"{value / 1e6:.2f}" for value in row["jerk"])
            gained = f"{100 * row['gain']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
            lines.append(f"| {name} | {percent(row)} | {by_seed(row)} | {gained} | {seams} | {jerks} |")
        lines.append("")
    return lines


def gpc() -> list[str]:
    tree = read("gpc")
    lines = [
        "## Two policies that see different things, composed",
        "",
        "A diffusion and a flow policy, each of which sees another entry of the state with an error; a convex mix of "
        "their fields, its weight searched on tuning seeds and judged on others. Difference: to the better of the two "
        "parents on these very episodes, paired, with its bootstrap interval and McNemar's exact p. Controls: b is fed "
        "another episode's observation, or was trained for 200 updates (then compared with the better of a and that). "
        "See [composition.md](composition.md). "
        "`python benchmarks/gpc.py --toy`",
        "",
    ]
    for task, found in tree["tasks"].items():
        chosen = ", ".join(f"{weight:g}" for weight in found["chosen"])
        bias = ", ".join(f"{100 * bias:+.0f}" for bias in found["selection_bias"])
        told = ", ".join(f"{name}: {share:.0%}" for name, share in found["parents_succeed"].items())
        lines += [
            f"| {task}, {len(found['seeds'])} seeds x {found['held_out']} episodes | success | by seed | points | p |",
            "|---|---|---|---|---|",
        ]
        for name, row in found["rows"].items():
            low, high = (100 * bound for bound in row["difference_ci95"])
            lines.append(
                f"| {name} | {percent(row)} | {by_seed(row)} | {100 * row['difference']:+.1f} ({low:+.1f} to "
                f"{high:+.1f}) | {row['p']:.2g} |"
            )
        curve = " ".join(f"{rate:.0%}" for rate in found["curve"])
        lines += [
            "",
            f"Weights of b tried: {' '.join(f'{weight:g}' for weight in found['weights'])}; success on "
            f"{found['episodes']} tuning episodes, mean over seeds: {curve}. Chosen: {chosen}; the gain over a then "
            f"shrank on held-out seeds by {bias} points. Share of the episodes in which the parents succeed (1) or "
            f"fail (0): {told}.",
            "",
        ]
    toy = tree["toy"]
    lines += [
        f"The toy: two perfect denoisers of wrong rings, {toy['draws']} draws of their errors. The energy distance to "
        f"the target is smallest at a weight of {toy['best']:g}; uncorrelated errors predict {toy['predicted']:.2f}; "
        f"{toy['interior']} of {toy['draws']} draws have their minimum inside. Beside it two different skills.",
        "",
        "![the toy](../benchmarks/results/gpc-toy.png)",
        "",
    ]
    return lines


def plans() -> list[str]:
    tree = read("plan_speed")
    lines = [
        "## A plan, beside the published loop",
        "",
        f"DDIM in 10 steps, the same weights, interleaved in one run on {tree['machine']['cores']} cores; error: "
        "largest difference from diffusers. `python benchmarks/plan_speed.py --peers DIR`",
        "",
        "| race | contender | ms | to the published loop | to ONNX Runtime on the network | error |",
        "|---|---|---|---|---|---|",
    ]
    for race, found in tree["races"].items():
        for name, row in found["rows"].items():
            lines.append(
                f"| {race} | {name} | {row['median_ms']:.2f} [{row['min_ms']:.2f}..{row['max_ms']:.2f}] | "
                f"{row['to_published']:.2f}x | {row['to_onnxruntime']:.2f}x | {row['error']:.0e} |"
            )
    return [*lines, ""]


def camera() -> list[str]:
    tree = read("camera")
    rows = [f"| {name} | {percent(row)} | {by_seed(row)} |" for name, row in tree["policies"].items()]
    return [
        "## A policy that sees",
        "",
        f"Reach from two cameras, {tree['demonstrations']} demonstrations; beside it a policy that is told where the "
        "target is, and one that neither sees it nor is told. `python benchmarks/camera.py`",
        "",
        "| policy | success | by seed |",
        "|---|---|---|",
        *rows,
        "",
    ]


def critics() -> list[str]:
    tree = read("critics")
    known = ", ".join(f"{value:.2f} ({name})" for name, value in tree["exact_value_of_start"].items())
    lines = [
        "## Critics",
        "",
        f"A maze whose data are pieces of random walks, none from the start to the goal; {tree['updates']} updates. "
        "Share of 200 walks that reach the goal, and the value of the start that the critic believes in; known "
        f"exactly: {known}. "
        "`python benchmarks/critics.py`",
        "",
        "| | success by seed | value of the start by seed |",
        "|---|---|---|",
    ]
    for name, row in tree["arms"].items():
        values = " ".join(f"{value:.2f}" for value in row.get("value_of_start", [])) or "-"
        lines.append(f"| {name} | {' '.join(f'{rate:.1%}' for rate in row['success_rate'])} | {values} |")
    return [*lines, ""]


RACES = ("robomimic", "diffusion_policy", "replay", "images")


def steer_ways() -> list[str]:
    tree = read("steer_ways")
    lines = [
        "## The way that the user wants",
        "",
        "Push has two ways around a block; frozen diffusion policies that were told of none are steered by a line that "
        "is drawn past one side; in rows that are named so by where a dynamics model says that the disc gets to "
        "(DynaGuide), by a box that the tool is to keep out of (PoCo), by what keeps the disc off one side for good "
        "(FISOR). Either way is asked for in 100 held-out episodes a training seed. Obeyed: the disc passed on the "
        "side that was asked for. Lost and won: episodes that failed or succeeded unlike the base's. "
        "`python benchmarks/steer_ways.py`",
        "",
        "| steering | obeyed | by seed, left and right | success | lost / won | steps |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in tree["tables"]["rows"].items():
        low, high = row["obeyed_ci95"]
        seeds = ", ".join("/".join(f"{rate:.0%}" for rate in rates) for rates in row["obeyed_by_seed"])
        lines.append(
            f"| {name} | {row['obeyed_rate']:.1%} ({low:.1%} to {high:.1%}) | {seeds} | {percent(row)} | "
            f"{row['lost']} / {row['won']} | {row['length_mean']:.1f} |"
        )
    return [*lines, ""]


def itps() -> list[str]:
    tree = read("itps")
    lines = [
        "## Steering by sketches",
        "",
        "The six strategies of ITPS in a maze of our own, and our kernels beside them: 50 lines that were drawn "
        f"freely, {tree['crossed']['free']} of them through walls, and 50 that roughly follow a way, "
        f"{tree['crossed']['rough']} through walls; 32 plans of 32 steps for each, {len(tree['seeds'])} training "
        "seeds. Distance of a plan's points to the line's: of the best of 32 (of RS: of one), and of all; and the "
        "share of plans that meet a wall. "
        "The maze is 2 wide. `python benchmarks/itps.py`",
        "",
        "| strategy | free: min | mean | by seed | collision | rough: min | mean | by seed | collision |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in tree["strategies"]["free"]:
        cells = []
        for kind in ("free", "rough"):
            row = tree["strategies"][kind][name]
            seeds = " ".join(f"{one['mean']:.2f}" for one in row["by_seed"])
            cells += [f"{row['min']:.3f}", f"{row['mean']:.3f}", seeds, f"{row['collision']:.1%}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "![plans of some strategies](../benchmarks/results/itps.png)",
        "",
        'Formulas of temporal logic, "eventually in A and always out of B", for 100 pairs of discs:',
        "",
        "| plans | satisfied | by seed | satisfied, and no wall met |",
        "|---|---|---|---|",
    ]
    for name, row in tree["formulas"].items():
        low, high = row["satisfied_ci95"]
        lines.append(
            f"| {name} | {row['satisfied']:.1%} ({low:.1%} to {high:.1%}) | {by_seed(row)} | {row['and_no_wall']:.1%} |"
        )
    return [*lines, ""]


def steered_rows(rows: dict[str, Any]) -> list[str]:
    """Return rows of success beside a base on the same episodes."""
    lines = []
    for name, row in rows.items():
        (low, high), (less, more) = row["success_ci95"], row["gain_ci95"]
        by = " ".join(f"{rate:.0%}" for rate in row["by_seed"])
        ways = ", ".join(f"{way} {count}" for way, count in row["ways"].items()) or "-"
        cost = f"{row['plan_ms']:.1f} ms" if "plan_ms" in row else "-"
        lines.append(
            f"| {name} | {row['success_rate']:.1%} ({low:.1%} to {high:.1%}) | {by} | "
            f"{100 * row['gain']:+.1f} [{100 * less:+.1f}, {100 * more:+.1f}] | {ways} | {cost} |"
        )
    return lines


STEERED = ["| policy | success | by seed | points gained, paired | ways | a plan |", "|---|---|---|---|---|---|"]


def seeds(tree: dict[str, Any]) -> int:
    """Return how many training seeds the tables of a ledger are of, most rows at least."""
    return max(len(row["by_seed"]) for rows in tree["tables"].values() for row in rows.values())


def vgps() -> list[str]:
    tree = read("vgps")
    budget = tree["setting"]["budget"]
    return [
        "## Proposals ranked by a critic",
        "",
        "V-GPS on Push, shown by a steady hand on the left and a shaking one on the right; the critic is learned from "
        f"{budget['rollouts']} episodes of the frozen policy and the demonstrations. Gains over the base on "
        f"the same held-out episodes, {seeds(tree)} training seeds (Cal-QL: one). `python benchmarks/vgps.py`",
        "",
        "The worst of the proposals is the control that must lose.",
        "",
        *STEERED,
        *steered_rows(tree["tables"]["rows"]),
        "",
    ]


def shown_goal() -> list[str]:
    tree = read("shown_goal")
    return [
        "## What is better depends on the state",
        "",
        "V-GPS and CFGRL on MultiGoal where one of four goals counts, which the observation shows; the demonstrators "
        f"did not look. Gains over the base, which does not look either, in the same held-out episodes, {seeds(tree)} "
        "training seed(s). `python benchmarks/shown_goal.py`",
        "",
        *STEERED,
        *steered_rows(tree["tables"]["rows"]),
        "",
        "![success over proposals, scale and weight](../benchmarks/results/shown_goal.png)",
        "",
    ]


def cfgrl() -> list[str]:
    tree = read("cfgrl")
    return [
        "## Told which actions were good",
        "",
        "CFGRL on the data of V-GPS: labels by its critic, and the guidance weight as a dial; gains over the same "
        f"policy without labels, {seeds(tree)} training seeds. `python benchmarks/cfgrl.py`",
        "",
        "Being told is worth far more than extrapolating: weights above 1, which improve further where it was "
        "published, cost here.",
        "",
        *STEERED,
        *steered_rows(tree["tables"]["rows"]),
        "",
    ]


def dynaguide() -> list[str]:
    tree = read("dynaguide")
    budget = tree["setting"]["budget"]
    lines = [
        "## Guided by dynamics",
        "",
        "DynaGuide on MultiGoal: how often the wanted goal is taken by a policy that was told of none, and by one that "
        f"saw '{budget['rare']}' in {budget['rare_share']:.0%} of its demonstrations; "
        f"{seeds(tree)} training seeds. `python benchmarks/dynaguide.py`",
        "",
        "| demonstrations | steering | goal | taken | success | a plan |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in tree["tables"].items():
        for row, found in rows.items():
            goal, ways = found["goal"], found["ways"]
            taken = ", ".join(f"{way} {count / found['episodes']:.0%}" for way, count in ways.items())
            if goal is not None:
                taken = f"{ways[goal] / found['episodes']:.1%}"
            success, cost = f"{found['success_rate']:.1%}", f"{found['plan_ms']:.1f} ms"
            lines.append(f"| {name} | {row} | {goal or '-'} | {taken} | {success} | {cost} |")
    return [*lines, ""]


COSTLY = [
    "| policy | steps in the disc, an episode | episodes with any | jerk / 1e6 | success |",
    "|---|---|---|---|---|",
]


def costly_rows(rows: dict[str, Any]) -> list[str]:
    """Return rows of what was paid, and of success."""
    lines = []
    for name, row in rows.items():
        low, high = row["cost_ci95"]
        jerk = f"{row['jerk'] / 1e6:.2f}" if "jerk" in row else "-"
        lines.append(
            f"| {name} | {row['cost']:.2f} [{low:.2f}, {high:.2f}] | {row['episodes_with_cost']:.1%} | {jerk} | "
            f"{row['success_rate']:.1%} |"
        )
    return lines


def safety() -> list[str]:
    tree = read("safety")
    lines = [
        "## Choosing what can be kept safe",
        "",
        "FISOR's feasibility as a constraint: a policy that knows nothing of a forbidden disc chooses among its "
        f"proposals; {seeds(tree)} training seeds. `python benchmarks/safety.py`",
        "",
        *COSTLY,
    ]
    return [*lines, *costly_rows(tree["tables"]["rows"]), ""]


def poco() -> list[str]:
    tree = read("poco")
    lines = [
        "## Costs at inference",
        "",
        "The same policies, guided by a cost that the user states (PoCo), from no weight to too much; "
        f"{seeds(tree)} training seeds. `python benchmarks/poco.py`",
        "",
        *COSTLY,
    ]
    return [*lines, *costly_rows(tree["tables"]["rows"]), ""]


def data_speed() -> list[str]:
    tree = read("data_speed")
    lines = [
        "## Batches, beside other loaders",
        "",
        "Medians of interleaved rounds; the ratio is to the fastest setting of the peer. "
        "`python benchmarks/data_speed.py --peers DIR`",
        "",
        "| race | us a batch | ratio |",
        "|---|---|---|",
    ]
    for race, found in {race: tree[race] for race in RACES}.items():
        for name, row in found["rows"].items():
            lines.append(
                f"| {race}: {name} | {row['median_us']:.1f} [{row['min_us']:.1f}..{row['max_us']:.1f}] | "
                f"{row['speed_up']:.2f}x |"
            )
    return [*lines, ""]


def sim_speed() -> list[str]:
    tree = read("sim_speed")
    lines = [
        "## Simulation, beside other vector environments",
        "",
        f"Medians of interleaved rounds on {tree['machine']['cores']} cores. `python benchmarks/sim_speed.py`",
        "",
        "| worlds | stepped by | k steps/s | ratio |",
        "|---|---|---|---|",
    ]
    for race, found in tree["races"].items():
        for name, row in found["rows"].items():
            lines.append(
                f"| {race} | {name} | {row['median'] / 1e3:.1f} [{row['min'] / 1e3:.1f}..{row['max'] / 1e3:.1f}] | "
                f"{row['ratio']:.2f}x |"
            )
    return [*lines, ""]


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
    lines += [
        "",
        "U-Net loss, float32 against the published step from the same weights, data and noise: relative error at most "
        f"{max(tree['unet']['relative_loss_error']):.1e}. bfloat16 against float32, trained with several seeds:",
        "",
        *(
            f"* {name}, {len(curve['finals']['fp32'])} seeds: final losses differ by {curve['difference']:+.5f}, the "
            f"float32 seeds by {curve['fp32_std']:.5f} (standard deviation)."
            for name, curve in tree["bf16_curves"].items()
        ),
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


SECTIONS = {
    "imitation": imitation,
    "window_rule": window_rule,
    "worlds": worlds,
    "backbones": backbones,
    "execution": execution,
    "rtc": rtc,
    "vgps": vgps,
    "gpc": gpc,
    "shown_goal": shown_goal,
    "cfgrl": cfgrl,
    "dynaguide": dynaguide,
    "safety": safety,
    "poco": poco,
    "steer_ways": steer_ways,
    "itps": itps,
    "camera": camera,
    "critics": critics,
    "train_speed": speed,
    "plan_speed": plans,
    "data_speed": data_speed,
    "sim_speed": sim_speed,
    "startup": startup,
    "kill_resume": kills,
}
"""Stored result -> what it becomes."""


def main() -> None:
    intro = ["# Results", "", "Written by `python benchmarks/report.py` from `benchmarks/results/`.", ""]
    there = [section() for name, section in SECTIONS.items() if (RESULTS / f"{name}.json").exists()]
    PAGE.write_text("\n".join([*intro, *(line for section in there for line in section)]).rstrip() + "\n")


if __name__ == "__main__":
    main()
