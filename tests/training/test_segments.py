"""A replay that is saved in parts: any history comes back, nothing is written twice, nothing is kept for nobody."""

import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robopol import files
from robopol.algos.algorithm import by_owner, owned
from robopol.data.replay import ReplayBuffer
from robopol.errors import CheckpointError
from robopol.training.run import RunFolder
from robopol.training.segments import Segments

ACTS = st.one_of(st.integers(1, 9), st.sampled_from(["save", "save", "kill", "lose the newest"]))


def buffer(capacity: int) -> ReplayBuffer:
    return ReplayBuffer(capacity, {"state": (2,)}, 1)


def add(replay: ReplayBuffer, first: int, count: int) -> None:
    number = torch.arange(first, first + count).float()
    state = {"state": number[:, None].expand(-1, 2)}
    replay.add(state, number[:, None], -number, number % 2 == 0, number % 3 == 0, state)


def save(run: RunFolder, step: int, segments: Segments, keep: int = 2) -> None:
    run.save(step, {}, owned("replay", segments.rest()), {}, keep, segments.complete())


def written(run: RunFolder) -> dict[str, tuple[int, int]]:
    return {file.name: (file.stat().st_ino, file.stat().st_size) for file in (run.path / "segments").glob("*")}


def equal(one: ReplayBuffer, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in one.state().items())


@settings(max_examples=25)
@given(st.integers(1, 25), st.integers(1, 8), st.integers(1, 3), st.lists(ACTS, min_size=4, max_size=30))
def test_any_history_comes_back_as_it_was_saved(capacity, size, keep, acts):
    """After a kill, in a folder that was moved, and from the checkpoint before a lost one, with other transitions."""
    step = number = 0
    saved: dict[int, dict[str, torch.Tensor]] = {}
    segments = Segments(buffer(capacity), size)
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_sync", lambda path: None)
        run = RunFolder.create(Path(place) / "run 0", {})
        for turn, act in enumerate(acts):
            if isinstance(act, int):
                add(segments.replay, number, min(act, capacity))
                number += min(act, capacity)
            elif act == "save":
                step, before = step + 1, written(run)
                save(run, step, segments, keep)
                saved[step] = {name: value.clone() for name, value in segments.replay.state().items()}
                after = written(run)
                assert all(after[name] == before[name] for name in after.keys() & before.keys())
            else:
                steps = run.steps()
                if act == "lose the newest" and steps:
                    shutil.rmtree(run.checkpoint(steps[-1]))
                run = RunFolder.open(run.path.rename(run.path.with_name(f"run {turn + 1}")))
                found, segments = run.latest(), Segments(buffer(capacity), size)
                if found is not None:
                    segments.load(by_owner(found.state)["replay"], found.segments)
                    assert equal(segments.replay, saved[found.step])
            for kept in run.steps():
                needed = run._shared(kept)
                assert len(needed) <= -(-capacity // size) + 1
                assert {f"{name}.safetensors" for name in needed} <= written(run).keys()
            if act != "kill" and not isinstance(act, int):
                assert len(written(run)) == len({name for kept in run.steps() for name in run._shared(kept)})


def test_a_save_writes_what_is_new_alone(tmp_path):
    run, segments = RunFolder.create(tmp_path / "run", {}), Segments(buffer(1000), 10)
    for step in range(1, 6):
        add(segments.replay, 105 * step, 105)
        before = written(run)
        save(run, step, segments)
        assert 10 <= len(written(run).keys() - before.keys()) <= 11
        assert len(run.latest().state["replay.newest"]) == step * 105 % 10
    assert len(written(run)) == 52


@pytest.mark.parametrize("harm", ["cut", "gone", "other"])
def test_a_damaged_segment_is_named_with_advice(tmp_path, harm):
    run, segments = RunFolder.create(tmp_path / "run", {}), Segments(buffer(20), 4)
    for step in (1, 2):
        add(segments.replay, 9 * step, 9)
        save(run, step, segments)
    file = run.path / "segments" / "replay-00000001.safetensors"
    if harm == "gone":
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[:-3] if harm == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    found = run.latest()
    with pytest.raises(CheckpointError, match=rf"{file}.* restore it, or delete {run.checkpoint(2)} .*step 1"):
        Segments(buffer(20), 4).load(by_owner(found.state)["replay"], found.segments)


def test_what_lacks_a_part_or_is_of_another_time_is_refused_in_words():
    segments = Segments(buffer(20), 4)
    add(segments.replay, 0, 9)
    complete = segments.complete()
    del complete["replay-00000001"]
    with pytest.raises(CheckpointError, match="lacks transitions 4 to 8 of the replay"):
        Segments(buffer(20), 4).load(segments.rest(), complete)
    with pytest.raises(CheckpointError, match="saved by an earlier robopol"):
        Segments(buffer(20), 4).load(segments.replay.state(), {})
