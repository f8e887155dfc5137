"""Films a few episodes of a rollout into one MP4, side by side."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from robopol.errors import ConfigError
from robopol.files import whole_file, why_not_written


def check_film(path: Path) -> None:
    """Refuse, before anything is filmed, a path that no film can be written to.

    Raises:
        ConfigError: If it does not end in .mp4, is a folder, or nothing can be written there.
    """
    reason = why_not_written(path) if path.suffix == ".mp4" else f"{path} does not end in .mp4, and a film is MP4"
    if reason:
        raise ConfigError(f"no film can be saved there: {reason}")


class Film:
    """Collects the frames of chosen episodes; a `robopol.evaluation.rollout.Watcher`."""

    def __init__(self, seeds: list[int], fps: float, columns: int = 3) -> None:
        """Choose the episodes.

        Args:
            seeds: Seeds of the episodes to film.
            fps: Frames per second, the control rate for real time.
            columns: Episodes beside each other in one row of the picture.
        """
        self.fps, self.columns = fps, columns
        self.frames: dict[int, list[np.ndarray]] = {seed: [] for seed in seeds}

    def wants(self, seed: int) -> bool:
        """See `Watcher.wants`."""
        return seed in self.frames

    def frame(self, seed: int, image: np.ndarray) -> None:
        """See `Watcher.frame`."""
        self.frames[seed].append(image)

    def save(self, path: Path) -> None:
        """Write the film as H.264 in MP4; an episode that is over holds its last frame, greyed.

        Args:
            path: Where, see `check_film`; an older film is replaced once the new one is whole.
        """
        import av

        clips = [clip for clip in self.frames.values() if clip]
        height, width = (size - size % 2 for size in clips[0][0].shape[:2])
        columns = min(self.columns, len(clips))
        rows = -(-len(clips) // columns)
        with whole_file(path) as draft, av.open(str(draft), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(1000))
            stream.width, stream.height, stream.pix_fmt = columns * width, rows * height, "yuv420p"
            for moment in range(max(map(len, clips)) + int(self.fps)):
                picture = np.full((rows * height, columns * width, 3), 255, np.uint8)
                for index, clip in enumerate(clips):
                    top, left = index // columns * height, index % columns * width
                    image = clip[min(moment, len(clip) - 1)][:height, :width]
                    over = moment >= len(clip)
                    picture[top : top + height, left : left + width] = image // 2 + 96 if over else image
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
