import io
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest

from robopol.data.formats import npz
from robopol.data.formats.npz import Npz
from robopol.errors import DataError

ARRAYS = {
    "plain": np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32),
    "columns": np.asfortranarray(np.random.default_rng(1).normal(size=(4, 5, 2))),
    "empty": np.zeros((0, 3)),
    "scalar": np.array(3),
    "bools": np.array([True, False, True]),
    "swapped": np.arange(4, dtype=">i2"),
    "images": np.random.default_rng(2).integers(256, size=(9, 2, 3, 3)).astype(np.uint8),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("piece", [64, 2**24])
def test_arrays_are_those_of_numpy(tmp_path, save, piece, monkeypatch):
    monkeypatch.setattr(npz, "_PIECE", piece)
    save(tmp_path / "f.npz", **ARRAYS)
    with Npz(tmp_path / "f.npz") as file, np.load(tmp_path / "f.npz", allow_pickle=False) as theirs:
        assert set(file.names) == set(theirs)
        for name in file.names:
            np.testing.assert_array_equal(file.array(name), theirs[name], strict=True)
            assert file.shape(name) == theirs[name].shape
        blocks = list(file.blocks("images", np.uint8))
        assert (len(blocks) > 1) == (piece == 64)
        for rows, block in blocks:
            np.testing.assert_array_equal(block, theirs["images"][rows])
        assert blocks[-1][0].stop == 9
        for name in ("plain", "columns", "empty"):
            with pytest.raises(DataError, match="it must be uint8"):
                list(file.blocks(name, np.uint8))


def archive(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def npy(array=None, header=None, allow_pickle=False):
    stream = io.BytesIO()
    if header is None:
        np.lib.format.write_array(stream, array, allow_pickle=allow_pickle)
    else:
        np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


class Bomb:
    """Says so if it is ever unpickled."""

    went_off = False

    def __reduce__(self):
        return setattr, (Bomb, "went_off", True)


def refused(path, words, name="x"):
    with pytest.raises((DataError, zipfile.BadZipFile), match=words), Npz(path) as file:
        file.array(name)


def test_nothing_is_unpickled(tmp_path):
    objects = npy(np.array([Bomb()], dtype=object), allow_pickle=True)
    refused(archive(tmp_path / "f.npz", {"x.npy": objects}), "holds object")
    refused(archive(tmp_path / "g.npz", {"x.npy": pickle.dumps(Bomb())}), "is not an array")
    assert not Bomb.went_off


@pytest.mark.parametrize("dtype", ["U3", "S3", "c16", "M8[s]", "V4", [("a", "f4")]])
def test_only_plain_numbers(tmp_path, dtype):
    np.savez(tmp_path / "f.npz", x=np.zeros(3, dtype))
    refused(tmp_path / "f.npz", "only plain numbers")


@pytest.mark.parametrize(
    "name", ["../x.npy", "/x.npy", "a/../../x.npy", "a/x.npy", "c:x.npy", "x\n.npy", "x.pkl", "./x.npy"]
)
def test_odd_names_are_refused(tmp_path, name):
    refused(archive(tmp_path / "f.npz", {name: npy(np.zeros(3))}), "plain relative names|is not an array")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as file:
        for value in (0, 1):
            file.writestr("x.npy", npy(np.full(3, value)))
    refused(tmp_path / "f.npz", "comes twice")


def test_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("x.npy")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as file:
        file.writestr(link, "/etc/passwd")
    refused(tmp_path / "f.npz", "a link")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_deflate(tmp_path, method):
    refused(archive(tmp_path / "f.npz", {"x.npy": npy(np.zeros(3))}, method), "packed by method")


def test_a_header_that_declares_too_much(tmp_path):
    for shape in ((10**12,), (4,), (2,), (-3,), (10**30, 0)):
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        data = npy(header=header) + bytes(24)
        refused(archive(tmp_path / "f.npz", {"x.npy": data}), "declares float64")


def test_a_member_that_declares_too_much(tmp_path):
    """A bomb: 24 bytes that say they are 10 GB, in the central directory and in the member."""
    path = archive(tmp_path / "f.npz", {"x.npy": npy(np.zeros(3))})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.index(signature) + offset, 2**32 - 2)
    path.write_bytes(data)
    refused(path, "impossible")


def test_many_members_that_share_their_bytes(tmp_path):
    """Fifield's bomb: each entry of the directory is possible by itself, all together are not."""
    count, size = 40, 5 * 10**6
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(size)) + packer.flush()
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 0, zlib.crc32(bytes(size)), len(packed), size, 5, 0)
    blob, directory = local + b"0.npy" + packed, b""
    for index in range(count):
        name = f"{index:02}.npy".encode()[:6]
        head = struct.pack(
            "<4s6H3I5H2I",
            b"PK\x01\x02",
            20,
            20,
            0,
            8,
            0,
            0,
            zlib.crc32(bytes(size)),
            len(packed),
            size,
            len(name),
            0,
            0,
            0,
            0,
            0,
            0,
        )
        directory += head + name
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(blob), 0)
    (tmp_path / "f.npz").write_bytes(blob + directory + end)
    refused(tmp_path / "f.npz", "its size allows|[Oo]verlap")


def test_damage_is_noticed_by_the_checksum(tmp_path):
    np.savez(tmp_path / "f.npz", x=ARRAYS["plain"])
    data = bytearray((tmp_path / "f.npz").read_bytes())
    data[2000] ^= 1
    (tmp_path / "f.npz").write_bytes(data)
    refused(tmp_path / "f.npz", "CRC")


def test_what_is_no_archive(tmp_path):
    refused(tmp_path / "none.npz", "there is no file")
    (tmp_path / "f.npz").write_bytes(npy(np.zeros(3)))
    refused(tmp_path / "f.npz", "not a zip archive")
    np.savez(tmp_path / "g.npz", actions=np.zeros(3))
    refused(tmp_path / "g.npz", r"there is no array 'action' \(did you mean actions\?\)", "action")
