"""Write a policy for an inference engine: the whole sampling loop in one call.

  robopol export checkpoint=DIR [engine=torch|onnx|openvino] [out=DIR] [batch=1] [data=demos.hdf5]
  robopol export checkpoint=DIR engine=onnx policy.sampler=ddim policy.steps=10
  robopol export checkpoint=DIR 'steering={kind: composition, policies: [OTHER], weights: [0.5, 0.5]}'

The artefact takes observations in environment units and standard normal noise, and gives actions in environment units;
normalisers and all steps are inside. It is compared with the policy on random and on recorded observations, and is not
written unless the two are equal. The recorded ones are those of ``data``, or of the policy acting in its world.
`robopol eval checkpoint=OUT` runs it.
"""

from pathlib import Path

from pydantic import Field

from robopol.config import Config, parse
from robopol.configs import load_config
from robopol.envs.config import EnvWords
from robopol.export.engine import EngineName
from robopol.policies.resampling import Resampling
from robopol.steering.steering import Steerings


class ExportCommand(Config):
    """What `robopol export` is told.

    Attributes:
        checkpoint: A run folder, a checkpoint or a policy folder.
        engine: What will run the artefact.
        out: Where the artefact goes; None is a folder named after the engine beside the policy's.
        batch: Rows that the artefact computes at once; more rows are computed one batch after the other.
        data: A dataset whose observations are compared on; None lets the policy act in its world.
        env: What is other than in the world that the policy was trained for, or another one.
        policy: How the policy is walked, if not as it was saved.
        steering: What steers it, in the order in which it acts.
    """

    checkpoint: str
    engine: EngineName = "onnx"
    out: str | None = None
    batch: int = Field(1, ge=1)
    data: str | None = None
    env: EnvWords | None = None
    policy: Resampling = Resampling()
    steering: Steerings = ()


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    command = parse(ExportCommand, load_config("export", words))

    from robopol.checkpoint import find_part, load_policy
    from robopol.errors import ConfigError
    from robopol.evaluation.fitness import histories
    from robopol.export.export import export, rolled_out
    from robopol.networks.precision import RuntimeConfig

    RuntimeConfig(device="cpu").build().apply()
    policy = command.policy.apply(load_policy(command.checkpoint), command.steering)
    if command.data is not None:
        from robopol.data import load_episodes

        episodes, source = load_episodes(command.data), command.data
    elif (world := (command.env or EnvWords()).world(policy.spec.env)) is not None:
        with world.make(8) as env:
            episodes, source = rolled_out(policy, env), f"the policy in {world.id}"
    else:
        raise ConfigError(
            f"{command.checkpoint} does not say which world it is for, so there are no observations to compare "
            "on: give data=URI, or name the world, e.g. env=push"
        )
    folder = find_part(Path(command.checkpoint), "policy").with_name(command.engine)
    out = folder if command.out is None else Path(command.out)
    written = export(policy, command.engine, out, histories(episodes, policy), source, command.batch)
    for check in written.checks:
        print(f"at most {check.max_error:.1e} from the policy on {check.rows} observations: {check.source}")
    print(out)
    return 0
