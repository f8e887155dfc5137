"""The command line: ``robopol VERB key=value ...``; each verb is one file in `robopol.commands`."""

import importlib
import sys

VERBS = {
    "train": "train a policy from demonstrations or by acting: robopol train env=push data.demos.uri=demos.hdf5",
    "sweep": "train many runs and put them together: robopol sweep out=DIR -- seed=0,1,2 env=push ...",
    "eval": "evaluate a checkpoint: robopol eval checkpoint=RUN episodes=100",
    "tune": "search a dial of a steering: robopol tune checkpoint=RUN steering=... over=steering.0.n 'values=[1,4,16]'",
    "steer": "steer a policy by hand in the browser: robopol steer checkpoint=RUN",
    "serve": "let others ask a policy for plans: robopol serve checkpoint=RUN",
    "export": "write a policy for an inference engine: robopol export checkpoint=RUN engine=onnx",
    "deploy": "let a policy move a robot: robopol deploy checkpoint=RUN robot=ur5e_simulated seconds=10",
    "record": "record a person's demonstrations: robopol record robot=NAME operator=keyboard out=demos.hdf5",
    "collect": "record episodes of an expert or a policy: robopol collect env=push out=demos.hdf5 episodes=200",
    "data": "look at, check, convert and merge datasets: robopol data info demos.hdf5",
    "plot": "draw the curves of runs: robopol plot runs=[RUN,RUN] out=curves.png",
    "list": "say what there is to choose from: robopol list, robopol list policy diffusion",
    "doctor": "check this machine: robopol doctor",
}
"""Verb -> one line of help."""


def main() -> None:
    """Run the command line and exit: 0 if all went well, 1 on an error, 2 on a wrong command."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run one command.

    Args:
        words: The verb and what follows it.

    Returns:
        The exit status.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] == "--version":
        from robopol import __version__

        print(__version__)
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        from robopol.registry import nearest

        print(f"robopol: no verb '{verb}'{nearest(verb, VERBS)}\n\n{_help()}", file=sys.stderr)
        return 2
    command = importlib.import_module(f"robopol.commands.{verb}")
    if any(word in ("-h", "--help") for word in rest):
        print(command.__doc__)
        return 0
    from robopol.errors import RobopolError

    try:
        status: int = command.run(rest)
        return status
    except RobopolError as error:
        print(f"robopol {verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"robopol {verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1


def _help() -> str:
    lines = "\n".join(f"  {verb:8} {text}" for verb, text in VERBS.items())
    return (
        f"robopol VERB key=value ...\n\n{lines}\n\nrobopol VERB --help says more; robopol --version says which this is."
    )


if __name__ == "__main__":
    main()
