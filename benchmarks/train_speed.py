"""Speed of a gradient step, against the two public codes whose networks robopol reproduces.

The public codes are read from a folder with one checkout each; their networks need einops and diffusers::

    git clone https://github.com/real-stanford/diffusion_policy DIR/diffusion_policy
    git -C DIR/diffusion_policy checkout 5ba07ac6661db573af695b419a7947ecb704690f
    git clone https://github.com/irom-lab/dppo DIR/dppo
    git -C DIR/dppo checkout 7b10df690d54f3d29524f20daa8cf78288a21a9b
    pip install diffusers einops
    python benchmarks/train_speed.py --peers DIR

Every contender runs in a process of its own and takes its turn in each round; a round in which other
processes used more than 0.2 cores is dropped. Printed: median [min..max] of the kept rounds and the ratio of
the medians. The losses of the U-Nets are compared step by step from the same weights, data, noise and times.
Then a small U-Net and the MLP are trained in float32 and in bfloat16 with several seeds, to compare the losses.
"""

import argparse
import copy
import json
import math
import platform
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import sections
import torch
from racing import Race, Turn, race, spread
from torch import Tensor, nn
from torch.nn import functional as F

from robopol.algos.optimizer import AdamW
from robopol.networks.denoising_mlp import DenoisingMLPConfig
from robopol.networks.ema import EMA
from robopol.networks.precision import Runtime, RuntimeConfig
from robopol.networks.unet import UNetConfig
from robopol.training.environment import cpu_model

Step = Callable[[], float]

OBS, ACTION, HORIZON, N_OBS, BATCH, TIMES = 5, 2, 16, 2, 256, 100  # Push-T from state
HOPPER_OBS, HOPPER_ACTION, HOPPER_HORIZON, HOPPER_BATCH, HOPPER_TIMES = 11, 3, 4, 128, 20


# ---------------------------------------------------------------------------------------------------- data


def cosine_alpha_bar(times: int) -> Tensor:
    """Return the cumulative alphas of the squared-cosine schedule (Nichol & Dhariwal 2021), (times,)."""
    bar = [math.cos((i / times + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(times + 1)]
    betas = torch.tensor([min(1 - bar[i + 1] / bar[i], 0.999) for i in range(times)])
    return torch.cumprod(1 - betas, dim=0)


def noised(action: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw noise and times in the published order; return noisy action, noise and times."""
    noise = torch.randn(action.shape)
    t = torch.randint(0, len(alpha_bar), (len(action),))
    a = alpha_bar[t][:, None, None]
    return a.sqrt() * action + (1 - a).sqrt() * noise, noise, t


def pusht_batch() -> tuple[Tensor, Tensor]:
    """Return observations (B, Tp, 5) and actions (B, Tp, 2) of the published shapes, in [-1, 1]."""
    g = torch.Generator().manual_seed(7)
    return 2 * torch.rand(BATCH, HORIZON, OBS, generator=g) - 1, 2 * torch.rand(BATCH, HORIZON, ACTION, generator=g) - 1


def hopper_episodes(folder: str) -> str:
    """Write 20 random episodes of Hopper's shapes in DPPO's format; return the file's name."""
    g = np.random.default_rng(0)
    lengths = np.full(20, 500)
    path = f"{folder}/train.npz"
    states = g.uniform(-1, 1, (lengths.sum(), HOPPER_OBS)).astype(np.float32)
    actions = g.uniform(-1, 1, (lengths.sum(), HOPPER_ACTION)).astype(np.float32)
    np.savez(path, states=states, actions=actions, traj_lengths=lengths)
    return path


# ---------------------------------------------------------------------------------------- the published codes


def published_unet(peers: Path) -> nn.Module:
    """Build the published U-Net with the weights of seed 0."""
    sys.path.insert(0, str(peers / "diffusion_policy"))
    # the normalizer only names zarr's type in annotations
    sys.modules.setdefault("zarr", types.SimpleNamespace(Array=object))  # type: ignore[arg-type]
    from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D

    torch.manual_seed(0)
    net: nn.Module = ConditionalUnet1D(
        input_dim=ACTION,
        global_cond_dim=OBS * N_OBS,
        diffusion_step_embed_dim=256,
        down_dims=[256, 512, 1024],
        kernel_size=5,
        n_groups=8,
        cond_predict_scale=True,
    )
    return net


def published_unet_step(peers: Path, runtime: Runtime) -> Step:
    """Return the step of the published workspace: policy loss, AdamW, EMA; the batch is in memory."""
    net = published_unet(peers)
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from diffusion_policy.model.common.normalizer import LinearNormalizer, SingleFieldLinearNormalizer
    from diffusion_policy.model.diffusion.ema_model import EMAModel
    from diffusion_policy.policy.diffusion_unet_lowdim_policy import DiffusionUnetLowdimPolicy

    scheduler = DDPMScheduler(num_train_timesteps=TIMES, beta_schedule="squaredcos_cap_v2")
    policy = DiffusionUnetLowdimPolicy(
        net, scheduler, HORIZON, OBS, ACTION, 8, N_OBS, obs_as_global_cond=True, oa_step_convention=True
    )
    normalizer = LinearNormalizer()
    for key in ("obs", "action"):
        normalizer[key] = SingleFieldLinearNormalizer.create_identity()
    policy.set_normalizer(normalizer)
    ema = EMAModel(copy.deepcopy(policy), power=0.75)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, betas=(0.95, 0.999), eps=1e-8, weight_decay=1e-6)
    obs, action = pusht_batch()
    batch = {"obs": obs, "action": action}

    def step() -> float:
        loss = policy.compute_loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.step(policy)
        return float(loss.item())

    return step


def published_mlp_step(peers: Path, runtime: Runtime) -> Step:
    """Return the step of DPPO's pre-training loop as shipped: its dataset, a DataLoader, AdamW."""
    sys.path.insert(0, str(peers / "dppo"))
    from agent.dataset.sequence import StitchedSequenceDataset
    from model.diffusion.diffusion import DiffusionModel
    from model.diffusion.mlp_diffusion import DiffusionMLP

    torch.manual_seed(0)
    net = DiffusionMLP(
        HOPPER_ACTION,
        HOPPER_HORIZON,
        HOPPER_OBS,
        time_dim=16,
        mlp_dims=[512, 512, 512],
        activation_type="ReLU",
        residual_style=True,
    )
    model = DiffusionModel(net, HOPPER_HORIZON, HOPPER_OBS, HOPPER_ACTION, device="cpu", denoising_steps=HOPPER_TIMES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-6)
    with tempfile.TemporaryDirectory() as folder:
        dataset = StitchedSequenceDataset(hopper_episodes(folder), HOPPER_HORIZON, 1, device="cpu")
    loader = torch.utils.data.DataLoader(dataset, batch_size=HOPPER_BATCH, shuffle=True)

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    stream = batches()

    def step() -> float:
        model.train()
        loss = model.loss(*next(stream))
        loss.backward()
        value = loss.item()
        optimizer.step()
        optimizer.zero_grad()
        return float(value)

    return step


# ---------------------------------------------------------------------------------------------------- robopol


def from_published(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Rename and transpose the published U-Net's state dict into that of robopol's `UNet`."""
    modules = {
        "diffusion_step_encoder.1": "embed_time.1",
        "diffusion_step_encoder.3": "embed_time.3",
        "final_conv.0.block.0": "last.conv",
        "final_conv.0.block.1": "last.norm",
        "final_conv.1": "head",
    }
    blocks = {"mid_modules.0": "middle.first", "mid_modules.1": "middle.second"}
    for i in range(levels):
        for way in ("down", "up"):
            blocks[f"{way}_modules.{i}.0"] = f"{way}_levels.{i}.first"
            blocks[f"{way}_modules.{i}.1"] = f"{way}_levels.{i}.second"
            modules[f"{way}_modules.{i}.2.conv"] = f"{way}s.{i}"
    for theirs, ours in blocks.items():
        for i, which in enumerate(("first", "second")):
            modules[f"{theirs}.blocks.{i}.block.0"] = f"{ours}.{which}.conv"
            modules[f"{theirs}.blocks.{i}.block.1"] = f"{ours}.{which}.norm"
        modules[f"{theirs}.cond_encoder.1"] = f"{ours}.film"
        modules[f"{theirs}.residual_conv"] = f"{ours}.shortcut"
    renamed = {}
    for name, value in state.items():
        module, _, parameter = name.rpartition(".")
        target = modules[module]
        if value.dim() == 3 and target.endswith(("shortcut", "head")):
            value = value[:, :, 0]
        elif value.dim() == 3:
            value = value.permute(2, 0, 1) if target.startswith("ups") else value.permute(2, 1, 0)
        renamed[f"{target}.{parameter}"] = value.contiguous()
    return renamed


def unet_step(peers: Path, runtime: Runtime) -> Step:
    """Return robopol's step on the published batch, from the published initial weights."""
    runtime.apply()
    published = published_unet(peers)
    net = UNetConfig().build(ACTION, HORIZON, OBS, N_OBS)
    net.load_state_dict(from_published(published.state_dict(), levels=3))
    del published
    alpha_bar = cosine_alpha_bar(TIMES)
    optimizer = AdamW(list(net.parameters()), (0.95, 0.999), 1e-6)
    ema = EMA(net)
    obs, action = pusht_batch()

    def step() -> float:
        noisy, noise, t = noised(action, alpha_bar)
        with runtime.autocast():
            predicted = net(noisy, t.float(), obs[:, :N_OBS])
        loss = F.mse_loss(predicted, noise)
        loss.backward()
        optimizer.step(1e-4)
        ema.update(net)
        return loss.item()

    return step


def mlp_step(peers: Path, runtime: Runtime) -> Step:
    """Return robopol's step for the Hopper MLP; the windows are gathered from memory."""
    runtime.apply()
    torch.manual_seed(0)
    net = DenoisingMLPConfig().build(HOPPER_ACTION, HOPPER_HORIZON, HOPPER_OBS, 1)
    with tempfile.TemporaryDirectory() as folder, np.load(hopper_episodes(folder)) as data:
        states, actions = torch.from_numpy(data["states"]), torch.from_numpy(data["actions"])
        lengths = data["traj_lengths"].tolist()
    ends = np.cumsum(lengths)
    starts = torch.cat([torch.arange(e - n, e - HOPPER_HORIZON + 1) for e, n in zip(ends, lengths, strict=True)])
    offsets = torch.arange(HOPPER_HORIZON)
    alpha_bar = cosine_alpha_bar(HOPPER_TIMES)
    optimizer = AdamW(list(net.parameters()), (0.9, 0.999), 1e-6)

    def step() -> float:
        first = starts[torch.randint(len(starts), (HOPPER_BATCH,))]
        noisy, noise, t = noised(actions[first[:, None] + offsets], alpha_bar)
        with runtime.autocast():
            predicted = net(noisy, t.float(), states[first][:, None])
        loss = F.mse_loss(predicted, noise)
        loss.backward()
        optimizer.step(1e-3)
        return loss.item()

    return step


# ------------------------------------------------------------------------------------------------ the harness


class Contender(NamedTuple):
    """Something to be timed: how its step is made, with which arithmetic, and how many steps are one turn."""

    name: str
    make: Callable[[Path, Runtime], Step]
    runtime: Runtime
    steps: int


def turns(contender: Contender, peers: Path) -> Turn:
    """Return turns that answer with the seconds of a step and the losses."""
    torch.set_num_threads(contender.runtime.threads)
    step = contender.make(peers, contender.runtime)
    done = 0

    def turn() -> tuple[float, list[float]]:
        nonlocal done
        losses = []
        begin = time.perf_counter()
        for _ in range(contender.steps):
            torch.manual_seed(done)
            losses.append(step())
            done += 1
        return (time.perf_counter() - begin) / contender.steps, losses

    return turn


def run(contenders: list[Contender], args: argparse.Namespace) -> Race:
    """Race the contenders."""
    makers = {contender.name: partial(turns, contender, args.peers) for contender in contenders}
    return race(makers, args.rounds, args.contention)


def table(title: str, contenders: list[Contender], result: Race) -> dict[str, Any]:
    """Print one race and return what is written to the file; ratios are against the first contender."""
    kept, dropped = result.rounds_kept, result.rounds_dropped
    print(f"\n{title}: {kept} rounds kept, {dropped} dropped for contention")
    rows: dict[str, Any] = {}
    if not kept:
        print("  no uncontended round: repeat on a quiet machine")
        return {"rounds_kept": 0, "rounds_dropped": dropped}
    found = {name: spread([seconds for seconds, _ in answers]) for name, answers in result.kept.items()}
    base = found[contenders[0].name].median
    for contender in contenders:
        median, low, high = found[contender.name]
        runtime = contender.runtime
        rows[contender.name] = {
            "median_ms": 1e3 * median,
            "min_ms": 1e3 * low,
            "max_ms": 1e3 * high,
            "speed_up": base / median,
            "precision": runtime.precision,
            "matmul": runtime.matmul,
            "threads": runtime.threads,
        }
        print(
            f"  {contender.name:34s} {1e3 * median:9.2f} ms [{1e3 * low:.2f}..{1e3 * high:.2f}]"
            f"  {base / median:5.2f}x  ({runtime.precision}, {runtime.matmul}, {runtime.threads} threads)"
        )
    return {"rounds_kept": kept, "rounds_dropped": dropped, "rows": rows}


# ---------------------------------------------------------------------------------------------- loss curves


class Toy(NamedTuple):
    """A network to be trained on two-way chunks in both precisions, and how."""

    build: Callable[[], nn.Module]
    action: int
    horizon: int
    obs: int
    n_obs: int
    lr: float


CURVES = {
    "U-Net (32, 64, 128)": Toy(
        lambda: UNetConfig(widths=(32, 64, 128), step_dim=64).build(ACTION, HORIZON, OBS, N_OBS),
        ACTION,
        HORIZON,
        OBS,
        N_OBS,
        1e-3,
    ),
    "DPPO MLP 512x3": Toy(
        lambda: DenoisingMLPConfig().build(HOPPER_ACTION, HOPPER_HORIZON, HOPPER_OBS, 1),
        HOPPER_ACTION,
        HOPPER_HORIZON,
        HOPPER_OBS,
        1,
        1e-3,
    ),
}


def final_loss(toy: Toy, seed: int, runtime: Runtime, steps: int) -> float:
    """Train a network on two-way chunks; return the mean loss of the last quarter of the steps."""
    torch.manual_seed(seed)
    net = toy.build()
    optimizer = torch.optim.AdamW(net.parameters(), lr=toy.lr, fused=True)
    alpha_bar = cosine_alpha_bar(TIMES)
    time_axis = torch.linspace(0, math.pi, toy.horizon)
    losses = []
    for _ in range(steps):
        cond = torch.rand(128, toy.n_obs, toy.obs)
        side = torch.randint(0, 2, (128, 1)) * 2.0 - 1
        bend = side * torch.sin(time_axis + cond[:, 0, :1])
        rest = time_axis.cos().expand_as(bend)
        noisy, noise, t = noised(torch.stack([bend] + [rest] * (toy.action - 1), -1), alpha_bar)
        with runtime.autocast():
            predicted = net(noisy, t.float(), cond)
        loss = F.mse_loss(predicted, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return statistics.mean(losses[-steps // 4 :])


def compare_curves(name: str, runtime: Runtime, seeds: int, steps: int) -> dict[str, Any]:
    """Compare the final losses of float32 and bfloat16 over several seeds; print and return the figures."""
    runtime.apply()
    finals = {
        precision: [
            final_loss(CURVES[name], s, Runtime("cpu", precision, runtime.matmul, runtime.threads), steps)
            for s in range(seeds)
        ]
        for precision in ("fp32", "bf16")
    }
    mean = {p: statistics.mean(v) for p, v in finals.items()}
    spread = statistics.stdev(finals["fp32"])
    print(f"\n{name}, {steps} steps, {seeds} seeds: mean loss of the last quarter")
    print(f"  fp32 {mean['fp32']:.5f}, bf16 {mean['bf16']:.5f}; standard deviation over fp32 seeds {spread:.5f}")
    return {"steps": steps, "finals": finals, "fp32_std": spread, "difference": mean["bf16"] - mean["fp32"]}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
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
                f"| {name} | {sections.ends(row['median_ms'], row['min_ms'], row['max_ms'])} | "
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder with diffusion_policy/ and dppo/")
    parser.add_argument("--rounds", type=int, default=7, help="uncontended rounds to keep")
    parser.add_argument("--contention", type=float, default=0.2, help="cores that others may use in a round")
    parser.add_argument("--curve-steps", type=int, default=200)
    parser.add_argument("--curve-seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "train_speed.json")
    args = parser.parse_args()

    cores = psutil.cpu_count(logical=False) or 1
    chosen = RuntimeConfig(device="cpu").build(width=1024)
    for trial in chosen.trials:
        print(trial)
    shipped = Runtime("cpu", "fp32", "highest", cores)
    fp32 = Runtime("cpu", "fp32", chosen.matmul, cores)
    bf16 = Runtime("cpu", "bf16", chosen.matmul, cores)

    unets = [
        Contender("published U-Net step", published_unet_step, shipped, 1),
        Contender("robopol fp32", unet_step, fp32, 1),
        Contender("robopol bf16", unet_step, bf16, 1),
    ]
    raced = run(unets, args)
    unet = table("U-Net 256/512/1024, batch 256, 65.4 M parameters", unets, raced)
    reference, ours = (
        [loss for _, losses in raced.every[name] for loss in losses]
        for name in ("published U-Net step", "robopol fp32")
    )
    errors = [abs(a - b) / a for a, b in zip(reference, ours, strict=True)]
    unet["relative_loss_error"] = errors
    print(f"  loss, fp32 against published: relative error at most {max(errors):.1e} in {len(errors)} steps")

    one = Runtime("cpu", "fp32", chosen.matmul, 1)
    mlps = [
        Contender("DPPO loop as shipped", published_mlp_step, shipped, 100),
        Contender("DPPO loop, 1 thread", published_mlp_step, Runtime("cpu", "fp32", "highest", 1), 100),
        Contender("robopol, 1 thread", mlp_step, one, 100),
        Contender(f"robopol, {cores} threads", mlp_step, fp32, 100),
        Contender("robopol bf16", mlp_step, bf16, 100),
    ]
    mlp = table("DPPO MLP 512x3, Hopper, batch 128", mlps, run(mlps, args))

    curves = {name: compare_curves(name, fp32, args.curve_seeds, args.curve_steps) for name in CURVES}

    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": {"processor": cpu_model(), "cores": cores},
        "versions": {name: version(name) for name in ("torch", "diffusers", "einops")},
        "python": platform.python_version(),
        "self_test": [vars(trial) for trial in chosen.trials],
        "unet": unet,
        "dppo_mlp": mlp,
        "bf16_curves": curves,
    }
    args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
