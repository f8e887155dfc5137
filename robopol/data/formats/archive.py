"""Members of a zip file, read without trusting it: no odd names, no bombs, nothing is unpacked to disk."""

import stat
import zipfile
from pathlib import Path
from types import TracebackType
from typing import IO

from robopol.data.formats.budget import DEFLATE, Budget
from robopol.errors import DataError


class Archive:
    """A zip file; use it as a context manager.

    Attributes:
        sizes: Name of each member -> its bytes once unpacked; folders are left out.
    """

    def __init__(self, path: Path) -> None:
        """Open an archive and check all that it declares.

        Args:
            path: The file.

        Raises:
            DataError: If it is no zip file, or a member has a name that leads elsewhere, comes twice, is
                encrypted, a link, packed by anything but deflate, or larger than it can be.
        """
        if not zipfile.is_zipfile(path):
            raise DataError("it is not a zip archive (or one that was cut off)")
        self._zip = zipfile.ZipFile(path)
        members = [info for info in self._zip.infolist() if not info.is_dir()]
        self.sizes = {info.filename: info.file_size for info in members}
        budget = Budget(path.stat().st_size)
        for info in members:
            _check(info)
            budget.spend(info.filename, 1, (info.file_size,), held=False)
        if len(self.sizes) < len(members):
            raise DataError("a member comes twice")

    def __enter__(self) -> "Archive":
        """Return the open archive."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._zip.close()

    def open(self, name: str) -> IO[bytes]:
        """Open a member for reading; its checksum is compared once all of it was read."""
        return self._zip.open(name)

    def read(self, name: str) -> bytes:
        """Return the bytes of a member.

        Raises:
            DataError: If it holds less than it declares.
        """
        data = self._zip.read(name)
        if len(data) != self.sizes[name]:
            raise DataError(f"{name} has {len(data)} of {self.sizes[name]} bytes")
        return data


def _check(info: zipfile.ZipInfo) -> None:
    name = info.filename
    if not name.isprintable() or "\\" in name or ":" in name or {"", ".", ".."} & set(name.split("/")):
        raise DataError(f"a member is called {name!r}; only plain relative names are read")
    if info.flag_bits & 1 or stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(f"{name} is encrypted or a link; only plain files are read")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{name} is packed by method {info.compress_type}; only stored and deflated data are read")
    ratio = DEFLATE if info.compress_type == zipfile.ZIP_DEFLATED else 1
    if info.file_size > ratio * info.compress_size:
        raise DataError(f"{name} declares {info.file_size:,} bytes, packed into {info.compress_size:,}: impossible")
