"""Train a policy or a model from recorded episodes or by acting, evaluate what acts, and leave a run folder.

  robopol train env=push policy=diffusion data.demos.uri=demos.hdf5 [key=value ...]

Groups: env, policy, policy/encoder, policy/net, policy/sampler, model, algo, schedule, experiment; `robopol list` names
their choices, `robopol list train` every key.

  robopol train experiment=demo data.demos.uri=demos.hdf5
  robopol train policy=flow policy/net=transformer policy.horizon=16 phases.cloning.updates=5000 ...
  robopol train algo=sac env=gym env.id=Pendulum-v1
  robopol train checkpoint=DIR algo=dppo env=push       make a saved policy better
  robopol train resume=RUN       go on with a run that was stopped or killed

Several GPUs or machines: torchrun --nproc-per-node=4 -m robopol.cli train ... run=RUN; each takes its share of a batch.
"""

import os
import time
from pathlib import Path
from typing import Any

from robopol.config import parse
from robopol.errors import ConfigError
from robopol.training.words import configured


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    resumed = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    if resumed:
        if len(words) > 1:
            raise ConfigError("a resumed run goes on as it was configured: give resume=RUN and nothing else")
        from robopol.training.train import resume

        resume(Path(resumed[0]))
        return 0
    tree = configured(words)
    if "run" not in tree:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("several processes train one run, whose folder they cannot agree on: name it by run=")
        tree["run"] = _name(tree)

    from robopol.training.config import TrainConfig
    from robopol.training.train import train

    train(parse(TrainConfig, tree), words)
    return 0


def _name(tree: dict[str, Any]) -> str:
    """Name a run after its world, its policy or model, and the time."""
    world = str((tree.get("env") or {}).get("id", "data")).split("/")[-1].split("-")[0].lower()
    part = (tree.get("policy") or tree.get("model") or {}).get("kind", "policy")
    return f"runs/{world}-{part}/{time.strftime('%Y%m%d-%H%M%S')}-seed{tree.get('seed', 0)}"
