"""Where a dataset may be written: what formats ask of a path before there is anything to write."""

from pathlib import Path

from robopol.errors import DataError
from robopol.files import occupied, why_not_in, why_not_written


def check_file(path: Path) -> None:
    """Raise if a file cannot be written, or would take a folder's place.

    Args:
        path: The file.

    Raises:
        DataError: If it is a folder, or nothing can be written where it is to be.
    """
    if reason := why_not_written(path):
        raise DataError(reason)


def check_folder(path: Path, marker: str) -> None:
    """Raise if a folder cannot be written, or would take the place of anything but a dataset of the same format.

    Args:
        path: The folder.
        marker: A file that every dataset of the format has, relative to the folder.

    Raises:
        DataError: If something else would be lost, or nothing can be written where it is to be.
    """
    if occupied(path, marker):
        raise DataError(f"{path} exists and is not a dataset with {marker}; choose another path or remove it")
    if reason := why_not_in(path.parent):
        raise DataError(reason)
