"""Datasets converted once to arrays on disk, so that their images need not fit into memory."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from robopol import __version__
from robopol.data.episodes import Episodes
from robopol.data.formats import arrays
from robopol.data.image_columns import columns_in_files
from robopol.errors import DataError
from robopol.files import whole_folder


def cached(folder: Path, path: Path, read: Callable[..., Episodes], options: Mapping[str, str], name: str) -> Episodes:
    """Read a dataset through a folder of converted ones, see `robopol.data.formats.arrays`.

    What was converted is found again as long as the files, the options and robopol's version are the same. Nothing
    is ever removed from the folder; it may be deleted when no training uses it.

    Args:
        folder: Where converted datasets are kept; made if it does not exist.
        path: The file or folder of the dataset.
        read: Reads it: ``read(path, **options)``.
        options: The options.
        name: Name of the format.

    Returns:
        The episodes; images lie in the folder.

    Raises:
        DataError: If the dataset cannot be read.
    """
    target = folder / f"{path.name}-{_identity(path, options, name)}"
    if not target.exists():
        with _locked(folder / f".{target.name}.lock"):
            if not target.exists():  # another process may have been first
                with whole_folder(target) as draft, columns_in_files(draft) as columns:
                    arrays.put(read(path, **options), draft, columns.files)
    return arrays.read(target)


def _identity(path: Path, options: Mapping[str, str], name: str) -> str:
    """Return a digest of everything that the converted dataset depends on."""
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    files = [path] if path.is_file() else [Path(root, file) for root, _, found in os.walk(path) for file in found]
    told = sorted((str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    everything = [str(path.resolve()), told, sorted(options.items()), name, __version__, arrays.VERSION]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16]


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock that other processes of this machine wait for; it goes with the process that holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
