"""Updates of SAC, TD3 and DDPG are those of Stable-Baselines3: from equal weights, with equal batches and noise."""

import pytest
import torch
from torch import nn

from robopol.config import parse
from robopol.configs import load_config
from robopol.networks.ensemble import EnsembleLinear
from robopol.training.config import TrainConfig
from robopol.training.seeding import generator
from robopol.training.trainer import Trainer

stable_baselines3 = pytest.importorskip("stable_baselines3")
from stable_baselines3.common.logger import configure  # noqa: E402
from stable_baselines3.common.type_aliases import ReplayBufferSamples  # noqa: E402

ROWS, UPDATES = 32, 12


def filled(algo: str) -> Trainer:
    words = [f"algo={algo}", "env=gym", "env.id=Hopper-v5", "phases.online.warmup=400", "run=none"]
    words += ["runtime.threads=1", "runtime.matmul=highest", f"batch_size={ROWS}", "collection.capacity=500"]
    trainer = Trainer(parse(TrainConfig, load_config("train", words)))
    (phase,) = trainer.config.phases.values()
    trainer.collector.begin()
    while trainer.step < 400:
        trainer.advance(phase, 0)
    return trainer


def linear(net: nn.Module) -> list[nn.Linear]:
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


def pairs(agent, algo):
    """Yield every weight of theirs beside ours, of live networks and targets."""
    actor = agent.actor
    body = [*linear(actor.latent_pi), actor.mu, actor.log_std] if hasattr(actor, "latent_pi") else linear(actor.mu)
    mine = linear(algo.policy.net)
    if hasattr(actor, "latent_pi"):  # one last layer says both
        said = mine[-1]
        size = len(said.weight) // 2
        own = [(layer.weight, layer.bias) for layer in mine[:-1]]
        own += [(said.weight[:size], said.bias[:size]), (said.weight[size:], said.bias[size:])]
    else:
        own = [(layer.weight, layer.bias) for layer in mine]
    for layer, (weight, bias) in zip(body, own, strict=True):
        yield layer.weight, weight
        yield layer.bias, bias
    for theirs, ours in ((agent.critic, algo.model), (agent.critic_target, algo.target)):
        heads = [layer for layer in ours.modules() if isinstance(layer, EnsembleLinear)]
        for head, net in enumerate(theirs.q_networks):
            for layer, several in zip(linear(net), heads, strict=True):
                yield layer.weight, several.weight[head].t()
                yield layer.bias, several.bias[head, 0]
    if not hasattr(actor, "latent_pi"):
        for layer, own_layer in zip(linear(agent.actor_target.mu), linear(algo.target_policy.net), strict=True):
            yield layer.weight, own_layer.weight
            yield layer.bias, own_layer.bias


@pytest.mark.parametrize("name", ["sac", "td3", "ddpg"])
def test_updates_are_the_peers(name, monkeypatch):
    trainer = filled(name)
    algo, (phase,) = trainer.algo, trainer.config.phases.values()
    more = {"action_noise": None} if name != "sac" else {}
    agent = getattr(stable_baselines3, name.upper())(
        "MlpPolicy",
        "Hopper-v5",
        policy_kwargs={"net_arch": [256, 256]},
        learning_rate=3e-4,
        batch_size=ROWS,
        device="cpu",
        **more,
    )
    agent.set_logger(configure(None, []))
    with torch.no_grad():
        for theirs, ours in pairs(agent, algo):
            theirs.copy_(ours)
        begun = [ours.clone() for _, ours in pairs(agent, algo)]
    noise = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(7))
    monkeypatch.setattr("torch.distributions.normal._standard_normal", lambda *_, **__: noise)
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, mean, std: self.copy_(mean + std * noise))
    ours = "robopol.policies.squashed_gaussian.standard_normal"
    monkeypatch.setattr(ours, lambda shape, *_: noise.view(shape))
    monkeypatch.setattr(torch, "randn", lambda shape, **_: noise.view(shape))

    class Given:
        def sample(self, *_, **__):
            return rows

    agent.replay_buffer = Given()
    for update in range(UPDATES):
        batch = trainer.sources.batch(phase.sources, ROWS, update)
        obs, after = (batch[key]["state"][:, 0] for key in ("obs", "next_obs"))
        ended = (batch["discount"] == 0).float()[:, None]
        rows = ReplayBufferSamples(obs, batch["action"][:, 0], after, ended, batch["reward"][:, None], None)
        algo.update(batch, update, generator(trainer.device, 0, "update", update))
        agent.train(1, ROWS)
    with torch.no_grad():
        for number, ((theirs, ours), before) in enumerate(zip(pairs(agent, algo), begun, strict=True)):
            moved = (ours - before).norm()
            assert moved > 1e-6, number
            assert (ours - theirs).norm() < 2e-3 * moved, number  # the peer adds 1e-6 within a logarithm
    if name == "sac":
        torch.testing.assert_close(algo.log_alpha.detach(), agent.log_ent_coef.detach()[0], atol=1e-6, rtol=1e-4)
