"""Frames of mp4 files by time, and files from frames (PyAV)."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from robopol.errors import DataError

CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"crf": "20", "g": "2", "bf": "0", "preset": "veryfast"}),
    "av1": ("libsvtav1", {"crf": "30", "g": "2", "preset": "8"}),
}
"""Name -> encoder and its options; a key frame every second frame makes any frame quick to reach."""

TOLERANCE = 1e-4
"""Seconds that a frame may be from the time it is asked for, as in LeRobot."""


def decode_frames(path: Path, name: str, frames: Iterable[tuple[float, int]], images: np.ndarray) -> None:
    """Decode the frames at given times; the file is read once, no other frame is kept.

    Args:
        path: An mp4 file.
        name: What to call it in an error.
        frames: For each frame its time in seconds, to within `TOLERANCE`, and the row that it goes to.
        images: (N, H, W, 3) uint8, rows of it are filled.

    Raises:
        DataError: If the file is damaged, its frames have another size, or one is missing.
    """
    import av

    wanted = sorted(frames)
    position = 0
    try:
        # Naming the format keeps a playlist under a false name from opening other files.
        with av.open(str(path), format="mp4") as container:
            if not container.streams.video:
                raise DataError(f"{name} holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if (stream.height, stream.width) != images.shape[1:3]:
                raise DataError(
                    f"{name} is {stream.height} x {stream.width}; it must be {images.shape[1]} x {images.shape[2]}"
                )
            for frame in container.decode(stream):
                if position == len(wanted):
                    break
                if frame.is_corrupt or frame.time is None or (frame.height, frame.width) != images.shape[1:3]:
                    raise DataError(f"{name} is damaged in the frame at {frame.time} s")
                # Times are often kept as float32, which far into a file is coarser than the tolerance.
                while position < len(wanted) and wanted[position][0] <= frame.time + _slack(frame.time):
                    if wanted[position][0] < frame.time - _slack(frame.time):
                        raise DataError(
                            f"{name} has no frame at {wanted[position][0]:.4f} s but one at {frame.time:.4f} s"
                        )
                    images[wanted[position][1]] = frame.to_ndarray(format="rgb24")
                    position += 1
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{name} cannot be decoded: {error}") from error
    if position < len(wanted):
        raise DataError(f"{name} ends before the frame at {wanted[position][0]:.4f} s")


def _slack(time: float) -> float:
    return TOLERANCE + abs(time) * 2**-23


@contextmanager
def _ordinary_threads() -> Iterator[None]:
    """Undo that threads become real-time ones meanwhile.

    SVT-AV1 makes its own and the one that opens it so (SCHED_FIFO, 99) where it may, as it does for root: whatever else
    the machine should do, as hold an arm, would wait for a video, and the caller would stay so for ever.
    """
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        yield
        return
    before = set(_real_time(tasks))
    try:
        yield
    finally:
        for task in set(_real_time(tasks)) - before:
            with suppress(ProcessLookupError):
                os.sched_setscheduler(task, os.SCHED_OTHER, os.sched_param(0))


def _real_time(tasks: Path) -> Iterator[int]:
    for task in map(int, os.listdir(tasks)):
        with suppress(ProcessLookupError):
            if os.sched_getscheduler(task) in (os.SCHED_FIFO, os.SCHED_RR):
                yield task


class VideoWriter:
    """Writes one mp4 file, to which episodes are added one after the other; use it as a context manager.

    Attributes:
        frames: Frames added so far.
        size: Bytes that they took so far.
    """

    def __init__(self, path: Path, codec: str, fps: Fraction, height: int, width: int) -> None:
        """Begin a file.

        Args:
            path: Where to.
            codec: One of `CODECS`.
            fps: Frames per second.
            height: Pixels; even numbers give the layout that every player knows (YUV 4:2:0).
            width: Pixels.

        Raises:
            DataError: If the codec cannot take this size.
        """
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        encoder, options = CODECS[codec]
        self._fps = fps
        self.frames = 0
        self.size = 0
        self._container = av.open(str(path), "w", format="mp4")
        stream: Any = self._container.add_stream(encoder, rate=fps, options=dict(options))
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        self._stream = stream

    @property
    def seconds(self) -> float:
        """Length of what was added so far."""
        return float(self.frames / self._fps)

    def add(self, frames: Iterable[np.ndarray]) -> None:
        """Add frames, each (H, W, 3) uint8.

        Raises:
            DataError: If the codec cannot take them.
        """
        import av

        try:
            self._open()
            for image in frames:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = self.frames, 1 / self._fps
                packets = self._stream.encode(frame)
                self._container.mux(packets)
                self.frames += 1
                self.size += sum(packet.size for packet in packets)
        except av.FFmpegError as error:
            raise DataError(
                f"{self._stream.codec.name} cannot encode frames of {self._stream.height} x {self._stream.width}: "
                f"{error}; keep the images as PNG instead"
            ) from error

    def _open(self) -> None:
        if not self._stream.codec_context.is_open:
            with _ordinary_threads():
                self._stream.codec_context.open(strict=False)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file."""
        if error is None:
            self._open()
            self._container.mux(self._stream.encode(None))
        self._container.close()
