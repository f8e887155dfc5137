"""Datasets by name: from a server of our own, with all that can go wrong on the way."""

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np
import pytest

from robopol.data import load_episodes, save_episodes
from robopol.data.download import cache_dir, download
from robopol.data.load import FORMATS
from robopol.data.sources import BASES, is_id
from robopol.errors import DataError

TREE = "/api/datasets/{}/tree/main{}?recursive=true"
RESOLVE = "/datasets/{}/resolve/main/{}"


class Server:
    """Answers with what its pages say: path -> bytes, or (status, headers, bytes)."""

    def __init__(self):
        self.pages, self.asked = {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append((self.command, self.path))
                page = server.pages.get(self.path, (404, {}, b"no"))
                status, headers, body = page if isinstance(page, tuple) else (200, {}, page)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.bases = dict.fromkeys(BASES, self.url)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def hub(self, repository, files, folder="", large=()):
        """Serve a dataset repository as the Hugging Face hub does."""
        items = [{"type": "directory", "path": "some", "oid": "0", "size": 0}]
        for path, body in files.items():
            item = {"type": "file", "path": path, "size": len(body)}
            item["oid"] = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            if path in large:
                item["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 1}
            items.append(item)
            self.pages[RESOLVE.format(repository, path)] = body
        self.pages[TREE.format(repository, folder)] = json.dumps(items).encode()

    def close(self):
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBOPOL_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def left(cache):
    return [path for path in cache.rglob("*") if path.is_file() or path.name.startswith(".")]


def test_every_source_is_a_format_and_https():
    assert BASES.keys() <= FORMATS.keys()
    assert all(base.startswith("https://") for base in BASES.values())


def test_places_are_those_of_the_tools_themselves():
    assert BASES["ogbench"] == pytest.importorskip("ogbench.utils").DATASET_URL
    assert pytest.importorskip("minari.storage.remotes").DEFAULT_REMOTE == "hf://farama-minari"
    for task, types in pytest.importorskip("robomimic").DATASET_REGISTRY.items():
        for kind, files in types.items():
            for name, told in files.items():
                if told["url"] and "real" not in task:  # those of real robots have never moved to the hub
                    assert is_id("robomimic", f"{task}/{kind}/{name}")
                    assert told["url"].endswith(f"/{task}/{kind}/{'demo' if name == 'raw' else name}_v141.hdf5")


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("d4rl", "hopper-medium-v2", True),
        ("d4rl", "hopper.hdf5", False),
        ("ogbench", "cube-single-play-v0-val", True),
        ("minari", "mujoco/hopper/medium-v0", True),
        ("minari", "../hopper-v0", False),
        ("minari", "/data/hopper-v0", False),
        ("robomimic", "lift/ph/low_dim", True),
        ("robomimic", "lift.hdf5", False),
        ("lerobot", "lerobot/pusht", True),
        ("lerobot", "lerobot/..", False),
        ("lerobot", "/data/pusht", False),
        ("arrays", "pusht", False),
    ],
)
def test_a_name_is_not_a_path(source, name, expected):
    assert is_id(source, name) == expected


def test_single_files_come_once(server, cache, capsys):
    server.pages["/gym_mujoco_v2/hopper_medium_expert-v2.hdf5"] = b"data" * 1000
    path = download("d4rl", "hopper-medium-expert-v2", bases=server.bases)
    assert path == cache / "d4rl/hopper-medium-expert-v2/hopper-medium-expert-v2.hdf5"
    assert path.read_bytes() == b"data" * 1000
    assert "1 files, 0.0 MB" in capsys.readouterr().err
    asked = len(server.asked)
    assert download("d4rl", "hopper-medium-expert-v2", bases=server.bases) == path
    assert len(server.asked) == asked
    server.pages["/cube-single-play-v0-val.npz"] = b"npz"
    assert download("ogbench", "cube-single-play-v0-val", bases=server.bases).read_bytes() == b"npz"


def test_folders_come_whole_and_verified(server, cache):
    files = {"hopper/medium-v0/data/main_data.hdf5": b"large", "hopper/medium-v0/data/metadata.json": b"{}"}
    server.hub("farama-minari/mujoco", files, "/hopper/medium-v0", large=["hopper/medium-v0/data/main_data.hdf5"])
    path = download("minari", "mujoco/hopper/medium-v0", bases=server.bases)
    assert path == cache / "minari/mujoco/hopper/medium-v0"
    assert (path / "data/main_data.hdf5").read_bytes() == b"large"
    assert (path / "data/metadata.json").read_bytes() == b"{}"
    server.hub("someone/pusht", {"meta/info.json": b"{}", "data/a b.parquet": b"x"})
    server.pages[RESOLVE.format("someone/pusht", "data/a%20b.parquet")] = b"x"
    assert (download("lerobot", "someone/pusht", bases=server.bases) / "data/a b.parquet").read_bytes() == b"x"


def test_long_lists_go_on_over_pages(server):
    server.hub("a/b", {"one": b"1", "two": b"2"})
    first = TREE.format("a/b", "")
    items = json.loads(server.pages[first])
    more = f"{server.url}{first}&cursor=x"
    server.pages[first] = (200, {"Link": f'<{more}>; rel="next"'}, json.dumps(items[:2]).encode())
    server.pages[f"{first}&cursor=x"] = json.dumps(items[2:]).encode()
    path = download("lerobot", "a/b", bases=server.bases)
    assert sorted(p.name for p in path.iterdir()) == ["one", "two"]
    server.pages[first] = (200, {"Link": '<http://elsewhere/x>; rel="next"'}, json.dumps(items[:2]).encode())
    server.pages[first.replace("a/b", "a/c")] = server.pages[first]
    with pytest.raises(DataError, match="not the same list"):
        download("lerobot", "a/c", bases=server.bases)


def test_robomimic_files_are_found_by_their_release(server, cache):
    body = b"hdf5"
    server.hub("robomimic/robomimic_datasets", {"v1.5/lift/ph/low_dim_v15.hdf5": body}, "/v1.5/lift/ph")
    assert download("robomimic", "lift/ph/low_dim", bases=server.bases).read_bytes() == body
    with pytest.raises(DataError, match=r"no image_v15.hdf5; it has low_dim_v15.hdf5"):
        download("robomimic", "lift/ph/image", bases=server.bases)


def broken(server):
    """Name -> (a page that is wrong, what the error says)."""
    hub = RESOLVE.format("a/b", "x")
    digest = hashlib.sha1(b"blob 4\0good").hexdigest()
    tree = [{"type": "file", "path": "x", "size": 4, "oid": digest}]
    escaping = [{"type": "file", "path": "../x", "size": 4, "oid": digest}]
    return {
        "cut": ({hub: b"goo"}, "3 bytes came, 4 were announced", tree),
        "cut by the network": ({hub: (200, {"Content-Length": "4"}, b"go")}, "2 bytes came", tree),
        "too much": ({hub: b"good and more"}, "more than 13 bytes came", tree),
        "altered": ({hub: b"evil"}, "checksum", tree),
        "gone": ({}, r"no such file \(404\)", tree),
        "gated": ({hub: (401, {}, b"")}, "asks you to log in", tree),
        "broken server": ({hub: (500, {}, b"")}, "500", tree),
        "redirected to a file": ({hub: (302, {"Location": "file:///etc/passwd"}, b"")}, "not allowed", tree),
        "redirected elsewhere": ({hub: (302, {"Location": "http://127.0.0.1:9/x"}, b"")}, "not https", tree),
        "escaping": ({}, "does not stay", escaping),
        "absolute": ({}, "does not stay", [escaping[0] | {"path": "/tmp/x"}]),
        "hidden in backslashes": ({}, "does not stay", [escaping[0] | {"path": r"..\x"}]),
        "not a list": ({}, "not a list of files", {"error": "?"}),
        "without names": ({}, "not a list of files", [{"type": "file"}]),
        "empty": ({}, "has no files", []),
    }


@pytest.mark.parametrize("fault", broken(None))
def test_nothing_broken_stays(fault, server, cache):
    pages, message, tree = broken(server)[fault]
    server.pages = pages | {TREE.format("a/b", ""): json.dumps(tree).encode()}
    with pytest.raises(DataError, match=message) as error:
        download("lerobot", "a/b", bases=server.bases)
    assert "lerobot:/path/to/it" in str(error.value)
    assert left(cache) == []


def test_a_transfer_of_unknown_length_is_refused(server):
    server.pages["/x-v0.npz"] = (200, {"Content-Length": None}, b"some")
    with pytest.raises(DataError, match="how long"):
        download("ogbench", "x-v0", bases=server.bases)


def test_same_host_redirects_are_followed(server):
    server.pages["/x-v0.npz"] = (302, {"Location": "/moved.npz"}, b"")
    server.pages["/moved.npz"] = b"moved"
    assert download("ogbench", "x-v0", bases=server.bases).read_bytes() == b"moved"


def archive(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, body in members.items():
            file.writestr(name, body)
    return out.getvalue()


def test_archives_are_unpacked_inside_their_folder(server, cache):
    inside = "pusht/pusht_cchi_v7_replay.zarr/"
    server.pages["/pusht.zip"] = archive({f"{inside}.zgroup": b"{}", f"{inside}data/action/0.0": b"x"})
    path = download("zarr", "pusht", bases=server.bases)
    assert (path / "data/action/0.0").read_bytes() == b"x"
    assert [p.name for p in path.parent.parent.iterdir()] == ["pusht"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../x": b"x"}, "does not stay"),
        ({"/tmp/robopol-x": b"x"}, "does not stay"),
        ({"pusht/zeros": bytes(10**6)}, "are allowed"),
        ({"other": b"x"}, "there is no pusht/"),
    ],
)
def test_archives_that_misbehave_are_refused(members, message, server, cache):
    server.pages["/pusht.zip"] = archive(members)
    with pytest.raises(DataError, match=message):
        download("zarr", "pusht", bases=server.bases)
    assert left(cache) == []
    server.pages["/pusht.zip"] = b"no archive"
    with pytest.raises(DataError, match="not a zip file"):
        download("zarr", "pusht", bases=server.bases)


def test_without_a_network_one_error_says_what_to_do(server, cache):
    server.close()
    with pytest.raises(DataError) as error:
        download("d4rl", "hopper-medium-v2", bases=server.bases)
    text = str(error.value)
    for part in ("refused", str(cache / "d4rl/hopper-medium-v2"), "d4rl:/path/to/it", f"{server.url}/gym_mujoco_v2"):
        assert part in text


def test_unknown_names_get_the_nearest(server):
    with pytest.raises(DataError, match="did you mean hopper-medium-v2"):
        download("d4rl", "hoper-medium-v2", bases=server.bases)


def test_a_local_path_wins_over_a_name(golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lift/ph").mkdir(parents=True)
    save_episodes(golden, "robomimic:lift/ph/low_dim")
    assert load_episodes("robomimic:lift/ph/low_dim").equal(golden)


def test_a_downloaded_dataset_is_read(golden, tmp_path, server, monkeypatch):
    save_episodes(golden, tmp_path / "low_dim.hdf5")
    body = (tmp_path / "low_dim.hdf5").read_bytes()
    server.hub("robomimic/robomimic_datasets", {"v1.5/lift/ph/low_dim_v15.hdf5": body}, "/v1.5/lift/ph")
    monkeypatch.setitem(BASES, "robomimic", server.url)
    assert load_episodes("robomimic:lift/ph/low_dim").equal(golden)
    assert cache_dir() == tmp_path / "cache"


def test_a_d4rl_name_says_the_environment(server, monkeypatch, tmp_path):
    with h5py.File(tmp_path / "file.hdf5", "w") as file:
        for name, shape in {"observations": (4, 3), "actions": (4, 2), "rewards": (4,)}.items():
            file[name] = np.ones(shape, np.float32)
        file["terminals"], file["timeouts"] = np.zeros(4, bool), np.array([0, 1, 0, 1], bool)
    server.pages["/gym_mujoco_v2/hopper_medium-v2.hdf5"] = (tmp_path / "file.hdf5").read_bytes()
    monkeypatch.setitem(BASES, "d4rl", server.url)
    episodes = load_episodes("d4rl:hopper-medium-v2")
    assert episodes.meta.env_id == "hopper-medium-v2"
    assert len(episodes) == 2
    assert load_episodes("d4rl:hopper-medium-v2?env=Hopper-v2").meta.env_id == "Hopper-v2"


def test_what_minari_has_downloaded_is_not_downloaded_again(golden, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    save_episodes(golden, f"minari:{tmp_path}/mujoco/golden-v0")
    for cache in (None, tmp_path / "cache"):
        assert load_episodes("minari:mujoco/golden-v0", cache=cache).num_steps == golden.num_steps
