"""Small files of every format, written with the tools that write the real ones.

All hold the two golden episodes of `conftest.golden`: A, 3 steps that end in a true terminal, and B, 2 steps cut
off; observations count 0, 1, 2 (then 3) and 10, 11 (then 12), actions are a hundredth of them.
"""

import json
import os
import shutil
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest

A, B = np.arange(0.0, 4.0), np.arange(10.0, 13.0)


def rows(episodes=(A, B)) -> dict[str, np.ndarray]:
    """Columns of the steps, episode after episode; A is terminal and pays 1 in its last row, B is cut."""
    last = [np.arange(len(e) - 1) == len(e) - 2 for e in episodes]
    ended = np.concatenate([part & (e is A) for part, e in zip(last, episodes, strict=True)])
    return {
        "obs": np.concatenate([e[:-1] for e in episodes])[:, None],
        "next": np.concatenate([e[1:] for e in episodes])[:, None],
        "terminal": ended,
        "cut": np.concatenate(last) & ~ended,
        "reward": ended.astype(np.float32),
    }


def d4rl(path: Path, episodes=(A, B), following=False, **changed) -> Path:
    """D4RL HDF5; ``changed`` replaces datasets by name, None leaves one out."""
    columns = rows(episodes)
    obs = columns["obs"].astype(np.float32)
    data = {
        "observations": obs,
        "actions": obs / 100,
        "rewards": columns["reward"],
        "terminals": columns["terminal"],
        "timeouts": columns["cut"],
        "next_observations": columns["next"].astype(np.float32) if following else None,
    }
    with h5py.File(path, "w") as file:
        for name, value in (data | changed).items():
            if value is not None:
                file.create_dataset(name, data=value, compression="gzip", fletcher32=True)
        file["metadata/algorithm"] = np.bytes_("SAC")
    return path


def robomimic(path: Path, done_mode=0) -> Path:
    """robomimic HDF5 as its own extraction script writes it."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = 5
        # Of fixed length, unlike the real ones: the HDF5 library may loop over damaged texts of variable length.
        data.attrs["env_args"] = np.bytes_(json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}}))
        for index, counted in enumerate((A, B)):
            demo = data.create_group(f"demo_{index}")
            columns = rows([counted])
            demo.attrs["num_samples"] = len(columns["obs"])
            demo["actions"] = columns["obs"] / 100
            demo["rewards"] = columns["reward"]
            ends = columns["terminal"] | columns["cut"]
            demo["dones"] = [columns["terminal"], ends, ends][done_mode].astype(int)
            demo["obs/state"], demo["next_obs/state"] = columns["obs"], columns["next"]
    return path


def ogbench(path: Path, **changed) -> Path:
    """Raw OGBench npz: T + 1 rows a trajectory."""
    counted = np.concatenate([A, B])
    data = {
        "observations": counted[:, None].astype(np.float32),
        "actions": (counted[:, None] / 100).astype(np.float32),
        "terminals": np.isin(counted, (3, 12)).astype(np.float32),
    }
    np.savez_compressed(path, **{name: value for name, value in (data | changed).items() if value is not None})
    return path


def dppo(folder: Path, ended=True, scaled=True, **changed) -> Path:
    """DPPO folder, with DPPO's own scaling."""
    columns = rows()
    obs, action = columns["obs"], columns["obs"] / 100
    bounds = {
        f"{name}_{f}": getattr(np, f)(x, axis=0)
        for name, x in (("obs", obs), ("action", action))
        for f in ("min", "max")
    }
    if scaled:
        obs, action = (
            2 * (x - bounds[f"{name}_min"]) / (bounds[f"{name}_max"] - bounds[f"{name}_min"] + 1e-6) - 1
            for name, x in (("obs", obs), ("action", action))
        )
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "normalization.npz", **bounds)
    data = {
        "states": obs,
        "actions": action,
        "rewards": columns["reward"],
        "terminals": columns["terminal"] & ended,
        "traj_lengths": np.array([3, 2]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "train.npz", **{k: v for k, v in (data | changed).items() if v is not None})
    return folder


def zarr(path: Path, zarr_format=2, packed=True, compressor="default", **changed) -> Path:
    """diffusion_policy Zarr, a folder or (``.zip``) an archive; ``changed`` replaces arrays of ``data``."""
    import numcodecs
    import zarr as library

    columns = rows()
    data = {"state": columns["obs"], "action": (columns["obs"] / 100).astype(np.float32)} | changed
    if compressor == "default":
        compressor = numcodecs.Blosc("lz4", 5, numcodecs.Blosc.NOSHUFFLE) if zarr_format == 2 else "auto"
    store = library.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else str(path)
    group = library.open_group(store, mode="w", zarr_format=zarr_format)
    ends = data.pop("episode_ends", np.array([3, 5]))
    every = {f"data/{name}": value for name, value in data.items()} | {"meta/episode_ends": ends}
    for name, value in every.items():
        if value is not None:
            group.create_array(
                name,
                data=value,
                chunks=(2, *value.shape[1:]),
                compressors=compressor,
                config={"write_empty_chunks": packed},
            )
    if path.suffix == ".zip":
        store.close()
    return path


def minari(path: Path, data_format="hdf5", jpeg=True) -> Path:
    """Minari dataset as Minari itself writes it, with a camera."""
    library = pytest.importorskip("minari")
    import gymnasium as gym
    from minari.data_collector import EpisodeBuffer

    observation = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    camera = gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)
    buffers = []
    for counted in (A, B):
        columns = rows([counted])
        images = np.broadcast_to(counted[:, None, None, None], (len(counted), 32, 32, 3)).astype(np.uint8)
        buffers.append(
            EpisodeBuffer(
                observations={"observation": counted[:, None].astype(np.float32), "camera": images},
                actions=(columns["obs"] / 100).astype(np.float32),
                rewards=columns["reward"],
                terminations=columns["terminal"],
                truncations=columns["cut"],
                infos={"success": np.r_[False, columns["terminal"]]},
            )
        )
    with mock.patch.dict(os.environ, {"MINARI_DATASETS_PATH": str(path.parent)}):
        library.create_dataset_from_buffers(
            path.name,
            buffers,
            observation_space=gym.spaces.Dict({"observation": observation, "camera": camera}),
            action_space=gym.spaces.Box(-1, 1, (1,), np.float32),
            data_format=data_format,
            jpeg_encoding=jpeg,
        )
    return path


def runs(path: Path, table, rows: int) -> None:
    """Write a Parquet file of the first row again and again, whose pages declare fifty times as many as the footer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(table.take(pa.array(np.zeros(rows, np.int64))), path, row_group_size=rows, write_statistics=False)
    # num_values, a field of type 5 with the number 1: 20,000 (the usual page) becomes 1,048,575
    path.write_bytes(path.read_bytes().replace(b"\x15\xc0\xb8\x02", b"\x15\xfe\xff\x7f"))


def lerobot_v21(root: Path) -> Path:
    """Turn a dataset of layout v3.0 with one video, ``front``, into one of v2.1: an episode a file, lists of JSON."""
    import av
    import pyarrow.parquet as pq

    data_file, episodes_file = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
    camera = "observation.images.front"
    info = json.loads((root / "meta/info.json").read_text())
    height, width, _ = info["features"][camera]["shape"]
    table = pq.read_table(root / data_file)
    with av.open(str(root / f"videos/{camera}/chunk-000/file-000.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    lines = []
    for row in pq.read_table(root / episodes_file).to_pylist():
        index, part = row["episode_index"], slice(row["dataset_from_index"], row["dataset_to_index"])
        lines.append({"episode_index": index, "tasks": row["tasks"], "length": row["length"]})
        data = root / f"data/chunk-{index // 2:03d}/episode_{index:06d}.parquet"
        data.parent.mkdir(exist_ok=True)
        pq.write_table(table.slice(part.start, row["length"]), data)
        video = root / f"videos/chunk-{index // 2:03d}/{camera}/episode_{index:06d}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(video), "w") as container:
            stream = container.add_stream("libx264", rate=20, options={"crf": "10"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for frame in frames[part]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    tasks = pq.read_table(root / "meta/tasks.parquet").to_pylist()
    for name, entries in (("episodes", lines), ("tasks", tasks)):
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    shutil.rmtree(root / f"videos/{camera}")
    for name in (data_file, episodes_file, "meta/tasks.parquet"):
        (root / name).unlink()
    info |= {
        "codebase_version": "v2.1",
        "chunks_size": 2,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    return root
