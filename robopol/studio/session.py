"""A policy, the world that it acts in, and what it plans there when it is steered."""

import base64
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from robopol.config import Config
from robopol.configs.spoken import spoken
from robopol.envs import VectorEnv
from robopol.errors import ConfigError, EnvError
from robopol.evaluation.protocol import SEED0, check_contract
from robopol.policies import Policy, Previous
from robopol.policies.generative import GenerativePolicy
from robopol.steering import SteeredPolicy
from robopol.steering.objectives import Motion, Objective
from robopol.steering.objectives.motion import motion_of
from robopol.studio.wish import Place, Wish

STRENGTH = {"delta": 10.0, "absolute": 3.0, "velocity": 10.0}
"""What guidance begins with: one delta moves all later positions, so that much less of it would do nothing."""

Which = Literal["steered", "base"]
Path = tuple[Place, ...]


class Facts(Config):
    """What does not change.

    Attributes:
        world: Gymnasium id.
        policy: Kind of the base policy.
        axes: Names of the two axes of the plane, with units.
        extent: The part of the plane that the world's picture shows, (x least, y least, x greatest, y greatest) m, if
            that is a view from straight above; else None.
        n_action_steps: Actions of a plan that are executed, Ta.
        guided: Whether the policy walks from noise to an action, so that it can be guided.
        strength: Scale of guidance to begin with.
    """

    world: str
    policy: str
    axes: tuple[str, str]
    extent: tuple[float, float, float, float] | None
    n_action_steps: int
    guided: bool
    strength: float


class Landmark(Config):
    """A thing that the state tells the place of.

    Attributes:
        name: What it is.
        place: m.
    """

    name: str
    place: Place


class Scene(Config):
    """Where the episode is.

    Attributes:
        seed: What it was reset with.
        step: Control steps so far.
        place: Where plans begin, m; None if it cannot be told.
        trail: Where that was since the reset.
        landmarks: What else there is.
        over: Whether the episode has ended.
        success: Whether it has succeeded so far.
        way: The way to succeed that it took, if any.
        total_reward: Undiscounted sum so far.
        picture: The world's own picture as a data URL; None if it cannot be rendered here.
        no_picture: Why not.
    """

    seed: int
    step: int
    place: Place | None
    trail: Path
    landmarks: tuple[Landmark, ...]
    over: bool
    success: bool
    way: str | None
    total_reward: float
    picture: str | None
    no_picture: str | None


class Plans(Config):
    """What the policy would do now.

    Attributes:
        base: Its plans, each H places, m. The first is the one that would be executed.
        steered: The same of the steered policy, from the same noise; None if nothing steers it.
        numbers: What steering did, on average; see `robopol.steering.log.Log`. ``score/base`` and ``score/steered``
            are the mean scores of the plans by what the user drew.
        command: The command line that evaluates the policy steered so.
    """

    base: tuple[Path, ...]
    steered: tuple[Path, ...] | None
    numbers: dict[str, float]
    command: str


@dataclass
class Episode:
    """What is remembered of the episode.

    Attributes:
        seed: What it was reset with.
        history: Key -> the last To observations, (To, ...).
        trail: Where plans began so far.
        step: Control steps so far.
        over: Whether it has ended.
        success: Whether it has succeeded.
        way: Number of the way that it took; -1 if none.
        total_reward: Sum so far.
        previous: The plan that was executed last.
    """

    seed: int
    history: dict[str, Tensor]
    trail: list[Place] = field(default_factory=list)
    step: int = 0
    over: bool = False
    success: bool = False
    way: int = -1
    total_reward: float = 0.0
    previous: Previous | None = None


class Session:
    """One episode of one policy, which a user steers.

    Plans depend on the episode and on the wish alone: their noise is drawn from the seed and the step, so that the same
    wish gives the same plans, and what is executed is the plan that was shown.

    Attributes:
        base: The frozen policy.
        policy: The same with the steerings that always act.
        facts: What does not change.
    """

    def __init__(
        self,
        policy: Policy,
        env: VectorEnv,
        *,
        motion: Motion | None = None,
        steerings: Sequence[Any] = (),
        seed: int = SEED0,
        plans: int = 16,
        words: Sequence[str] = ("checkpoint=RUN",),
    ) -> None:
        """Begin an episode.

        Args:
            policy: It is put into evaluation mode.
            env: Where it acts; its slot 0 is used.
            motion: How actions become positions in a plane; None where that is known without a word.
            steerings: What always steers the policy, before what the user asks for.
            seed: Of the episode.
            plans: How many are sampled at a time.
            words: What names the policy on a command line.

        Raises:
            ConfigError: If the policy was made for another world, cannot be steered so, or does not move in a plane
                that is known.
        """
        self.base = policy.eval()
        self.policy = policy.steered(*steerings) if steerings else policy
        check_contract(self.policy, env)
        self._track = (motion or motion_of(policy.spec, 2)).build(policy.spec)
        if self._track.axes != 2:
            raise ConfigError(f"the page shows a plane, and the motion has {self._track.axes} axes: give it 2")
        for key, shape in self._track.obs_shapes.items():
            if tuple(env.spec.obs_shapes.get(key, ())) != tuple(shape):
                raise ConfigError(
                    f"paths begin at the observation '{key}' of shape {shape}, and the world has none such"
                )
        # with its entries numbered, so that no world is built to look up names at every plan
        self._motion = None if motion is None else self._track.motion
        self._env, self._steerings, self._plans, self._words = env, tuple(steerings), plans, tuple(words)
        axes = self._axis_names()
        self.facts = Facts(
            world=env.spec.id,
            policy=policy.config.tree()["kind"],
            axes=axes,
            extent=getattr(env.envs[0], "extent", None) if env.envs else None,
            n_action_steps=policy.spec.n_action_steps,
            guided=isinstance(policy.inner(), GenerativePolicy),
            strength=STRENGTH[self._track.motion.means],
        )
        self._told = self._entries(axes)
        self._episode = self._begin(seed)

    def reset(self, seed: int | None = None) -> Scene:
        """Begin an episode.

        Args:
            seed: Of the episode; None is the next one.
        """
        self._episode = self._begin(self._episode.seed + 1 if seed is None else seed)
        return self.scene()

    def scene(self) -> Scene:
        """Return where the episode is."""
        episode, (picture, no_picture) = self._episode, self._picture()
        return Scene(
            seed=episode.seed,
            step=episode.step,
            place=next(iter(self._places(episode)), None),
            trail=tuple(episode.trail),
            landmarks=self._landmarks(),
            over=episode.over,
            success=episode.success,
            way=self._env.spec.way_names[episode.way] if episode.way >= 0 else None,
            total_reward=episode.total_reward,
            picture=picture,
            no_picture=no_picture,
        )

    def plan(self, wish: Wish) -> Plans:
        """Return what the policy would do, unsteered and steered.

        Raises:
            ConfigError: If the policy cannot be steered so.
        """
        policy = self._steered(wish)
        windows = {"base": self._windows(self.base)}
        if policy is not self.base:
            windows["steered"] = self._windows(policy)
        numbers = policy.log.means() if isinstance(policy, SteeredPolicy) else {}
        if (stated := wish.objective(self._motion)) is not None:
            objective: Objective = stated.build(self.base)
            for name, found in windows.items():
                numbers[f"score/{name}"] = objective.score(self._obs(), found).mean().item()
        paths = {name: self._paths(found) for name, found in windows.items()}
        return Plans(base=paths["base"], steered=paths.get("steered"), numbers=numbers, command=self.command(wish))

    def execute(self, wish: Wish, which: Which = "steered") -> Scene:
        """Execute the beginning of the first plan, until the policy plans again or the episode ends.

        Args:
            wish: What steers it.
            which: Whose plan.

        Raises:
            EnvError: If the episode is over.
            ConfigError: If the policy cannot be steered so.
        """
        episode, spec = self._episode, self.base.spec
        if episode.over:
            raise EnvError("the episode is over: reset it")
        window = self._windows(self._steered(wish) if which == "steered" else self.base)[0, 0]
        begun, first = episode.step, spec.n_obs_steps - 1
        for action in window[first : first + spec.n_action_steps]:
            result = self._env.step([0], action[None])
            episode.step += 1
            for key, rows in result.obs.items():
                episode.history[key] = torch.cat([episode.history[key][1:], rows])
            episode.trail += self._places(episode)
            episode.total_reward += result.reward.item()
            episode.success, episode.way = bool(result.success[0]), int(result.way[0])
            episode.over = bool(result.terminated[0] | result.truncated[0])
            if episode.over:
                break
        episode.previous = Previous(window, episode.step - begun)
        return self.scene()

    def command(self, wish: Wish) -> str:
        """Return the command line that evaluates the policy steered so."""
        told = (*self._steerings, *wish.steerings(self._motion))
        words = ["robopol", "eval", *self._words, *([f"steering={spoken(told)}"] if told else [])]
        return shlex.join(words)

    def _begin(self, seed: int) -> Episode:
        newest = self._env.reset([0], [seed])
        begun = Episode(
            seed, {key: torch.stack([rows[0]] * self.base.spec.n_obs_steps) for key, rows in newest.items()}
        )
        begun.trail += self._places(begun)
        return begun

    def _steered(self, wish: Wish) -> Policy:
        asked = wish.steerings(self._motion)
        return self.policy.steered(*asked) if asked else self.policy

    def _obs(self) -> dict[str, Tensor]:
        """Return the histories, key -> (1, To, ...)."""
        return {key: rows[None] for key, rows in self._episode.history.items()}

    def _windows(self, policy: Policy) -> Tensor:
        """Return sampled plans (1, K, Tp, A), the same at every call until a step is executed."""
        generator = torch.Generator().manual_seed((self._episode.seed << 20) + self._episode.step)
        obs = {key: rows.to(policy.device) for key, rows in self._obs().items() if key in policy.spec.obs_shapes}
        return policy.plan(obs, self._plans, [generator], [self._episode.previous]).cpu()

    def _paths(self, windows: Tensor) -> tuple[Path, ...]:
        found = self._track.positions(self._obs(), windows)[0].double()
        return tuple(tuple((x, y) for x, y in path) for path in found.tolist())

    def _axis_names(self) -> tuple[str, str]:
        """Name the axes as the state does where plans begin at it, else as the actions do."""
        motion, names = self._track.motion, self._env.spec.state_names
        if motion.obs == "state" and names and motion.start:
            entries, names = motion.start, names
        else:
            entries, names = motion.actions, self.base.spec.action_names
        first, second = (names[int(entry)] for entry in entries)
        return first, second

    def _entries(self, axes: tuple[str, str]) -> tuple[str, tuple[int, ...]] | None:
        """Return the observation and its entries that tell the place: the start, or what has the names of the axes."""
        motion, names = self._track.motion, self._env.spec.state_names
        if motion.start:
            return motion.obs, tuple(int(entry) for entry in motion.start)
        return ("state", tuple(names.index(axis) for axis in axes)) if set(axes) <= set(names) else None

    def _places(self, episode: Episode) -> list[Place]:
        """Return the one place where plans begin now, none if it cannot be told."""
        if self._told is None:
            return []
        key, entries = self._told
        x, y = episode.history[key][-1, list(entries)].double().tolist()
        return [(x, y)]

    def _landmarks(self) -> tuple[Landmark, ...]:
        """Return the things whose coordinates along both axes the state tells, apart from what moves itself."""
        names = self._env.spec.state_names
        letters = [re.search(r" d?([xyz]) \[m\]$", axis) for axis in self.facts.axes]
        if None in letters or "state" not in self._episode.history:
            return ()
        first, second = (f" {letter[1]} [m]" for letter in letters if letter)
        state = self._episode.history["state"][-1].double().tolist()
        found = []
        for name in (full.removesuffix(first) for full in names if full.endswith(first)):
            if name + second in names and name + first != self.facts.axes[0]:
                place = state[names.index(name + first)], state[names.index(name + second)]
                found.append(Landmark(name=name, place=place))
        return tuple(found)

    def _picture(self) -> tuple[str | None, str | None]:
        """Return the world's picture as a data URL, or why there is none."""
        from PIL import Image

        try:
            image = self._env.render(0)
        except EnvError as error:
            return None, str(error)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(), None
