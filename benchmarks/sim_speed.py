"""Speed of simulation: robopol's native threads against gymnasium's vector environments and envpool.

    pip install envpool psutil
    python benchmarks/sim_speed.py

Every contender runs in a process of its own and takes its turn in each round; a round in which other processes
used more than 0.2 cores is dropped. One turn is a number of batched steps with random actions, the same for
all, with rewards and terminations; an episode that is over is reset. Counted are steps of the simulation, so a
call that resets instead of stepping, as some peers' do, counts for nothing. Printed: median [min..max] of the
kept rounds, and the ratio of the medians to gymnasium's `SyncVectorEnv` (for the arm: to stepping one world
after the other). envpool is optional.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import racing
import sections
import stored_races
from numpy.typing import NDArray

ACTIONS = 64  # batches of random actions that are repeated

Turn = Callable[[int], int]
"""Takes so many batched steps; returns how many steps of the simulation these were."""


class Race(NamedTuple):
    """What is simulated, and how many batched steps are one turn."""

    id: str
    num_envs: int
    steps: int


class Contender(NamedTuple):
    """Something to be timed: how its turn is made."""

    name: str
    make: Callable[[Race], Turn]


def random_actions(race: Race, low: Any, high: Any) -> NDArray[np.float32]:
    """Return batches of actions (ACTIONS, num_envs, A), the same for every contender."""
    rng = np.random.default_rng(0)
    return rng.uniform(low, high, (ACTIONS, race.num_envs, len(low))).astype(np.float32)


def robopol(race: Race, backend: Any, threads: int | None = None) -> Turn:
    """Step a `robopol.envs.VectorEnv`."""
    import torch

    from robopol.envs import make_env

    torch.set_num_threads(1)
    env = make_env(race.id, race.num_envs, backend=backend, threads=threads)
    actions = torch.from_numpy(random_actions(race, env.spec.action_low, env.spec.action_high))
    slots = list(range(race.num_envs))
    env.reset(slots, slots)
    seed = race.num_envs

    def turn(steps: int) -> int:
        nonlocal seed
        for t in range(steps):
            result = env.step(slots, actions[t % ACTIONS])
            ends = (result.terminated | result.truncated).tolist()
            over = [slot for slot in slots if ends[slot]]
            if over:
                env.reset(over, range(seed, seed + len(over)))
                seed += len(over)
        return steps * race.num_envs

    return turn


def native(race: Race) -> Turn:
    """Step in native threads, one per core."""
    return robopol(race, "native")


def native_one(race: Race) -> Turn:
    """Step natively in the calling thread alone."""
    return robopol(race, "native", 1)


def serial(race: Race) -> Turn:
    """Step one world after the other."""
    return robopol(race, "serial")


def gymnasium_vector(race: Race, mode: str) -> Turn:
    """Step a vector environment of gymnasium; one that was over is reset by the next call."""
    import gymnasium

    env = gymnasium.make_vec(race.id, race.num_envs, vectorization_mode=mode)
    box: Any = env.single_action_space
    actions = random_actions(race, box.low, box.high)
    env.reset(seed=0)
    over = np.zeros(race.num_envs, dtype=bool)

    def turn(steps: int) -> int:
        nonlocal over
        simulated = 0
        for t in range(steps):
            simulated += race.num_envs - int(np.count_nonzero(over))
            _, _, terminated, truncated, _ = env.step(actions[t % ACTIONS])
            over = terminated | truncated
        return simulated

    return turn


def gymnasium_sync(race: Race) -> Turn:
    """Step gymnasium's environments one after the other."""
    return gymnasium_vector(race, "sync")


def gymnasium_async(race: Race) -> Turn:
    """Step gymnasium's environments in a process each."""
    return gymnasium_vector(race, "async")


def envpool(race: Race, threads: int) -> Turn:
    """Step envpool, which resets in the next call like gymnasium."""
    import envpool as pool

    env = pool.make(race.id, "gymnasium", num_envs=race.num_envs, num_threads=threads, seed=0)
    box = env.action_space
    actions = random_actions(race, box.low, box.high).astype(np.float64)
    env.reset()
    over = np.zeros(race.num_envs, dtype=bool)

    def turn(steps: int) -> int:
        nonlocal over
        simulated = 0
        for t in range(steps):
            simulated += race.num_envs - int(np.count_nonzero(over))
            _, _, terminated, truncated, _ = env.step(actions[t % ACTIONS])
            over = terminated | truncated
        return simulated

    return turn


def envpool_one(race: Race) -> Turn:
    """Step envpool with one thread."""
    return envpool(race, 1)


def envpool_two(race: Race) -> Turn:
    """Step envpool with two threads."""
    return envpool(race, 2)


def turns(contender: Contender, race: Race) -> racing.Turn:
    """Return turns that answer with the steps a second."""
    take = contender.make(race)

    def turn() -> float:
        begin = time.perf_counter()
        simulated = take(race.steps)
        return simulated / (time.perf_counter() - begin)

    return turn


def run(race: Race, contenders: list[Contender], args: argparse.Namespace) -> dict[str, Any]:
    """Race the contenders; print and return the medians."""
    makers = {contender.name: partial(turns, contender, race) for contender in contenders}
    result = racing.race(makers, args.rounds, args.contention)
    kept, dropped = result.rounds_kept, result.rounds_dropped
    print(
        f"\n{race.id}, {race.num_envs} environments: {kept} rounds kept, {dropped} dropped for contention", flush=True
    )
    rows = {}
    found = {name: racing.spread(rates) for name, rates in result.kept.items() if kept}
    for name, (median, low, high) in found.items():
        base = found[contenders[0].name].median
        rows[name] = {"median": median, "min": low, "max": high, "ratio": median / base}
        print(
            f"  {name:28s} {median / 1e3:8.2f} k steps/s [{low / 1e3:.2f}..{high / 1e3:.2f}]  {median / base:5.2f}x",
            flush=True,
        )
    return {"num_envs": race.num_envs, "rounds_kept": kept, "rounds_dropped": dropped, "rows": rows}


def section(tree: dict[str, Any]) -> list[str]:
    """Return the section of docs/results.md."""
    lines = [
        "## Simulation, beside other vector environments",
        "",
        "Medians of interleaved rounds. `python benchmarks/sim_speed.py`",
        "",
        "| worlds | stepped by | k steps/s | ratio |",
        "|---|---|---|---|",
    ]
    for race, found in tree["races"].items():
        for name, row in found["rows"].items():
            thousands = sections.ends(*(row[key] / 1e3 for key in ("median", "min", "max")))
            lines.append(f"| {race} | {name} | {thousands} | {row['ratio']:.2f}x |")
    return [*lines, "", "Run on:", "", *stored_races.told(tree["races"]), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="uncontended rounds to keep")
    parser.add_argument("--contention", type=float, default=0.2, help="cores that others may use in a round")
    parser.add_argument("--scale", type=float, default=1.0, help="length of a turn; 1 is about half a second")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sim_speed.json")
    parser.add_argument("--ids", nargs="+", help="only these; the others stay as they are stored")
    args = parser.parse_args()

    peers = [Contender("gymnasium SyncVectorEnv", gymnasium_sync)]
    ours = [Contender("robopol native", native), Contender("robopol native, 1 thread", native_one)]
    few = [Contender("gymnasium AsyncVectorEnv", gymnasium_async)]
    pools = [Contender("envpool, 1 thread", envpool_one), Contender("envpool, 2 threads", envpool_two)]
    if importlib.util.find_spec("envpool") is None:
        print("envpool is not installed and left out")
        pools = []
    arm = [Contender("robopol serial", serial), *ours]

    races = [
        (Race("HalfCheetah-v5", 8, 1500), peers + ours + few + pools),
        (Race("Hopper-v5", 8, 800), peers + ours + few + pools),
        (Race("Humanoid-v5", 8, 300), peers + ours + few + pools),
        (Race("HalfCheetah-v5", 64, 200), peers + ours + pools),
        (Race("robopol/Reach-v0", 8, 60), arm),
        (Race("robopol/Push-v0", 8, 60), arm),
    ]
    results = {}
    for race, contenders in races:
        if args.ids and race.id not in args.ids:
            continue
        race = race._replace(steps=max(1, int(race.steps * args.scale)))
        results[f"{race.id} x {race.num_envs}"] = run(race, contenders, args)

    names = ("torch", "numpy", "mujoco", "gymnasium", *(["envpool"] if pools else []))
    memory = {"memory_gib": round(psutil.virtual_memory().total / 2**30, 1)}
    stored_races.store(args.out, results, stored_races.where(names) | memory)


if __name__ == "__main__":
    main()
