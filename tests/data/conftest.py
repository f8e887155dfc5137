from collections.abc import Callable, Sequence

import pytest
import torch

from robopol.data import EpisodeBuilder, Episodes, EpisodesMeta

MakeEpisodes = Callable[..., Episodes]


@pytest.fixture(scope="session")
def make_episodes() -> MakeEpisodes:
    """Random episodes of given lengths; everything that Episodes can hold is used."""

    def make(lengths: Sequence[int], seed: int = 0, images: bool = False, states: bool = False) -> Episodes:
        generator = torch.Generator().manual_seed(seed)
        meta = EpisodesMeta(
            env_id="robopol/Made-v0",
            env_options={"noise": 0.5, "cameras": ["front"]},
            control_hz=20.0,
            action_space="ee_delta",
            action_names=("x", "y"),
            action_low=(-1.0, -1.0),
            action_high=(1.0, 1.0),
            way_names=("left", "right"),
            source_names=("expert", "human"),
            models=("<mujoco/>", "<mujoco model='b'/>") if states else (),
            tasks=("pick the cube", "place it") if states else (),
            versions={"mujoco": "3.3.0", "env": "2"},
        )

        def observation() -> dict[str, torch.Tensor]:
            obs = {"state": torch.randn(3, generator=generator)}
            if images:
                obs["images.front"] = torch.randint(256, (4, 5, 3), generator=generator).to(torch.uint8)
            return obs

        parts = []
        for index, length in enumerate(lengths):
            builder = EpisodeBuilder()
            for step in range(length):
                end = step == length - 1
                builder.add(
                    observation(),
                    torch.randn(2, generator=generator),
                    float(torch.randn((), generator=generator)),
                    terminated=end and index % 3 == 0,
                    truncated=end and index % 3 == 1,
                    source=step % 2,
                    intervention=step % 3 == 0,
                    state=torch.randn(6, generator=generator, dtype=torch.float64) if states else None,
                )
            builder.finish(
                observation() if index % 4 != 2 else None,
                success=index % 2 == 0,
                way=index % 3 - 1,
                seed=1000 + index,
                model=index % 3 - 1 if states else None,
                task=index % 3 - 1 if states else None,
            )
            parts.append(builder.build(meta))
        return Episodes.concat(parts)

    return make


@pytest.fixture
def golden() -> Episodes:
    """The two episodes of the datasets sheet: A, 3 steps that end in a true terminal; B, 2 steps cut off.

    Observations count on: 0, 1, 2 and 3 after the end; 10, 11 and 12 after the cut.
    """
    meta = EpisodesMeta(env_id="Golden-v0")
    parts = []
    for first, length, terminal in ((0, 3, True), (10, 2, False)):
        builder = EpisodeBuilder()
        for step in range(length):
            end = step == length - 1
            builder.add(
                {"state": torch.tensor([float(first + step)])},
                torch.tensor([float(first + step) / 100]),
                float(end and terminal),
                terminated=end and terminal,
                truncated=end and not terminal,
            )
        builder.finish({"state": torch.tensor([float(first + length)])}, success=terminal)
        parts.append(builder.build(meta))
    return Episodes.concat(parts)
