"""Pictures of an episode on disk: of each camera PNG images one after the other, and where each is and of when."""

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from robopol.errors import DataError
from robopol.real_robot.camera import Frame, Image
from robopol.real_robot.rings import Ring

INDEX_ROW = np.dtype([("t", np.int64), ("start", np.int64), ("length", np.int64)])
"""When a picture was taken, ns, and the bytes of the file that it has."""
_PATIENCE = 2.0  # for the last pictures of all cameras, s
_MOST = 8  # pictures of a camera at a time, so that the rows of the servo loop do not wait for long


class Album:
    """Writes the pictures of all cameras, without loss, as long as an episode goes on.

    Compressing takes its time. Who is too slow for a camera loses pictures, and counts them; nobody waits.
    """

    def __init__(self, rings: Mapping[str, Ring]) -> None:
        """Read the pictures of cameras: name -> ring of `robopol.real_robot.film.frame_type`."""
        self._rings = rings
        self._files: dict[str, _PictureFile] = {}
        self._lost: dict[str, int] = {}

    def begin(self, folder: Path) -> None:
        """Begin an episode, with the pictures that came since the last call of anything here.

        Raises:
            OSError: If the files cannot be made.
        """
        self._lost = {name: ring.lost for name, ring in self._rings.items()}
        self._files = {name: _PictureFile(folder, name) for name in self._rings}

    def add(self) -> None:
        """Write some of the new pictures; without an episode leave them out."""
        for name, ring in self._rings.items():
            if name in self._files:
                self._files[name].add(ring.take(_MOST))
            else:
                ring.skip()

    def end(self) -> dict[str, Any]:
        """Write those that are still there, as far as time allows, and end the episode; return what is known of it.

        Raises:
            OSError: If they cannot be brought to disk.
        """
        files, self._files = self._files, {}
        about: dict[str, Any] = {}
        due = time.monotonic() + _PATIENCE
        for name, file in files.items():
            ring, last = self._rings[name], self._rings[name].count
            while ring.place < last and time.monotonic() < due:
                file.add(ring.take(min(_MOST, last - ring.place)))
            dropped = file.failed + ring.lost - self._lost[name] + max(0, last - ring.place)
            size = list(ring.row["image"].shape[:2])
            about[name] = {"size": size, "written": file.written, "dropped": dropped}
        for file in files.values():
            file.close()
        return about


class _PictureFile:
    """The pictures of one camera; one that could not be written whole leaves no trace."""

    def __init__(self, folder: Path, name: str) -> None:
        self._pictures: BinaryIO = _pictures(folder, name).open("wb", buffering=0)
        self._index: BinaryIO = _index(folder, name).open("wb", buffering=0)
        self._end = self.written = self.failed = 0

    def add(self, rows: Any) -> None:
        for row in rows:
            png = encode(row["image"])
            entry = np.array([(row["t"], self._end, len(png))], INDEX_ROW).tobytes()
            try:
                _put(self._pictures, self._end, png)
                _put(self._index, self.written * INDEX_ROW.itemsize, entry)
            except OSError:  # a full disk; go on, so that what comes later may fit
                self.failed += 1
                continue
            self._end += len(png)
            self.written += 1

    def close(self) -> None:
        try:
            for file, length in ((self._pictures, self._end), (self._index, self.written * INDEX_ROW.itemsize)):
                file.truncate(length)
                os.fsync(file.fileno())
        finally:
            self._pictures.close()
            self._index.close()


class Pictures:
    """The pictures of one camera in a recorded episode, read one at a time.

    Attributes:
        t: When they were taken (K,), ns, in the order in which they came.
    """

    def __init__(self, folder: Path, name: str, size: tuple[int, int]) -> None:
        """Open what an `Album` wrote.

        Raises:
            DataError: If it is not there, or not whole.
        """
        self._path, self._shape = _pictures(folder, name), (*size, 3)
        try:
            self._index, length = np.fromfile(_index(folder, name), INDEX_ROW), self._path.stat().st_size
        except OSError as error:
            raise DataError(f"{folder} has no pictures of the camera '{name}': {error}") from error
        ends = self._index["start"] + self._index["length"]
        if len(ends) and (self._index["start"].min() < 0 or self._index["length"].min() < 0 or ends.max() > length):
            raise DataError(f"{self._path} has {length} bytes, and {ends.max()} are to be there")
        self.t = self._index["t"].copy()

    def nearest(self, t: int) -> Frame:
        """Return the picture that was taken nearest to time ``t``, ns.

        Raises:
            DataError: If there is none, or it is damaged.
        """
        from robopol.data.formats.columns import decode_image  # by this torch is imported, which a recorder needs not

        if not len(self.t):
            raise DataError(f"{self._path} has no pictures")
        entry = self._index[int(np.argmin(np.abs(self.t - t)))]
        with self._path.open("rb") as file:
            file.seek(int(entry["start"]))
            image = decode_image(file.read(int(entry["length"])), self._shape, str(self._path))
        return Frame(int(entry["t"]), image)


def encode(image: Image) -> bytes:
    """Return a picture (H, W, 3) as PNG, compressed for speed."""
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _put(file: BinaryIO, start: int, data: bytes) -> None:
    """Write all of some bytes at a place; a full disk may take a part of them without a word."""
    file.seek(start)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _pictures(folder: Path, name: str) -> Path:
    return folder / f"images.{name}.png.bin"


def _index(folder: Path, name: str) -> Path:
    return folder / f"images.{name}.index.bin"
