"""The contract that a policy or a model is trained under: the data, and the world they must agree with."""

from collections.abc import Iterable, Mapping

from robopol.checkpoint import load_policy
from robopol.config import parse
from robopol.data import Episodes, EpisodesMeta
from robopol.envs import EnvSpec
from robopol.envs.config import EnvConfig
from robopol.errors import ConfigError, DataError
from robopol.models import ModelConfig
from robopol.policies import Policy, PolicyConfig, PolicySpec


def joined(specs: Iterable[PolicySpec]) -> PolicySpec:
    """Return the contract of batches that serve several parts: every observation, the longest history and chunk.

    Args:
        specs: Contracts under the same data and world, at least one.
    """
    first, *others = specs
    for spec in others:
        steps, chunk = max(first.n_obs_steps, spec.n_obs_steps), max(first.chunk, spec.chunk)
        shapes, horizon = first.obs_shapes | spec.obs_shapes, steps - 1 + chunk
        first = first.model_copy(update={"obs_shapes": shapes, "n_obs_steps": steps, "horizon": horizon})
    return first


def spec_for(config: PolicyConfig | ModelConfig, data: Mapping[str, Episodes], world: EnvSpec | None) -> PolicySpec:
    """Return the contract, after checking that all data agree with each other and with the world.

    Without data it is that of the world.

    Args:
        config: Says how many observations and actions the policy or the model deals with.
        data: Source -> episodes; none if there are no data.
        world: Where there will be acting, or None if nobody said; needed without data.

    Returns:
        The contract; of the observations it has those that the encoder looks at.

    Raises:
        DataError: Names every disagreement, and what the data do not say.
        ConfigError: If the encoder is to look at an observation that does not exist, or such a policy is not trained.
    """
    if not isinstance(config, PolicyConfig | ModelConfig):
        raise ConfigError(f"a {config.tree()['kind']} policy is not trained here: choose another policy")
    if not data:
        if world is None:
            raise ConfigError("there are neither data nor a world to learn from: name an env, or data")
        return _contract(config, config.select(world.obs_shapes), world, world)
    first = next(iter(data.values()))
    meta, faults = first.meta, []
    shapes = config.select(_shapes(first))
    for name, episodes in data.items():
        found = config.select(_shapes(episodes))
        if found != shapes or episodes.action.shape[1] != first.action.shape[1]:
            faults.append(
                f"'{name}' has observations {found} and {episodes.action.shape[1]} action entries, "
                f"the first source {shapes} and {first.action.shape[1]}"
            )
        if (episodes.meta.action_space, episodes.meta.control_hz) != (meta.action_space, meta.control_hz):
            faults.append(
                f"'{name}' is '{episodes.meta.action_space}' at {episodes.meta.control_hz} Hz, the first source "
                f"'{meta.action_space}' at {meta.control_hz} Hz"
            )
    if world is not None:
        for key, shape in shapes.items():
            if tuple(world.obs_shapes.get(key, ())) != shape:
                there, hint = world.obs_shapes.get(key, "absent"), ""
                if there == "absent":
                    hint = f" (what is not to be looked at is left out by {config.group}.encoder.keys=[...])"
                faults.append(f"observation '{key}' is {shape} in the data, {there} in {world.id}{hint}")
        recorded = {key: value for key, value in meta.env_options.items() if world.options.get(key) != value}
        if faults and recorded and meta.env_id == world.id:
            faults.append(f"the data were recorded with env.options {recorded}")
        if len(world.action_names) != first.action.shape[1]:
            faults.append(
                f"the data have {first.action.shape[1]} action entries, {world.id} takes {len(world.action_names)}"
            )
        if meta.action_space and meta.action_space != world.action_space:
            faults.append(f"the data's actions are '{meta.action_space}', those of {world.id} '{world.action_space}'")
        if meta.control_hz and abs(meta.control_hz - world.control_hz) > 1e-6:
            faults.append(f"the data are at {meta.control_hz} Hz, {world.id} at {world.control_hz} Hz")
    elif not (meta.action_names and meta.action_low and meta.control_hz):
        faults.append("the data do not say their action names, bounds and control rate: name the env they are for")
    if faults:
        raise DataError("the data cannot be used: " + "; ".join(faults))
    return _contract(config, shapes, world or meta, world)


def begin_from(start: str, policy: Policy) -> None:
    """Give a policy the weights and normalisers of a saved one.

    Args:
        start: Where that was saved.
        policy: Built from its config, under the contract of this run.

    Raises:
        CheckpointError: If there is no such policy, or it is damaged.
        ConfigError: If it was made under another contract; names every difference.
    """
    saved = load_policy(start)
    ours, theirs = policy.spec.tree(), saved.spec.tree()
    faults = [f"{name} is {theirs[name]} there, {ours[name]} here" for name in ours if ours[name] != theirs[name]]
    faults = [fault for fault in faults if not fault.startswith("env is")]  # it may go on in a variant of its world
    if faults:
        raise ConfigError(f"the policy of {start} was made for something else: " + "; ".join(faults))
    policy.load_state_dict(saved.state_dict())


def _contract(
    config: PolicyConfig | ModelConfig,
    shapes: Mapping[str, tuple[int, ...]],
    source: EnvSpec | EpisodesMeta,
    world: EnvSpec | None,
) -> PolicySpec:
    """Return the contract over observations of some shapes, whose actions are those that ``source`` tells of."""
    return parse(
        PolicySpec,
        {
            "obs_shapes": dict(shapes),
            "action_names": list(source.action_names),
            "action_low": list(source.action_low),
            "action_high": list(source.action_high),
            "action_space": source.action_space,
            "control_hz": source.control_hz,
            "n_obs_steps": config.n_obs_steps,
            "horizon": config.horizon,
            "n_action_steps": config.n_action_steps,
            "env": world and EnvConfig.of(world).tree(),
        },
    )


def _shapes(episodes: Episodes) -> dict[str, tuple[int, ...]]:
    return {key: tuple(column.shape[1:]) for key, column in episodes.obs.items()}
