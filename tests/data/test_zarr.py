import itertools
import json
import os
import zipfile

import dataset_files as files
import numpy as np
import pytest
import torch

from robopol.data import Windows, load_episodes
from robopol.data.formats import zarr_codecs
from robopol.data.formats.zarr_store import ZarrStore
from robopol.errors import DataError, DataWarning, MissingExtraError

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")


def load(path, **options):
    return load_episodes(f"zarr:{path}", **{"ends": "truncated"} | options)


IMAGES = np.random.default_rng(0).integers(256, size=(5, 4, 6, 3))
KEYPOINTS = np.random.default_rng(1).normal(size=(5, 3, 2))


def test_losses_are_named_once(tmp_path):
    path = files.zarr(tmp_path / "f.zarr", state=np.full((5, 1), 0.1))
    zarr.open_group(str(path)).create_array("meta/names", data=np.arange(2))
    with pytest.warns(DataWarning) as caught:
        load(path)
    (warning,) = caught
    assert str(warning.message) == f"{path}: not carried over: meta/names; rounded to float32: obs.state"


def compressors(zarr_format):
    if zarr_format == 3:
        from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

        return [BloscCodec(cname="lz4"), ZstdCodec(), GzipCodec(), None]
    blosc = [numcodecs.Blosc(name, 5, shuffle) for name in ("lz4", "zstd", "zlib") for shuffle in (0, 1, 2)]
    return [*blosc, numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Zlib(), None]


@pytest.mark.filterwarnings("ignore")  # of zarr, about codecs that its format 3 does not standardise
@pytest.mark.parametrize(("zarr_format", "suffix"), [*itertools.product((2, 3), (".zarr", ".zarr.zip"))])
def test_arrays_are_those_of_zarrs_own_reader(tmp_path, zarr_format, suffix):
    for index, compressor in enumerate(compressors(zarr_format)):
        arrays = {"img": IMAGES.astype(np.float32), "keypoint": KEYPOINTS, "n": np.arange(5, dtype=">i2")}
        path = files.zarr(tmp_path / f"{index}{suffix}", zarr_format, compressor=compressor, **arrays)
        store = zarr.storage.ZipStore(path) if suffix.endswith(".zip") else str(path)
        theirs = zarr.open_group(store, mode="r")
        with ZarrStore(path) as ours:
            assert ours.names == sorted(name for name, node in theirs.members(None) if isinstance(node, zarr.Array))
            for name in ours.names:
                np.testing.assert_array_equal(ours.array(name), theirs[name][...], strict=True)
                assert ours.shape(name) == theirs[name].shape


def test_chunks_of_every_order_and_separator(tmp_path):
    data = np.arange(210.0).reshape(5, 6, 7)
    for index, (order, separator, chunks) in enumerate(
        itertools.product("CF", "./", ((2, 4, 3), (5, 6, 7), (9, 1, 9)))
    ):
        group = zarr.open_group(str(tmp_path / str(index)), mode="w", zarr_format=2)
        keys = {"name": "v2", "separator": separator}
        group.create_array("x/y", data=data, chunks=chunks, order=order, chunk_key_encoding=keys)
        with ZarrStore(tmp_path / str(index)) as store:
            np.testing.assert_array_equal(store.array("x/y"), data)


def test_observations(tmp_path):
    images = IMAGES.astype(np.float32)
    path = files.zarr(tmp_path / "f.zarr", img=images, keypoint=KEYPOINTS, wrist_image=IMAGES.astype(np.uint8))
    read = load(path, env="pusht")
    assert set(read.obs) == {"images.img", "images.wrist", "keypoint", "state"}
    assert read.obs["images.img"].dtype == torch.uint8
    np.testing.assert_array_equal(read.obs["images.img"], IMAGES)
    np.testing.assert_array_equal(read.obs["images.wrist"], IMAGES)
    np.testing.assert_array_equal(read.obs["keypoint"], KEYPOINTS.astype(np.float32))
    assert read.reward.tolist() == [0] * 5
    assert read.meta.env_id == "pusht"
    joined = load(path, state="keypoint,state")
    assert set(joined.obs) == {"images.img", "images.wrist", "state"}
    np.testing.assert_array_equal(joined.obs["state"][:, :6], KEYPOINTS.reshape(5, 6).astype(np.float32))
    assert joined.obs["state"][:, 6].tolist() == [0, 1, 2, 10, 11]
    with pytest.raises(DataError, match=r"'keypoints' \(did you mean keypoint\?\)"):
        load(path, state="keypoints")


@pytest.mark.parametrize("value", [0.5, -1, 256, np.nan])
def test_images_must_be_whole_numbers(tmp_path, value):
    images = IMAGES.astype(np.float32)
    images[4, 1, 2, 0] = value
    with pytest.raises(DataError, match=r"data/img holds values that are no uint8, in chunk data/img/2\.0\.0\.0"):
        load(files.zarr(tmp_path / "f.zarr", img=images))


def test_the_reader_asks_why_episodes_ended(tmp_path):
    path = files.zarr(tmp_path / "f.zarr")
    with pytest.raises(DataError, match="say ends= one of truncated, terminated, success"):
        load_episodes(path)
    ended, solved = load(path, ends="terminated"), load(path, ends="success")
    assert ended.terminated.equal(solved.terminated)
    assert not ended.success.any()
    assert solved.terminated.nonzero().flatten().tolist() == [2, 4]
    assert not solved.truncated.any()
    assert solved.success.all()


def test_a_missing_chunk_is_not_taken_for_zeros(tmp_path):
    state = np.array([[0.0], [0], [3], [4], [5]])
    path = files.zarr(tmp_path / "f.zarr", state=state, packed=False)
    with pytest.raises(DataError, match=r"chunk data/state/0\.0 is missing.*missing=fill"):
        load(path)
    assert load(path, missing="fill").obs["state"].flatten().tolist() == [0, 0, 3, 4, 5]
    with pytest.raises(DataError, match="missing is 'fill'"):
        load(path, missing="zero")


def test_windows_are_those_of_the_sequence_sampler(tmp_path):
    """With pad_before To - 1 and pad_after Tp - To: every step is "now" once, edges repeated."""
    lengths = np.array([10, 23])
    columns = {"state": np.arange(33.0)[:, None], "action": np.arange(33.0)[:, None], "episode_ends": lengths.cumsum()}
    windows = Windows(load(files.zarr(tmp_path / "f.zarr", **columns)), n_obs_steps=2, horizon=16)
    assert windows.start.tolist() == [*range(-1, 9), *range(-1, 22)]
    first = windows.gather(torch.tensor([0]))["action"].flatten().tolist()
    assert first == [0, *range(10), *[9] * 5]


def metadata(name, **changed):
    def change(path):
        file = path / name / ".zarray"
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))

    return change


def chunk(change, name="data/state/0.0"):
    return lambda path: (path / name).write_bytes(change((path / name).read_bytes()))


def link(path):
    os.rename(path / "data" / "state", path.parent / "elsewhere")
    (path / "data" / "state").symlink_to(path.parent / "elsewhere")


def chunk_link(path):
    os.rename(path / "data" / "state" / "0.0", path.parent / "chunk")
    (path / "data" / "state" / "0.0").symlink_to(path.parent / "chunk")


def pickled(path):
    """Zarr's own reader would unpickle this."""
    zarray = path / "data" / "state" / ".zarray"
    tree = json.loads(zarray.read_text())
    zarray.write_text(json.dumps(tree | {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}]}))


def blosc_lies(data):
    return data[:4] + (2**31 - 1).to_bytes(4, "little") + data[8:]


SPOILT = {
    "missing ends": (lambda path: os.remove(path / "meta/episode_ends/.zarray"), "no array 'meta/episode_ends'"),
    "missing action": (lambda path: os.rename(path / "data/action", path / "data/acts"), "no array 'data/action'"),
    "missing chunk": (lambda path: os.remove(path / "data/state/1.0"), r"chunk data/state/1\.0 is missing"),
    "nested": (lambda path: os.rename(path / "data/state", path / "data/action/state"), "is nested"),
    "cut chunk": (chunk(lambda data: data[:-1]), "size of its Blosc header"),
    "no chunk": (chunk(lambda _: b""), "damaged"),
    "lying chunk": (chunk(blosc_lies), "it holds 2,147,483,647 bytes; the array says 16"),
    "link": (link, "data/state is a link"),
    "chunk link": (chunk_link, r"data/state/0\.0 is a link"),
    "pickle": (pickled, "uses the filters"),
    "objects": (metadata("data/state", dtype="|O"), "only plain numbers"),
    "text": (metadata("data/state", dtype="<U4"), "only plain numbers"),
    "structured": (metadata("data/state", dtype=[["a", "<f4"]]), "only plain numbers"),
    "codec": (metadata("data/state", compressor={"id": "pickle"}), "packed by 'pickle'"),
    "jpeg2000": (metadata("data/state", compressor={"id": "imagecodecs_jpeg2k"}), "re-save it with Blosc"),
    "huge": (metadata("data/state", shape=[10**12, 1]), "its size allows"),
    "huge chunk": (metadata("data/state", chunks=[10**12, 1]), "its size allows"),
    "shape": (metadata("data/state", shape=[4, 1]), "state has shape"),
    "negative": (metadata("data/state", shape=[-5, 1]), "declares the shape"),
    "no chunks": (metadata("data/state", chunks=[0, 1]), "declares the shape"),
    "axes": (metadata("data/state", chunks=[2]), "declares the shape"),
    "path": (metadata("data/state", dimension_separator="/../"), "separator"),
    "order": (metadata("data/state", order="K"), "order 'K'"),
    "format": (metadata("data/state", zarr_format=3), "of one format"),
    "json": (lambda path: (path / "data/state/.zarray").write_text("{"), "f.zarr"),
    "list": (lambda path: (path / "data/state/.zarray").write_text("[]"), "not a JSON object"),
    "large json": (lambda path: (path / "data/state/.zarray").write_text(" " * 2**21), "no metadata"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_stores_get_one_clear_error(tmp_path, name):
    change, words = SPOILT[name]
    path = files.zarr(tmp_path / "f.zarr")
    change(path)
    with pytest.raises(DataError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"episode_ends": np.array([3, 4])}, "says there are 4 rows; data/action has 5"),
        ({"episode_ends": np.array([3, 2])}, "ends, not lengths"),
        ({"episode_ends": np.array([0, 5])}, "ends, not lengths"),
        ({"episode_ends": np.array([5.0])}, "whole numbers"),
        ({"episode_ends": np.array([5, 2**62])}, "says there are 4611686018427387904 rows"),
        ({"episode_ends": np.zeros(0, int)}, "whole numbers"),
        ({"action": np.zeros(5)}, "data needs an action"),
        ({"action": np.zeros((4, 2))}, "data/action has 4"),
        ({"state": None}, "and observations"),
        ({"state": np.full((5, 1), np.nan)}, "obs.state is not finite"),
        ({"action": np.full((5, 1), np.inf)}, "action is not finite"),
        ({"img": np.zeros((5, 2, 2, 3), np.uint8), "img_image": np.zeros((5, 2, 2, 3), np.uint8)}, "different names"),
    ],
)
def test_contents_that_do_not_fit(tmp_path, changed, words):
    with pytest.raises(DataError, match=words):
        load(files.zarr(tmp_path / "f.zarr", **changed))


@pytest.mark.parametrize(
    ("codecs", "words"),
    [
        ([{"name": "transpose", "configuration": {"order": [1, 0]}}, {"name": "bytes"}], "neither shards"),
        ([{"name": "sharding_indexed", "configuration": {}}], "neither shards"),
        ([{"name": "bytes"}, {"name": "numcodecs.pickle"}], "packed by 'numcodecs.pickle'"),
        ([{"name": "bytes"}, {"name": "zstd"}, {"name": "crc32c"}], "neither shards"),
        ([], "not those of an array"),
    ],
)
def test_codecs_of_format_3(tmp_path, codecs, words):
    path = files.zarr(tmp_path / "f.zarr", 3)
    file = path / "data" / "state" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"codecs": codecs}))
    with pytest.raises(DataError, match=words):
        load(path)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "data/../../outside", "data\\..\\outside"])
def test_zip_members_that_lead_out_are_refused(tmp_path, name):
    path = files.zarr(tmp_path / "f.zarr.zip")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"x")
    with pytest.raises(DataError, match="only plain relative names"):
        load(path)


def test_no_chunk_unpacks_to_more_than_its_size():
    """What a chunk says of its own size is believed only where it is right."""
    data = bytes(10**6)
    packed = {
        "blosc": bytes(numcodecs.Blosc("zstd").encode(data)),
        "zstd": bytes(numcodecs.Zstd().encode(data)),
        "gzip": bytes(numcodecs.GZip().encode(data)),
        "zlib": bytes(numcodecs.Zlib().encode(data)),
        None: data,
    }
    for codec, raw in packed.items():
        assert zarr_codecs.unpack(codec, raw, len(data)) == data
        for size in (1, len(data) - 1, len(data) + 1):
            with pytest.raises((DataError, ValueError)):
                zarr_codecs.unpack(codec, raw, size)


def test_what_is_no_store(tmp_path):
    with pytest.raises(DataError, match="there is no store"):
        load(tmp_path / "none.zarr")
    (tmp_path / "f.zarr").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="not a zip archive"):
        load(tmp_path / "f.zarr")
    os.mkdir(tmp_path / "g.zarr")
    with pytest.raises(DataError, match="no array 'meta/episode_ends'"):
        load(tmp_path / "g.zarr")


def test_numcodecs_is_asked_for_by_name(tmp_path, monkeypatch):
    path = files.zarr(tmp_path / "f.zarr")
    monkeypatch.setitem(__import__("sys").modules, "numcodecs", None)
    with pytest.raises(MissingExtraError, match=r"robopol\[zarr\]"):
        load(path)
