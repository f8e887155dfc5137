"""Arrays on disk, and the cache that converts to them."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robopol.data import Windows, load_episodes, save_episodes
from robopol.data import image_columns as columns
from robopol.data.formats import arrays
from robopol.data.image_columns import columns_in_files, columns_in_memory, image_column
from robopol.errors import DataError

IMAGE = "obs.images.front.npy"


def in_a_file(tensor: torch.Tensor) -> bool:
    """Whether a tensor's memory is a map of a file, as the system sees it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= tensor.data_ptr() < high:
            return line.endswith(".npy")
    return False


linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux where memory lies")


@pytest.mark.parametrize("images", [False, True])
def test_what_is_written_reads_back_exactly(make_episodes, tmp_path, images):
    episodes = make_episodes([3, 5, 1, 9], images=images, states=True)
    save_episodes(episodes, f"arrays:{tmp_path / 'data'}")
    read = load_episodes(f"arrays:{tmp_path / 'data'}")
    assert read.equal(episodes)
    save_episodes(read, f"arrays:{tmp_path / 'again'}")
    for file in (tmp_path / "data").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    save_episodes(read, f"arrays:{tmp_path / 'data'}")  # onto the files it is mapped from
    assert load_episodes(f"arrays:{tmp_path / 'data'}").equal(episodes)


@linux
def test_images_stay_in_their_files_and_nothing_else_does(make_episodes, tmp_path):
    save_episodes(make_episodes([3, 40], images=True, states=True), f"arrays:{tmp_path / 'data'}")
    read = load_episodes(f"arrays:{tmp_path / 'data'}")
    for name, column in (read.step_columns() | read.episode_columns()).items():
        assert in_a_file(column) == ("images" in name), name
    windows = Windows(read, 2, 8)
    assert in_a_file(windows.only(torch.tensor([1]))._images["images.front"])
    assert not in_a_file(windows.gather(torch.tensor([0, 1]))["obs"]["images.front"])


def _header(file: Path) -> None:
    array = np.load(file)
    np.lib.format.open_memmap(file.with_name("big.npy"), "w+", array.dtype, (1000, *array.shape[1:]))
    header = file.with_name("big.npy").read_bytes()[:128]
    file.with_name("big.npy").unlink()
    file.write_bytes(header + file.read_bytes()[128:])


def _tree(**changes):
    def change(folder):
        file = folder / "meta.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


DAMAGE = {
    "version": (_tree(version=9), "version 9"),
    "no columns": (_tree(columns={}), "missing"),
    "outside": (_tree(columns={"../../etc/passwd": ["float32", [3]]}), "passwd"),
    "not json": (lambda f: (f / "meta.json").write_text("{"), "Expecting"),
    "no meta": (lambda f: (f / "meta.json").unlink(), "not a folder of arrays"),
    "missing": (lambda f: (f / "action.npy").unlink(), "action"),
    "cut": (lambda f: os.truncate(f / IMAGE, (f / IMAGE).stat().st_size - 5), "mmap length"),
    "grown": (lambda f: _header(f / IMAGE), "mmap length"),
    "pickle": (lambda f: np.save(f / "action.npy", np.array([{}], object), allow_pickle=True), "[Oo]bject"),
    "shape": (lambda f: np.save(f / "action.npy", np.zeros((2, 2), np.float32)), "meta.json says"),
    "type": (lambda f: np.save(f / "reward.npy", np.zeros(8)), "float64"),
    "not finite": (lambda f: np.save(f / "reward.npy", np.full(8, np.nan, np.float32)), "not finite"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_folders_are_refused_in_words(make_episodes, tmp_path, name):
    damage, words = DAMAGE[name]
    folder = tmp_path / "data"
    save_episodes(make_episodes([3, 5], images=True), f"arrays:{folder}")
    load_episodes(f"arrays:{folder}")
    damage(folder)
    with pytest.raises(DataError, match=words):
        load_episodes(f"arrays:{folder}")


def test_nothing_else_is_overwritten(make_episodes, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="not a dataset"):
        save_episodes(make_episodes([3]), f"arrays:{tmp_path}")
    with pytest.raises(DataError, match="at least one episode"):
        save_episodes(make_episodes([3]).select([]), f"arrays:{tmp_path / 'data'}")
    assert not (tmp_path / "data").exists()


@pytest.fixture
def demos(make_episodes, tmp_path) -> Path:
    save_episodes(make_episodes([6, 30, 4], images=True), tmp_path / "demos.hdf5")
    return tmp_path / "demos.hdf5"


def test_the_cache_converts_once_and_again_when_anything_changed(demos, tmp_path, make_episodes):
    cache = tmp_path / "cache"

    def converted() -> int:
        return len([path for path in cache.iterdir() if path.is_dir()])

    plain = load_episodes(demos)
    assert load_episodes(demos, cache=cache).equal(plain)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    assert load_episodes(demos, cache=cache).equal(plain)
    assert before == {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    assert converted() == 1
    with pytest.raises(DataError, match="valid"):
        load_episodes(demos, cache=cache, filter="valid")
    assert converted() == 1
    assert load_episodes(f"{demos}?state=state", cache=cache).equal(plain)
    assert converted() == 2
    os.utime(demos, ns=(1, 1))
    assert load_episodes(demos, cache=cache).equal(plain)
    assert converted() == 3
    save_episodes(make_episodes([6, 30, 5], images=True), demos)
    assert load_episodes(demos, cache=cache).lengths.tolist() == [6, 30, 5]
    with pytest.raises(DataError, match="nowhere"):
        load_episodes(tmp_path / "nowhere.hdf5", cache=cache)
    assert not list(cache.glob(".incomplete*"))
    assert {path.name for path in cache.rglob("column-*")} == set()


def test_two_that_start_together_convert_once(demos, tmp_path, monkeypatch):
    puts, put = [], arrays.put
    monkeypatch.setattr(arrays, "put", lambda *args: (time.sleep(0.2), puts.append(args), put(*args)))
    with ThreadPoolExecutor(2) as pool:  # a lock of the file system, which also holds between threads
        both = [pool.submit(load_episodes, demos, cache=tmp_path / "cache") for _ in range(2)]
    assert both[0].result().equal(both[1].result())
    assert len(puts) == 1


@linux
def test_readers_put_images_into_the_cache_without_a_copy_in_memory(demos, tmp_path, monkeypatch):
    given, put = [], arrays.put
    monkeypatch.setattr(arrays, "put", lambda *args: (given.append(args), put(*args)))
    load_episodes(demos, cache=tmp_path / "cache")
    (episodes, _, files) = given[0]
    columns = (episodes.obs["images.front"], episodes.final_obs["images.front"])
    assert list(files) == [column.data_ptr() for column in columns]


def test_images_that_do_not_fit_into_memory_are_refused_in_words(monkeypatch, tmp_path, demos):
    monkeypatch.setattr(columns, "free_memory", lambda: 1000)
    with pytest.raises(DataError, match="cache=FOLDER"):
        load_episodes(demos)
    assert load_episodes(demos, cache=tmp_path / "cache").num_steps == 40
    with columns_in_memory():
        image_column((5, 10, 4, 3))
        with pytest.raises(DataError, match="do not fit"):
            image_column((5, 10, 4, 3))  # only together
    with columns_in_files(tmp_path):
        assert image_column((5, 100, 4, 3)).shape == (5, 100, 4, 3)


LIMITED = """
import resource, h5py, torch
from robopol.data import Windows, load_episodes
from robopol.data.draws import batch_indices
from robopol.data.episodes import split_indices
used = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
limit = int(used.split()[1]) * 1024 + {spare}
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
episodes = load_episodes({uri!r}, cache={cache!r})
images = episodes.obs["images.front"]
assert 0.8 * images.nbytes > {spare}, images.nbytes
train, held_out = split_indices(len(episodes), 0.2, 0)
windows = Windows(episodes, 2, 8)
total = 0
for part in (windows.only(train), windows.only(held_out)):
    for step in range(len(part) // 8 + 1):
        batch = part.gather(batch_indices(len(part), step, 8, 0))
        total += int(batch["obs"]["images.front"].max())
try:
    torch.empty({spare} + 2**20, dtype=torch.uint8)
except RuntimeError:
    print("trained", total > 0)
"""


@linux
def test_images_larger_than_the_memory_that_is_allowed(tmp_path, make_episodes):
    """Converted, split and trained on with less memory than they take; the limit itself is seen to hold."""
    episodes = make_episodes([40] * 10)
    images = torch.arange(400).to(torch.uint8).repeat_interleave(256 * 512 * 3).view(400, 256, 512, 3)  # 157 MB
    episodes = replace(
        episodes,
        obs=episodes.obs | {"images.front": images},
        final_obs={
            "state": torch.zeros(10, 3),
            "images.front": torch.zeros(10, 256, 512, 3, dtype=torch.uint8),
        },
        has_final=torch.zeros(10, dtype=torch.bool),
    )
    save_episodes(episodes, tmp_path / "demos.hdf5")
    code = LIMITED.format(uri=str(tmp_path / "demos.hdf5"), cache=str(tmp_path / "cache"), spare=100 * 2**20)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip() == "trained True", done.stderr
