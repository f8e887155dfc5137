"""Speed of an exported policy: ten DDIM steps from an observation to an action chunk in one call of an engine.

The peers, their weights and the harness are those of ``plan_speed.py``, which says how to get them::

    pip install diffusers einops onnx onnxruntime openvino
    python benchmarks/export_speed.py --peers DIR

* published: the published network, evaluated step by step by diffusers' `DDIMScheduler`;
* robopol: the same weights in robopol's policy, planning eagerly, from observations to actions in environment units;
* torch, onnx, openvino: that policy exported for the engine; one call with observations and noise.

Contenders take turns in processes of their own; disturbed rounds are dropped. Printed: median [min..max] of one
plan, the ratio of the medians to the published loop, and the largest difference to the published loop's plan from the
same noise.
"""

import argparse
import json
import platform
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import sections
import torch
from plan_speed import STEPS, Plan, PublishedMLP, PublishedUNet, Subject, published, turns
from racing import race, spread
from torch import Tensor
from train_speed import ACTION, HORIZON, N_OBS, OBS

from robopol.export.engine import ENGINES, engine
from robopol.export.trace import trace
from robopol.policies import Policy, PolicySpec
from robopol.policies.diffusion import DiffusionConfig
from robopol.policies.samplers.first_order import DDIMConfig
from robopol.training.environment import cpu_model


class Contender(NamedTuple):
    """Something to be timed: how it makes a plan from the published network and a batch size."""

    name: str
    make: Any


def policy_of(net: PublishedUNet | PublishedMLP) -> Policy:
    """Return robopol's policy with the published weights; its normalisers change nothing."""
    config, state = net.robopol()
    size = {"n_obs_steps": N_OBS, "horizon": HORIZON, "n_action_steps": 8}
    spec = PolicySpec(
        obs_shapes={"state": (OBS,)},
        action_names=tuple(f"a{i}" for i in range(ACTION)),
        action_low=(-1.0,) * ACTION,
        action_high=(1.0,) * ACTION,
        action_space="position",
        control_hz=10,
        **size,
    )
    plain = {"obs_normalization": "identity", "action_normalization": "identity"}
    policy = DiffusionConfig(net=config, sampler=DDIMConfig(steps=STEPS), **size, **plain).build(spec).eval()
    policy.field.net.load_state_dict(state)
    return policy


def eager(net: PublishedUNet | PublishedMLP, batch: int) -> Plan:
    """Return the policy's own plan; the noise comes from `torch.randn`, as ever, and is replaced by what is given."""
    policy = policy_of(net)

    @torch.no_grad()
    def plan(noise: Tensor, cond: Tensor) -> Tensor:
        encoded = policy.observation({"state": cond}, N_OBS)
        chunks = policy.sampler.sample(policy.field, noise, encoded, lambda: noise)
        return policy.action_normalizer.unnormalize(chunks)

    return plan


def exported(net: PublishedUNet | PublishedMLP, batch: int, name: Any) -> Plan:
    """Return the policy exported for an engine."""
    graph = trace(policy_of(net), batch)
    with tempfile.TemporaryDirectory() as folder:
        engine(name).write(graph, Path(folder))
        runner = engine(name).load(Path(folder), "cpu", torch.get_num_threads())
    return lambda noise, cond: runner.run({"obs.state": cond, "noise": noise[:, None]})


def run(subject: Subject, contenders: list[Contender], args: argparse.Namespace) -> dict[str, Any]:
    """Race the contenders, the published loop first; print and return the figures."""
    makers = {contender.name: partial(turns, contender, subject, args.peers) for contender in contenders}
    result = race(makers, args.rounds, args.contention)
    print(
        f"\n{subject.name}, DDIM {STEPS}, batch {subject.batch}, {subject.threads} threads: "
        f"{result.rounds_kept} rounds kept, {result.rounds_dropped} dropped for contention",
        flush=True,
    )
    rows = {}
    for name, answers in result.kept.items():
        if not answers:
            continue
        loop = spread([seconds for seconds, _ in result.kept[contenders[0].name]]).median
        median, low, high = spread([seconds for seconds, _ in answers])
        rows[name] = {
            "median_us": 1e6 * median,
            "min_us": 1e6 * low,
            "max_us": 1e6 * high,
            "to_published": loop / median,
            "error": answers[0][1],
        }
        print(
            f"  {name:16s} {1e6 * median:10.1f} us [{1e6 * low:.1f}..{1e6 * high:.1f}]  {loop / median:5.2f}x published"
            f"  error {answers[0][1]:.1e}",
            flush=True,
        )
    kept = {"rounds_kept": result.rounds_kept, "rounds_dropped": result.rounds_dropped}
    return {"threads": subject.threads, **kept, "rows": rows}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## An exported plan, beside the published loop",
        "",
        f"From an observation to a chunk in one call, DDIM in {STEPS} steps, the same weights, interleaved in one run "
        f"on {tree['machine']['cores']} cores; error: largest difference from diffusers. "
        "`python benchmarks/export_speed.py --peers DIR`",
        "",
        "| race | contender | us | to the published loop | error |",
        "|---|---|---|---|---|",
    ]
    for subject, found in tree["races"].items():
        for name, row in found["rows"].items():
            taken = sections.ends(row["median_us"], row["min_us"], row["max_us"])
            lines.append(f"| {subject} | {name} | {taken} | {row['to_published']:.2f}x | {row['error']:.0e} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder with diffusion_policy/ and dppo/")
    parser.add_argument("--only", nargs="+", help="only these races: mlp-1, mlp-16, unet-1")
    parser.add_argument("--rounds", type=int, default=9, help="uncontended rounds to keep")
    parser.add_argument("--contention", type=float, default=0.2, help="cores that others may use in a round")
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1, help="of the U-Net")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "export_speed.json")
    args = parser.parse_args()

    contenders = [Contender("published loop", published), Contender("robopol", eager)]
    contenders += [Contender(name, partial(exported, name=name)) for name in ENGINES]
    subjects = {
        "mlp-1": Subject("MLP 3 x 256", PublishedMLP, 1, 200, 1),
        "mlp-16": Subject("MLP 3 x 256", PublishedMLP, 16, 100, 1),
        "unet-1": Subject("U-Net 256/512/1024", PublishedUNet, 1, 3, args.threads),
    }
    races = {n: run(s, contenders, args) for n, s in subjects.items() if args.only is None or n in args.only}
    report = {
        "machine": {"processor": cpu_model(), "cores": psutil.cpu_count(logical=False)},
        "versions": {name: version(name) for name in ("torch", "diffusers", "onnx", "onnxruntime", "openvino")},
        "python": platform.python_version(),
        "races": races,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
