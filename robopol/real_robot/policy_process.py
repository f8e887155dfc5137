"""The process of the policy: ``python -m robopol.real_robot.policy_process``; see `supervisor`."""

import sys
import time
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from robopol.config import Config, OneOf, parse
from robopol.data.episodes import is_image
from robopol.envs.config import EnvConfig
from robopol.errors import ConfigError, RobopolError
from robopol.evaluation.fitness import check_successor
from robopol.execution import RecedingHorizonConfig, check_period
from robopol.files import git_state
from robopol.policies import Policy, PolicySpec, Previous
from robopol.policies.remote import RemoteOptions
from robopol.policies.resampling import Acting
from robopol.real_robot.channels import Channels
from robopol.real_robot.child import Lifeline, be_polite, die_with_parent, say
from robopol.real_robot.chunk import ID_BYTES
from robopol.real_robot.clock import MonotonicClock, paced
from robopol.real_robot.fitness import try_on
from robopol.real_robot.observing import ArmObserver, Observation, Observer
from robopol.real_robot.policy_loop import PolicyLoop
from robopol.real_robot.rings import Memory, Ring
from robopol.real_robot.robot import RobotConfig
from robopol.real_robot.scenes import Scene
from robopol.real_robot.sent import Handover
from robopol.real_robot.sight import Sight, check_cameras, seen_by
from robopol.real_robot.steps import Step, fill, step_type
from robopol.real_robot.waypoints import waypoints_for
from robopol.real_robot.world import World, world_type
from robopol.steering.steering import Steerings


class Speaker(Config):
    """Which policy speaks to the robot, and how.

    Attributes:
        checkpoint: Whatever `robopol eval` takes: a run, a checkpoint, an exported policy, ws://HOST:PORT.
        trust: Allow a checkpoint that runs code when it is loaded.
        remote: What is said about a server.
        device: Where the policy runs.
        policy: How it is walked, if not as it was saved.
        steering: What steers it, in the order in which it acts.
        observe: Observation -> the fields of the arm's state that it is joined of: q, dq, effort, wrench, gripper,
            tool.
        reach: Steps from an action to the time at which it is to hold: 1 where actions were recorded as targets that
            are reached a step later, as in the arm suite; 0 where as positions at their own time.
        execution: How plans are executed.
        seed: All noise is drawn from it.
        threads: Processor threads of the policy.
    """

    checkpoint: str
    trust: bool = False
    remote: RemoteOptions = RemoteOptions()
    device: str = "cpu"
    policy: Acting = Acting()
    steering: Steerings = ()
    observe: dict[str, tuple[str, ...]] = {"state": ("q", "tool", "gripper")}  # noqa: RUF012 - pydantic copies it
    reach: int = Field(1, ge=0)
    execution: Annotated[Any, OneOf("executor")] = RecedingHorizonConfig()
    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _as_late_as_they_are(self) -> Self:
        if self.execution.latency:
            raise ValueError(
                f"execution.latency={self.execution.latency} makes plans late in a simulated world; on a robot they "
                "are as late as they are, and in a rehearsal by latency=SECONDS: leave it out"
            )
        return self

    def load(self) -> Policy:
        """Return the policy, steered and walked as it is to be."""
        from robopol.loading import load_policy

        policy = load_policy(self.checkpoint, self.device, trust=self.trust, remote=self.remote)
        return self.policy.apply(policy, self.steering)

    def ready(self) -> Policy:
        """Return the policy as it speaks: loaded, and prepared for how its plans are executed.

        Raises:
            ConfigError: If they cannot be executed so.
        """
        policy: Policy = self.execution.prepared(self.load())
        check_period(policy.spec, self.period(policy.spec))
        return policy

    def period(self, spec: PolicySpec) -> int:
        """Return the actions of a plan after which the next is asked for."""
        found: int = self.execution.period(spec)
        return found


class SceneObserver:
    """Sees a simulated world that another process publishes."""

    def __init__(self, env: EnvConfig, world: dict[str, Any]) -> None:
        """Look at a scene."""
        self._scene = Scene(env)
        self._ring = Ring(Memory(*world["memory"]), world_type(world["sizes"]))

    def observe(self, row: np.void) -> Observation:
        """See `robopol.real_robot.observing.Observer`."""
        for found in self._ring.take():
            self._scene.worlds.add(World.read(found))
        return self._scene.observe(row)


def latency_of(policy: Policy, plans: int = 3) -> float:
    """Return how long a plan takes, the longest of some after a first one, s; whatever compiles does so in the first.

    A policy that goes on from its last plan is asked with and without one, as it computes other things then.
    """
    import torch

    obs = {
        key: torch.zeros(
            1, policy.spec.n_obs_steps, *shape, device=policy.device, dtype=torch.uint8 if is_image(key) else None
        )
        for key, shape in policy.spec.obs_shapes.items()
    }
    old = Previous(torch.zeros(policy.spec.horizon, policy.spec.action_dim), min(1, policy.spec.horizon - 1))
    longest = 0.0
    for previous in (None, [old]) if policy.goes_on else (None,):
        for k in range(plans + 1):
            start = time.perf_counter()
            policy.plan(obs, 1, [torch.Generator().manual_seed(k)], previous).cpu()
            longest = max(longest, (time.perf_counter() - start) * (k > 0))
    return longest


def check_heir(policy: Policy, robot: RobotConfig, speaker: Speaker, old: PolicySpec, after: dict[str, Any]) -> None:
    """See that a policy may take the place of one that acts meanwhile.

    Args:
        policy: The new one.
        robot: The robot.
        speaker: How it speaks.
        old: What the other one is for.
        after: ``id`` of the other one, ``record``: folder of recorded episodes; ``scene``: whether both see a scene.

    Raises:
        ConfigError: If it is for something else, has the same weights, or what it says of what was recorded is no plan.
    """
    check_successor(policy.spec, old)
    if after["scene"] and policy.spec.env != old.env:
        raise ConfigError(f"the new policy is for the world {policy.spec.env}, and that here is {old.env}")
    if policy.fingerprint()[:ID_BYTES].hex() == after["id"]:
        raise ConfigError(f"{speaker.checkpoint} is what acts already, to the last weight")
    if after["record"] is None:
        raise ConfigError("there is nothing to try it on: say record=FOLDER, or trials=FOLDER of earlier episodes")
    if fault := try_on(policy, robot, speaker.period(old), after["record"]).fault:
        raise ConfigError(fault)


def main() -> None:
    """Load the policy, tell the parent what it is, and let it speak until the parent is gone."""
    lifeline = Lifeline()
    die_with_parent()
    be_polite()
    setup, clock = lifeline.setup, MonotonicClock()
    robot, speaker = parse(RobotConfig, setup["robot"]), parse(Speaker, setup["speaker"])
    channels = Channels.open(robot, setup["channels"])
    try:
        import torch

        torch.set_num_threads(speaker.threads)
        policy = speaker.ready()
        spec, world = policy.spec, setup.get("world")
        if setup.get("after"):
            check_heir(policy, robot, speaker, parse(PolicySpec, setup["after"]["spec"]), setup["after"])
        check_cameras(spec, robot.cameras, bool(setup.get("recorded")))
        observer: Observer
        if world and setup.get("scene") and spec.env is not None:
            observer = SceneObserver(spec.env, world)
        else:
            observer = ArmObserver(robot, spec, speaker.observe)
        waypoints, latency = waypoints_for(spec, robot), latency_of(policy)
    except RobopolError as error:
        say(error=str(error))
        raise SystemExit(1) from None
    films = {name: channels.films[name] for name in seen_by(spec)}
    places = {name: place for place, name in enumerate(robot.cameras)}
    loop = PolicyLoop(
        policy,
        robot,
        observer,
        waypoints,
        clock,
        channels.ticks.take,
        channels.policy.put,
        sight=Sight(films, places, robot.gate.max_age, channels.remark) if films else None,
        reach=speaker.reach,
        executed=speaker.period(spec),
        seed=speaker.seed,
        report=channels.remark,
        complain=lambda words: print(words, file=sys.stderr, flush=True),
    )
    row_type = step_type(spec)
    ring, row = Ring(channels.steps, row_type), np.zeros(1, row_type)

    def record(step: Step) -> None:
        fill(row, step)
        ring.put(row)

    say(
        ready=True,
        id=loop.id.hex(),
        latency=latency,
        executed=speaker.period(spec),
        merging=speaker.execution.merging,
        spec=spec.tree(),
        steps=np.lib.format.dtype_to_descr(row_type),
        config=policy.config.tree(),
        git=git_state(),
    )
    said = list[dict[str, Any]]()

    def undisturbed() -> bool:
        """Say whether the parent is there and has said nothing: it tells when to speak, and when to be silent."""
        said.extend(filter(None, [lifeline.told()]))
        return lifeline.held() and not said

    try:
        if setup.get("after"):
            for _ in paced(clock, loop.dt, undisturbed):
                loop.hear()
            if said and (known := said.pop(0)["known"]) is not None:
                loop.take_over(Handover.of(known))
        loop.run(undisturbed, record)
    except RobopolError as error:
        say(error=str(error))
        raise SystemExit(1) from None
    if said:
        say(known=loop.hand_over().tree())


if __name__ == "__main__":
    main()
