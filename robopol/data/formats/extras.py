"""What robopol knows of its episodes and a foreign layout has no place for: one file beside the foreign ones.

``robopol.safetensors`` holds columns of `Episodes` by name; its header holds the version of this layout and the
meta. Other programs do not look at it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from robopol.config import parse
from robopol.data.episodes import Episodes, EpisodesMeta
from robopol.errors import DataError

NAME = "robopol.safetensors"
VERSION = 1


@dataclass(frozen=True)
class Extras:
    """The content of one file.

    Attributes:
        meta: The meta of the episodes.
        columns: Columns of `Episodes` by name, ``lengths`` among them.
    """

    meta: EpisodesMeta
    columns: dict[str, Tensor]

    def check(self, lengths: list[int]) -> None:
        """Raise unless these are extras of episodes of the given lengths.

        Raises:
            DataError: If another program has added or removed steps since robopol wrote.
        """
        known = self.columns["lengths"].tolist()
        if known != lengths:
            raise DataError(
                f"{NAME} is about {len(known)} episodes of {sum(known)} steps, beside it are {len(lengths)} of "
                f"{sum(lengths)}: another program changed them; delete {NAME} to read what is left as a foreign dataset"
            )


def write_extras(folder: Path, episodes: Episodes, columns: Iterable[str]) -> None:
    """Write the file.

    Args:
        folder: Where to.
        episodes: The episodes, on the CPU.
        columns: Names of the columns to keep, as `Episodes` has them (``final_obs.<key>`` for observations); those
            that the episodes do not have are left out.
    """
    from safetensors.torch import save_file

    present = episodes.step_columns() | episodes.episode_columns()
    header = {"version": str(VERSION), "meta": json.dumps(episodes.meta.tree())}
    save_file({name: present[name] for name in ("lengths", *columns) if name in present}, folder / NAME, header)


def read_extras(folder: Path) -> Extras | None:
    """Read the file of a folder; None if it has none.

    Raises:
        DataError: If the file is of another version.
    """
    from safetensors import safe_open

    if not (folder / NAME).is_file():
        return None
    with safe_open(folder / NAME, "pt") as file:
        header = file.metadata() or {}
        if header.get("version") != str(VERSION):
            raise DataError(
                f"{NAME} is of version {header.get('version')}; this robopol reads version {VERSION}: "
                "delete it to read the rest as a foreign dataset"
            )
        # Cloned, so that nothing depends on the file afterwards.
        columns = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return Extras(parse(EpisodesMeta, json.loads(header["meta"])), columns)
