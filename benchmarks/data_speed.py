"""Speed of data: batches of windows, of replayed transitions and of images, against the public codes people use.

robomimic 0.3.0 and Stable-Baselines3 are installed packages; the sampler of Diffusion Policy is read from a folder with
one checkout each (without numba, which only builds its index, a plain function takes its place)::

    git clone https://github.com/real-stanford/diffusion_policy DIR/diffusion_policy
    git -C DIR/diffusion_policy checkout 5ba07ac6661db573af695b419a7947ecb704690f
    python benchmarks/data_speed.py --peers DIR        # or the environment variable ROBOPOL_PEERS

Every peer runs at several settings; the ratio is against its fastest. Contenders run in processes of their own and
take turns in each round; a round in which other processes used more than 0.2 cores is dropped. What a DataLoader's
workers have ready before a turn counts for it. Printed: median [min..max] of the kept rounds, per batch.

* windows, robomimic: 200 demonstrations of 50 steps in its own file, four low-dim observations (19 entries) and
  7 actions, 16 steps, batch 256. It returns observations of all 16 steps, robopol of the 2 that a policy looks at.
* windows, diffusion_policy: 206 episodes of 125 steps, 20 observation entries and 2 actions, 16 steps, batch 256.
* replay: 1 M transitions, 17 observation entries and 6 actions, batch 256, single and 20 at once.
* images: windows of two frames of 96 x 96, batch 64, from arrays on disk, against H.264 with a keyframe every
  second frame (as LeRobot writes it), decoded where a window begins.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import sections
import stored_races
import torch
from racing import Race, Turn, race, spread
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robopol.data import Episodes, EpisodesMeta, Windows, load_episodes, save_episodes
from robopol.data.replay import ReplayBuffer
from robopol.data.sampling import Uniform

BATCH, IMAGE_BATCH = 256, 64
N_OBS, HORIZON, N_ACTION = 2, 16, 8
KEYS = {"object": 10, "robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}  # robomimic's Lift
CAPACITY, OBS, ACTION, DRAWS = 1_000_000, 17, 6, 20  # HalfCheetah
VIDEOS, FRAMES, SIZE = 20, 200, 96

RACES = ("robomimic", "diffusion_policy", "replay", "images")
"""What is stored, in the order of the section."""

Batches = Callable[[int], None]
"""Makes that many batches."""


# ---------------------------------------------------------------------------------------------------- data


def write_data(folder: Path) -> None:
    """Write the datasets that contenders share."""
    import av
    import h5py

    g = np.random.default_rng(0)
    with h5py.File(folder / "lift.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = 200 * 50
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
        for index in range(200):
            demo = data.create_group(f"demo_{index}")
            demo.attrs["num_samples"] = 50
            demo["actions"] = g.uniform(-1, 1, (50, 7))
            demo["rewards"] = demo["dones"] = np.zeros(50)
            for key, size in KEYS.items():
                demo[f"obs/{key}"] = g.normal(size=(50, size))
    images = np.empty((VIDEOS * FRAMES, SIZE, SIZE, 3), np.uint8)
    for video in range(VIDEOS):
        with av.open(str(folder / f"{video}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=20, options={"g": "2", "crf": "30"})
            stream.width = stream.height = SIZE
            stream.pix_fmt = "yuv420p"
            ramp = np.add.outer(np.arange(SIZE), np.arange(SIZE))[..., None] + np.array([0, 85, 170])
            for index in range(FRAMES):
                frame = ((ramp + 2 * index + 10 * video) % 256).astype(np.uint8)
                frame[20:40, index % 60 : index % 60 + 20] = g.integers(0, 256, (20, 20, 3))
                images[video * FRAMES + index] = frame
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    save_episodes(episodes({"images.front": torch.from_numpy(images)}, FRAMES, 7), f"arrays:{folder / 'images'}")


def episodes(obs: dict[str, Tensor], length: int, actions: int) -> Episodes:
    """Return episodes of one length around observations."""
    steps = len(next(iter(obs.values())))
    count = steps // length
    none = torch.zeros(count, dtype=torch.bool)
    return Episodes(
        obs=obs,
        action=torch.rand(steps, actions),
        reward=torch.zeros(steps),
        terminated=torch.zeros(steps, dtype=torch.bool),
        truncated=torch.zeros(steps, dtype=torch.bool),
        source=torch.zeros(steps, dtype=torch.int64),
        intervention=torch.zeros(steps, dtype=torch.bool),
        starts=torch.arange(count) * length,
        lengths=torch.full((count,), length),
        final_obs={key: torch.zeros(count, *column.shape[1:], dtype=column.dtype) for key, column in obs.items()},
        has_final=none,
        success=none,
        way=torch.full((count,), -1),
        seed=torch.full((count,), -1),
        meta=EpisodesMeta(),
    )


# ------------------------------------------------------------------------------------------------ the public codes


def draw_from(dataset: Dataset[Any], batch: int, workers: int) -> Batches:
    """Return batches of a shuffled DataLoader."""
    loader = DataLoader(
        dataset,
        batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,  # the dataset is shared, not sent
    )

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    stream = endless()

    def batches(count: int) -> None:
        for _ in range(count):
            next(stream)

    return batches


def robomimic_windows(folder: Path, peers: Path, cache: str, workers: int) -> Batches:
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    obs_utils.initialize_obs_modality_mapping_from_dict({"low_dim": list(KEYS)})
    dataset = SequenceDataset(
        hdf5_path=str(folder / "lift.hdf5"),
        obs_keys=tuple(KEYS),
        dataset_keys=("actions",),
        seq_length=HORIZON,
        hdf5_cache_mode=cache,
        load_next_obs=False,
    )
    return draw_from(dataset, BATCH, workers)


def lift_windows(folder: Path, peers: Path) -> Batches:
    uri = f"robomimic:{folder / 'lift.hdf5'}?dones=success&state={','.join(KEYS)}"
    return uniform(Windows(load_episodes(uri), N_OBS, HORIZON), BATCH)


class PublishedSequences(Dataset[dict[str, Tensor]]):
    """What Diffusion Policy's low-dim datasets do around its sampler."""

    def __init__(self, peers: Path) -> None:
        """Fill its replay buffer in memory."""
        sys.path.insert(0, str(peers / "diffusion_policy"))
        try:
            import numba  # noqa: F401
        except ImportError:
            sys.modules["numba"] = types.SimpleNamespace(jit=lambda **_: lambda f: f)  # type: ignore[assignment]
        from diffusion_policy.common.replay_buffer import ReplayBuffer as PublishedBuffer
        from diffusion_policy.common.sampler import SequenceSampler

        buffer, g = PublishedBuffer.create_empty_numpy(), np.random.default_rng(0)
        for _ in range(206):
            obs, action = (g.normal(size=(125, size)).astype(np.float32) for size in (20, 2))
            buffer.add_episode({"obs": obs, "action": action})
        self.sampler = SequenceSampler(buffer, HORIZON, N_OBS - 1, N_ACTION - 1)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.sampler)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one window."""
        return {key: torch.from_numpy(value) for key, value in self.sampler.sample_sequence(index).items()}


def published_windows(folder: Path, peers: Path, workers: int) -> Batches:
    return draw_from(PublishedSequences(peers), BATCH, workers)


def pusht_windows(folder: Path, peers: Path) -> Batches:
    return uniform(Windows(episodes({"state": torch.randn(206 * 125, 20)}, 125, 2), N_OBS, HORIZON), BATCH)


def sb3_replay(folder: Path, peers: Path) -> Batches:
    from gymnasium.spaces import Box
    from stable_baselines3.common.buffers import ReplayBuffer as PublishedBuffer

    buffer = PublishedBuffer(CAPACITY, Box(-1, 1, (OBS,)), Box(-1, 1, (ACTION,)), device="cpu")
    for column in (buffer.observations, buffer.next_observations, buffer.actions, buffer.rewards):
        column[:] = 1.0  # pages that were never written are not in memory
    for column in (buffer.dones, buffer.timeouts):
        column[:] = 0.0
    buffer.full = True

    def batches(count: int) -> None:
        for _ in range(count):
            buffer.sample(BATCH)

    return batches


class Decoded(Dataset[Tensor]):
    """Windows of frames, decoded from the keyframe before them; containers stay open."""

    def __init__(self, folder: Path) -> None:
        """Look at the videos; each process opens them when it first needs them."""
        self.folder = folder
        self.containers: dict[int, Any] = {}

    def __len__(self) -> int:
        """Return the number of windows."""
        return VIDEOS * (FRAMES - N_OBS + 1)

    def __getitem__(self, index: int) -> Tensor:
        """Return one window (To, H, W, C)."""
        import av

        video, start = divmod(index, FRAMES - N_OBS + 1)
        if video not in self.containers:
            self.containers[video] = av.open(str(self.folder / f"{video}.mp4"))
        container = self.containers[video]
        stream = container.streams.video[0]
        container.seek(round(start / 20 / stream.time_base), stream=stream)
        frames: list[Tensor] = []
        for frame in container.decode(stream):
            if round(float(frame.pts * stream.time_base) * 20) >= start:
                frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
            if len(frames) == N_OBS:
                break
        return torch.stack(frames)


def decoded_images(folder: Path, peers: Path, workers: int) -> Batches:
    return draw_from(Decoded(folder), IMAGE_BATCH, workers)


# ---------------------------------------------------------------------------------------------------- robopol


def uniform(windows: Windows, batch: int) -> Batches:
    """Return batches as training draws them."""
    sampling, step = Uniform(windows), 0

    def batches(count: int) -> None:
        nonlocal step
        for _ in range(count):
            sampling.batch(step, batch, 0)
            step += 1

    return batches


def replay(folder: Path, peers: Path, draws: int | None) -> Batches:
    buffer, step = ReplayBuffer(CAPACITY, {"state": (OBS,)}, ACTION), 0
    block = 100_000
    for _ in range(CAPACITY // block):
        obs, zeros = {"state": torch.randn(block, OBS)}, torch.zeros(block)
        buffer.add(obs, torch.randn(block, ACTION), zeros, zeros, zeros, obs)

    def batches(count: int) -> None:
        nonlocal step
        for _ in range(count // (draws or 1)):
            buffer.sample(BATCH, step, 0, draws)
            step += 1

    return batches


def mapped_images(folder: Path, peers: Path) -> Batches:
    return uniform(Windows(load_episodes(f"arrays:{folder / 'images'}"), N_OBS, HORIZON), IMAGE_BATCH)


# ------------------------------------------------------------------------------------------------ the harness


class Contender(NamedTuple):
    """Something to be timed: how its batches are made, with which settings, how many a turn, and for whom."""

    name: str
    make: Callable[..., Batches]
    options: dict[str, Any]
    batches: int
    ours: bool = False


def turns(contender: Contender, folder: Path, peers: Path, threads: int) -> Turn:
    """Return turns that answer with the seconds of a batch."""
    torch.set_num_threads(threads)
    make_batches = contender.make(folder, peers, **contender.options)

    def turn() -> float:
        begin = time.perf_counter()
        make_batches(contender.batches)
        seconds = (time.perf_counter() - begin) / contender.batches
        settle()
        return seconds

    return turn


def settle() -> None:
    """Wait until the workers of this process have filled their queues, so that they disturb nobody."""
    workers, used = psutil.Process().children(), -1.0
    while workers and (now := sum(sum(worker.cpu_times()[:2]) for worker in workers)) > used:
        used = now
        time.sleep(0.1)


def run(title: str, contenders: list[Contender], folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Race the contenders; print and return the medians."""
    makers = {c.name: partial(turns, c, folder, args.peers, args.threads) for c in contenders}
    return table(title, contenders, race(makers, args.rounds, args.contention))


def table(title: str, contenders: list[Contender], result: Race) -> dict[str, Any]:
    """Print one race and return what is written to the file; ratios are against the fastest peer."""
    kept, dropped = result.rounds_kept, result.rounds_dropped
    print(f"\n{title}: {kept} rounds kept, {dropped} dropped for contention")
    if not kept:
        print("  no uncontended round: repeat on a quiet machine; what is stored stays")
        return {"rounds_kept": 0, "rounds_dropped": dropped, "rows": {}}
    found = {name: spread(seconds) for name, seconds in result.kept.items()}
    best = min(found[contender.name].median for contender in contenders if not contender.ours)
    rows: dict[str, Any] = {}
    for name, (median, low, high) in found.items():
        rows[name] = {"median_us": 1e6 * median, "min_us": 1e6 * low, "max_us": 1e6 * high, "speed_up": best / median}
        print(f"  {name:44s} {1e6 * median:10.1f} us [{1e6 * low:.1f}..{1e6 * high:.1f}]  {best / median:7.2f}x")
    return {"rounds_kept": kept, "rounds_dropped": dropped, "rows": rows}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Batches, beside other loaders",
        "",
        "Medians of interleaved rounds; the ratio is to the fastest setting of the peer. "
        "`python benchmarks/data_speed.py --peers DIR`",
        "",
        "| race | us a batch | ratio |",
        "|---|---|---|",
    ]
    found = {kind: tree["races"][kind] for kind in RACES if kind in tree["races"]}
    for kind, measured in found.items():
        for name, row in measured["rows"].items():
            lines.append(
                f"| {kind}: {name} | {sections.ends(row['median_us'], row['min_us'], row['max_us'])} | "
                f"{row['speed_up']:.2f}x |"
            )
    return [*lines, "", "Run on:", "", *stored_races.told(found), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers", type=Path, default=os.environ.get("ROBOPOL_PEERS"), help="folder with diffusion_policy/"
    )
    parser.add_argument("--only", choices=RACES, help="one race; the others stay as they are stored")
    parser.add_argument("--rounds", type=int, default=9, help="uncontended rounds to keep")
    parser.add_argument("--contention", type=float, default=0.2, help="cores that others may use in a round")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of every contender")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "data_speed.json")
    args = parser.parse_args()
    if args.peers is None:
        parser.error("say --peers DIR")
    args.peers = Path(args.peers)

    loaders = (("cache all", "all", 0), ("cache all, 1 worker", "all", 1), ("cache all, 2 workers", "all", 2))
    races = {
        "robomimic": [
            *(
                Contender(f"robomimic, {name}", robomimic_windows, {"cache": cache, "workers": workers}, 30)
                for name, cache, workers in loaders
            ),
            Contender("robopol", lift_windows, {}, 2000, True),
        ],
        "diffusion_policy": [
            *(
                Contender(f"diffusion_policy, {workers} workers", published_windows, {"workers": workers}, 100)
                for workers in (0, 1, 2)
            ),
            Contender("robopol", pusht_windows, {}, 4000, True),
        ],
        "replay": [
            Contender("Stable-Baselines3", sb3_replay, {}, 2000),
            Contender("robopol", replay, {"draws": None}, 4000, True),
            Contender(f"robopol, {DRAWS} batches at once", replay, {"draws": DRAWS}, 4000, True),
        ],
        "images": [
            *(
                Contender(f"decoding, {workers} workers", decoded_images, {"workers": workers}, 10)
                for workers in (0, 1, 2, 4)
            ),
            Contender("robopol, mapped arrays", mapped_images, {}, 200, True),
        ],
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for name, contenders in races.items():
            if args.only in (None, name):
                found[name] = run(name, contenders, Path(folder), args)

    place = stored_races.where(("torch", "numpy", "robomimic", "stable-baselines3", "av"))
    stored_races.store(args.out, found, place | {"threads": args.threads})


if __name__ == "__main__":
    main()
