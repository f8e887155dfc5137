"""Files that the checkpoints of a run share: each is written once, and gone when no checkpoint needs it."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from robopol.errors import CheckpointError
from robopol.files import whole_file

SUFFIX = ".safetensors"


class Shelf:
    """A folder of tensors, one a file; a checkpoint notes the names and the SHA-256 sums of those that it needs.

    Attributes:
        path: The folder; it is made when there is something to put in.
    """

    def __init__(self, path: Path) -> None:
        """Take a folder as it is."""
        self.path = path

    def put(self, tensors: Mapping[str, Callable[[], Tensor]], there: Mapping[str, str]) -> dict[str, str]:
        """Write what is not there yet, each file whole and synced to disk.

        Args:
            tensors: Name -> what gives the tensor, asked only if it has to be written.
            there: Name -> sum of those that the newest checkpoint needs, which never change.

        Returns:
            Name -> sum, of all that were given.
        """
        return {name: self._sum(name, give, there) for name, give in tensors.items()}

    def readers(self, needed: Mapping[str, str], advice: str) -> dict[str, Callable[[], Tensor]]:
        """Return what reads tensors: name -> a call that raises a `CheckpointError` if the file is not what was put.

        Args:
            needed: Name -> sum.
            advice: What to do about a damaged file.
        """
        return {name: partial(self._read, name, digest, advice) for name, digest in needed.items()}

    def keep(self, needed: Iterable[str]) -> None:
        """Remove all files but some."""
        kept = {f"{name}{SUFFIX}" for name in needed}
        for file in self.path.glob(f"*{SUFFIX}"):
            if file.name not in kept:
                file.unlink()

    def _sum(self, name: str, give: Callable[[], Tensor], there: Mapping[str, str]) -> str:
        file = self.path / f"{name}{SUFFIX}"
        if name in there and file.is_file():
            return there[name]
        data = save({"rows": give().contiguous()})
        with whole_file(file) as draft:
            draft.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def _read(self, name: str, digest: str, advice: str) -> Tensor:
        file = self.path / f"{name}{SUFFIX}"
        try:
            data = file.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read ({error}): restore it, or {advice}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise CheckpointError(f"{file} is damaged, it is not what was saved: restore it, or {advice}")
        return load(data)["rows"]
