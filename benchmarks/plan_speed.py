"""Speed of a plan: ten DDIM steps from noise to an action chunk, against what people run, on a CPU or a GPU.

The public codes are read from a folder with one checkout each, as in ``train_speed.py``; their networks need einops
and diffusers, the export onnx and onnxscript::

    git clone https://github.com/real-stanford/diffusion_policy DIR/diffusion_policy
    git -C DIR/diffusion_policy checkout 5ba07ac6661db573af695b419a7947ecb704690f
    git clone https://github.com/irom-lab/dppo DIR/dppo
    git -C DIR/dppo checkout 7b10df690d54f3d29524f20daa8cf78288a21a9b
    pip install diffusers einops onnx onnxscript onnxruntime
    python benchmarks/plan_speed.py --peers DIR
    python benchmarks/plan_speed.py --peers DIR --device cuda

* published: the published network, evaluated step by step by diffusers' `DDIMScheduler`;
* ONNX Runtime: the same network exported, in the same loop;
* robopol: the same weights in robopol's network, field and sampler, as they are and by what ``policy.backend`` offers
  on the device: packed weights in float32 and (for the U-Net) in half precision and bfloat16, torch.compile, a CUDA
  graph. What compiles or captures does so before it is timed.

On a GPU one row is raced, without ONNX Runtime, and a plan ends when its chunk is in the CPU's memory.

Every contender runs in a process of its own and takes its turn in each round; a round in which other processes used
more than 0.2 cores is dropped. Printed: median [min..max] of the kept rounds for one plan, the ratio of the medians to
the published loop and to ONNX Runtime, and the largest difference to the published loop's plan from the same noise,
computed in the contender's process.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import sections
import torch
from racing import Turn, race, spread
from torch import Tensor, nn
from train_speed import ACTION, HORIZON, N_OBS, OBS, TIMES, from_published, published_unet

from robopol.networks.denoising_mlp import DenoisingMLPConfig
from robopol.networks.unet import UNetConfig
from robopol.policies.diffusion import DiffusionConfig
from robopol.policies.part import PolicySpec
from robopol.policies.samplers.first_order import DDIMConfig
from robopol.policies.walking import Backend
from robopol.training.environment import cpu_model

STEPS = 10
LOOP, RUNTIME = "published loop", "ONNX Runtime"
Plan = Callable[[Tensor, Tensor], Tensor]
"""From noise (B, Tp, A) and observations (B, To, D) to chunks (B, Tp, A)."""


# ------------------------------------------------------------------------------------------------- the published codes


class PublishedUNet(nn.Module):
    """The published U-Net, called as robopol's networks are."""

    def __init__(self, peers: Path) -> None:
        """Build it with the weights of seed 0."""
        super().__init__()
        self.net = published_unet(peers)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Predict the noise."""
        noise: Tensor = self.net(x, t, global_cond=cond.flatten(1))
        return noise

    def robopol(self) -> tuple[Any, dict[str, Tensor]]:
        """Return robopol's config of the same network, and the weights in its names."""
        return UNetConfig(), from_published(self.net.state_dict(), levels=3)


class PublishedMLP(nn.Module):
    """DPPO's MLP with three hidden layers of 256, called as robopol's networks are."""

    def __init__(self, peers: Path) -> None:
        """Build it with the weights of seed 0."""
        super().__init__()
        sys.path.insert(0, str(peers / "dppo"))
        from model.diffusion.mlp_diffusion import DiffusionMLP

        torch.manual_seed(0)
        self.net = DiffusionMLP(
            ACTION, HORIZON, OBS * N_OBS, mlp_dims=[256] * 3, activation_type="ReLU", residual_style=True
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Predict the noise."""
        noise: Tensor = self.net(x, t, {"state": cond})
        return noise

    def robopol(self) -> tuple[Any, dict[str, Tensor]]:
        """Return robopol's config of the same network, and the weights in its names."""
        names = {
            "time_embedding": "embed_time",
            "mlp_mean.layers.0": "trunk.0",
            "mlp_mean.layers.1.l1": "trunk.1.first",
            "mlp_mean.layers.1.l2": "trunk.1.second",
            "mlp_mean.layers.2": "trunk.2",
        }
        weights = {}
        for name, value in self.net.state_dict().items():
            theirs = next(part for part in names if name.startswith(f"{part}."))
            weights[names[theirs] + name.removeprefix(theirs)] = value
        return DenoisingMLPConfig(width=256), weights


def published(net: nn.Module, batch: int) -> Plan:
    """Return the published loop around a network."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler = DDIMScheduler(num_train_timesteps=TIMES, beta_schedule="squaredcos_cap_v2", clip_sample=True)

    @torch.no_grad()
    def plan(noise: Tensor, cond: Tensor) -> Tensor:
        scheduler.set_timesteps(STEPS)
        x = noise
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t.to(x.device).expand(batch), cond), t, x).prev_sample
        return x

    return plan


class Exported(nn.Module):
    """A network run by ONNX Runtime at one batch size."""

    def __init__(self, net: nn.Module, batch: int) -> None:
        """Export and load it."""
        super().__init__()
        import onnxruntime

        noise, cond = inputs(batch)
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/net.onnx"
            example = (noise, torch.zeros(batch, dtype=torch.int64), cond)
            torch.onnx.export(net.eval(), example, file, input_names=["x", "t", "cond"], dynamo=True, verbose=False)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Predict the noise."""
        (noise,) = self.session.run(None, {"x": x.numpy(), "t": t.numpy(), "cond": cond.numpy()})
        return torch.from_numpy(noise)


def exported(net: nn.Module, batch: int) -> Plan:
    """Return the published loop around the exported network."""
    return published(Exported(net, batch), batch)


# ------------------------------------------------------------------------------------------------------------- robopol


def robopol(net: PublishedUNet | PublishedMLP, batch: int, backend: Backend | None = None) -> Plan:
    """Return robopol's sampler on a field with the published weights, computed by a backend."""
    config, state = net.robopol()
    spec = PolicySpec(
        obs_shapes={"state": (OBS,)},
        action_names=tuple(f"a{i}" for i in range(ACTION)),
        action_low=(-1.0,) * ACTION,
        action_high=(1.0,) * ACTION,
        action_space="position",
        control_hz=10,
        n_obs_steps=N_OBS,
        horizon=HORIZON,
        n_action_steps=8,
    )
    policy = DiffusionConfig(net=config, sampler=DDIMConfig(steps=STEPS)).build(spec).eval()
    policy.field.net.load_state_dict(state)
    policy.to(next(net.parameters()).device)
    if backend is not None:
        policy.for_acting(backend)

    @torch.no_grad()
    def plan(noise: Tensor, cond: Tensor) -> Tensor:
        return policy.sampler.sample(policy.field, noise, cond, lambda: noise)

    return plan


# ---------------------------------------------------------------------------------------------------------- the harness


class Contender(NamedTuple):
    """Something to be timed: how it makes a plan from the published network."""

    name: str
    make: Callable[..., Plan]


class Subject(NamedTuple):
    """What is raced: a network, the rows of a plan, how many plans are one turn of a contender, and where."""

    name: str
    net: type[PublishedUNet] | type[PublishedMLP]
    batch: int
    plans: int
    threads: int
    device: str = "cpu"


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    """Return noise (B, Tp, A) and observations (B, To, D)."""
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, HORIZON, ACTION, generator=g), torch.randn(batch, N_OBS, OBS, generator=g)


def turns(contender: Contender, subject: Subject, peers: Path) -> Turn:
    """Return turns that answer with the seconds of a plan and its largest difference to the published plan."""
    torch.set_num_threads(subject.threads)
    net = subject.net(peers).eval().to(subject.device)
    plan, (noise, cond) = contender.make(net, subject.batch), (x.to(subject.device) for x in inputs(subject.batch))
    error = float((plan(noise, cond) - published(net, subject.batch)(noise, cond)).abs().max())

    def turn() -> tuple[float, float]:
        begin = time.perf_counter()
        for _ in range(subject.plans):
            plan(noise, cond).cpu()
        return (time.perf_counter() - begin) / subject.plans, error

    return turn


def run(subject: Subject, contenders: list[Contender], args: argparse.Namespace) -> dict[str, Any]:
    """Race the contenders, the published loop first and on a CPU ONNX Runtime next; print and return the figures."""
    makers = {contender.name: partial(turns, contender, subject, args.peers) for contender in contenders}
    result = race(makers, args.rounds, args.contention)
    kept, dropped = result.rounds_kept, result.rounds_dropped
    print(
        f"\n{subject.name}, DDIM {STEPS}, batch {subject.batch}, {subject.device}, {subject.threads} threads: "
        f"{kept} rounds kept, {dropped} dropped for contention",
        flush=True,
    )
    found = {name: spread([seconds for seconds, _ in answers]) for name, answers in result.kept.items() if kept}
    peers = {"to_published": LOOP} | ({"to_onnxruntime": RUNTIME} if RUNTIME in found else {})
    rows = {}
    for name, (median, low, high) in found.items():
        rows[name] = {
            "median_ms": 1e3 * median,
            "min_ms": 1e3 * low,
            "max_ms": 1e3 * high,
            **{key: found[peer].median / median for key, peer in peers.items()},
            "error": result.kept[name][0][1],
        }
        ratios = "".join(f"  {rows[name][key]:5.2f}x {peer}" for key, peer in peers.items())
        print(
            f"  {name:24s} {1e3 * median:9.3f} ms [{1e3 * low:.3f}..{1e3 * high:.3f}]{ratios}"
            f"  error {rows[name]['error']:.1e}",
            flush=True,
        )
    return {"threads": subject.threads, "rounds_kept": kept, "rounds_dropped": dropped, "rows": rows}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## A plan, beside the published loop",
        "",
        f"DDIM in 10 steps, the same weights, interleaved in one run on {tree['machine']['cores']} cores; error: "
        "largest difference from diffusers. `python benchmarks/plan_speed.py --peers DIR`",
        "",
        "| race | contender | ms | to the published loop | to ONNX Runtime on the network | error |",
        "|---|---|---|---|---|---|",
    ]
    for subject, found in tree["races"].items():
        for name, row in found["rows"].items():
            lines.append(
                f"| {subject} | {name} | {sections.ends(row['median_ms'], row['min_ms'], row['max_ms'], 2)} | "
                f"{row['to_published']:.2f}x | {row['to_onnxruntime']:.2f}x | {row['error']:.0e} |"
            )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder with diffusion_policy/ and dppo/")
    parser.add_argument("--only", nargs="+", help="only these races: unet-1, unet-50, mlp-1, mlp-50")
    parser.add_argument("--rounds", type=int, default=9, help="uncontended rounds to keep")
    parser.add_argument("--contention", type=float, default=0.2, help="cores that others may use in a round")
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1, help="of the U-Nets")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where plans are made")
    parser.add_argument("--out", type=Path, help="results/plan_speed.json, or plan_speed_cuda.json beside it")
    args = parser.parse_args()
    name = "plan_speed.json" if args.device == "cpu" else "plan_speed_cuda.json"
    args.out = args.out or Path(__file__).parent / "results" / name

    loop, runtime, plain = Contender(LOOP, published), Contender(RUNTIME, exported), Contender("robopol", robopol)
    fp32 = Contender("robopol, packed fp32", partial(robopol, backend="packed"))
    fp16 = Contender("robopol, packed fp16", partial(robopol, backend="packed_fp16"))
    bf16 = Contender("robopol, packed bf16", partial(robopol, backend="packed_bf16"))
    compiled = Contender("robopol, compiled", partial(robopol, backend="compile"))
    graph = Contender("robopol, CUDA graph", partial(robopol, backend="cuda_graph"))
    unet, mlp = "U-Net 256/512/1024", "MLP 3 x 256"
    small, large = [loop, runtime, plain, fp32, compiled], [loop, runtime, plain, fp32, fp16, bf16, compiled]
    races = {
        "unet-1": (Subject(unet, PublishedUNet, 1, 3, args.threads), large),
        "unet-50": (Subject(unet, PublishedUNet, 50, 1, args.threads), large),
        "mlp-1": (Subject(mlp, PublishedMLP, 1, 200, 1), small),
        "mlp-50": (Subject(mlp, PublishedMLP, 50, 50, 1), small),
    }
    if args.device == "cuda":
        races = {
            "unet-1": (Subject(unet, PublishedUNet, 1, 50, args.threads, "cuda"), [loop, plain, compiled, graph]),
            "mlp-1": (Subject(mlp, PublishedMLP, 1, 200, 1, "cuda"), [loop, plain, compiled, graph]),
        }
    results = {name: run(*races[name], args) for name in races if args.only is None or name in args.only}

    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": {"processor": cpu_model(), "cores": psutil.cpu_count(logical=False)},
        "versions": {
            name: version(name) for name in ("torch", "diffusers", *(["onnxruntime"] * (args.device == "cpu")))
        },
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "races": results,
    }
    args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
