"""The model card of a run: a README that says what was trained, how good it was, and how to use it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from robopol.checkpoint import load_part
from robopol.config import parse
from robopol.envs.config import EnvConfig
from robopol.evaluation import Evaluation
from robopol.policies import Part, PolicySpec
from robopol.training.config import TrainConfig
from robopol.training.run import RunFolder

GROUPS = ("policy", "model")
"""What a run can have trained."""


def model_card(
    run: RunFolder,
    evaluation: Evaluation | None = None,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    license: str | None = None,
) -> str:
    """Write the model card of a run's last checkpoint.

    Args:
        run: The run.
        evaluation: How the checkpoint did, or None if nobody looked.
        data: Source -> what `robopol.data.describe` says of its training episodes; None leaves them out.
        license: SPDX identifier of the weights' licence; None if there is none yet.

    Returns:
        The text of a README.md for the run folder; everything in it comes from the run and the arguments.

    Raises:
        CheckpointError: If the run has no checkpoint, or it is damaged.
    """
    name, config = run.path.resolve().name, run.config
    last = run.path / "checkpoints" / "last"
    groups = [group for group in GROUPS if (last / group).is_dir()] or ["policy"]  # of which there is none either
    parts = {group: load_part(run.path, group) for group in groups}
    kinds, algo = [str(part.config.tree()["kind"]) for part in parts.values()], str(config["algo"]["kind"])
    env = evaluation.env if evaluation else next(iter(parts.values())).spec.env
    sections = [
        _front_matter(name, [*kinds, algo, *([env.id] if env else [])], evaluation, license),
        f"# {name}",
        _summary(run, parts, kinds, algo, env),
        *(_contract(group, part.spec) for group, part in parts.items()),
        _training(config, data),
        *([_evaluation(evaluation)] if "policy" in parts else []),
        _usage(list(parts), env),
        *([_SAFETY] if "policy" in parts else []),
    ]
    return "\n\n".join(sections) + "\n"


_SAFETY = """## Safety

What the evaluation above does not measure is not promised. In particular:

* The policy knows nothing of people, of obstacles that its observation leaves out, or of the limits of a real
  arm. Whoever executes it must bound position, speed and force, and must have an emergency stop.
* Its actions are predictions of a network. They may lie outside the bounds above, and in states unlike its
  training data they may be anything.
* A success rate in simulation is not one on a robot."""


def _front_matter(name: str, tags: Sequence[str], evaluation: Evaluation | None, license: str | None) -> str:
    """Return the YAML block that model hubs read; strings in it are written as JSON, which YAML includes."""
    lines = ["---", "library_name: robopol", "pipeline_tag: robotics"]
    if license is not None:
        lines.append(f"license: {_quote(license)}")
    lines += ["tags:", "- robotics", "- robopol", *(f"- {_quote(tag)}" for tag in tags)]
    if evaluation is not None:
        low, high = evaluation.success_ci95
        what = f"success rate (95 % interval {low:.3f} to {high:.3f}, {evaluation.episodes} episodes)"
        lines += [
            "model-index:",
            f"- name: {_quote(name)}",
            "  results:",
            "  - task:",
            "      type: robotics",
            "    dataset:",
            f"      name: {_quote(evaluation.env.id)}",
            f"      type: {_quote(evaluation.env.id)}",
            "    metrics:",
            "    - type: success_rate",
            f"      name: {_quote(what)}",
            f"      value: {evaluation.success_rate:.4f}",
        ]
    return "\n".join([*lines, "---"])


def _summary(
    run: RunFolder, trained: Mapping[str, Part], kinds: Sequence[str], algo: str, env: EnvConfig | None
) -> str:
    size = sum(parameter.numel() for part in trained.values() for parameter in part.parameters())
    what = " and a ".join(f"`{kind}` {group}" for kind, group in zip(kinds, trained, strict=True))
    place = f" for `{env.id}`" if env else ""
    versions, amount = run.environment["versions"], f"{run.steps()[-1]:,} updates"
    if any(phase.get("env_steps") for phase in run.config.get("phases", {}).values()):
        updates, env_steps = parse(TrainConfig, run.config).counts(run.steps()[-1])
        amount = f"{env_steps:,} environment steps and {updates:,} updates"
    return (
        f"A {what}{place}, trained with `{algo}` for {amount} by robopol "
        f"{versions['robopol']} (torch {versions['torch']}). {'They have' if len(trained) > 1 else 'It has'} {size:,} "
        "parameters."
    )


def _contract(group: str, spec: PolicySpec) -> str:
    past = f"the last {spec.n_obs_steps} observations" if spec.n_obs_steps > 1 else "the newest observation"
    inputs = _table(
        ("observation", "shape", "type"),
        [
            (f"`{key}`", _shape(shape), "uint8" if key.startswith("images.") else "float32")
            for key, shape in spec.obs_shapes.items()
        ],
    )
    outputs = _table(
        ("action entry", "lowest", "highest"),
        [
            (f"`{name}`", f"{low:g}", f"{high:g}")
            for name, low, high in zip(spec.action_names, spec.action_low, spec.action_high, strict=True)
        ],
    )
    if group == "policy":
        use = (
            f"and plans {spec.chunk} actions (`{spec.action_space}`, in environment units) at "
            f"{spec.control_hz:g} Hz, of which {spec.n_action_steps} are executed before it plans again:"
        )
    else:
        use = (
            f"and judges the next {spec.chunk} actions (`{spec.action_space}`, in environment units) at "
            f"{spec.control_hz:g} Hz:"
        )
    whose = "" if group == "policy" else f" of the {group}"
    return f"## Inputs and outputs{whose}\n\nIt sees {past}, in environment units:\n\n{inputs}\n\n{use}\n\n{outputs}"


def _training(config: Mapping[str, Any], data: Mapping[str, Mapping[str, Any]] | None) -> str:
    text = "## Training\n\n"
    if data:
        rows = [
            (
                f"`{name}`",
                f"{told['episodes']:,}",
                f"{told['steps']:,}",
                _percent(told["success_rate"]),
                _counts(told["ways"]),
            )
            for name, told in data.items()
        ]
        text += _table(("data", "episodes", "steps", "successful", "ways"), rows) + "\n\n"
    whole = json.dumps(config, indent=2, ensure_ascii=False)
    summary = "<summary>The whole configuration of the run</summary>"
    return f"{text}<details>{summary}\n\n```json\n{whole}\n```\n\n</details>"


def _evaluation(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "## Evaluation\n\nThis checkpoint was not evaluated."
    seeds = "{}..{}".format(*evaluation.seeds)
    rows = [
        (
            "success rate",
            _percent(evaluation.success_rate),
            "{} to {}".format(*map(_percent, evaluation.success_ci95)),
        ),
        ("return", f"{evaluation.return_mean:.3f}", "{:.3f} to {:.3f}".format(*evaluation.return_ci95)),
        ("steps", f"{evaluation.length_mean:.1f}", ""),
    ]
    text = (
        f"## Evaluation\n\n{evaluation.episodes} episodes in `{evaluation.env.id}`, reset with the seeds "
        f"{seeds}, one each. The interval of the rate is Wilson's, that of the return a bootstrap.\n\n"
        + _table(("", "mean", "95 % interval"), rows)
    )
    if evaluation.env.options:
        text += f"\n\nOptions of the environment: `{json.dumps(evaluation.env.options)}`"
    if evaluation.ways:
        text += f"\n\nWays that successful episodes took: {_counts(evaluation.ways)}."
    return text


def _usage(groups: Sequence[str], env: EnvConfig | None) -> str:
    folder = '"path/to/this/folder"'
    if "policy" not in groups:
        code = f"from robopol.checkpoint import load_part\n\nmodel = load_part({folder}, {groups[0]!r})"
        return f"## How to use it\n\n```python\n{code}\n```"
    load = f"policy = load_policy({folder})"
    if env:
        options = f", **{env.options!r}" if env.options else ""
        lines = [
            "from robopol import evaluate, load_policy, make_env",
            "",
            load,
            f"with make_env({env.id!r}, num_envs=8{options}) as env:",
            "    print(evaluate(policy, env, episodes=100).success_rate)",
        ]
    else:
        lines = [
            "from robopol import load_policy",
            "",
            load,
            "# observations: key -> (batch, time, ...), oldest first",
            "chunks = policy.act(observations)[:, 0]",
        ]
    code = "\n".join(lines)
    shell = "robopol eval checkpoint=path/to/this/folder" + ("" if env else " env=...")
    return f"## How to run it\n\n```bash\n{shell}\n```\n\nor, in Python:\n\n```python\n{code}\n```"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
