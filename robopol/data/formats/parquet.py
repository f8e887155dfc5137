"""Columns of a Parquet file, read without trusting it: what its pages declare is counted before Arrow decodes them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from robopol.data.formats.budget import Budget
from robopol.data.formats.parquet_pages import Page, pages
from robopol.errors import DataError

_PIECE = 2**25  # bytes of encoded values that are in memory together
_BATCH = 64
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}
_LEVELS = 4  # bytes beside each value while it is decoded: where lists begin, and where holes are


class _Leaf(NamedTuple):
    """A column of values."""

    width: int | None  # bytes of each; None if they have no fixed size
    groups: list[list[Page]]  # of each group of rows


class Parquet:
    """An open Parquet file; use it as a context manager.

    Attributes:
        rows: Number of rows.
        names: The columns.
    """

    def __init__(self, path: Path, name: str, budget: Budget) -> None:
        """Open a file.

        Args:
            path: The file.
            name: What to call it in an error.
            budget: Of the dataset that it belongs to.

        Raises:
            DataError: If there is no such file.
        """
        import pyarrow.parquet as pq

        if not path.is_file():
            raise DataError(f"there is no file {name}")
        self._path, self._name, self._budget = path, name, budget
        self._file = pq.ParquetFile(path)
        self._meta = self._file.metadata
        self.rows = int(self._meta.num_rows)
        self.names: list[str] = list(self._file.schema_arrow.names)

    def __enter__(self) -> "Parquet":
        """Return the open file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def schema(self) -> Any:
        """The Arrow schema."""
        return self._file.schema_arrow

    def check_columns(self, names: Sequence[str]) -> None:
        """Raise if a column is missing.

        Raises:
            DataError: With the first of them.
        """
        for name in names:
            if name not in self.names:
                raise DataError(f"{self._name} has no column '{name}'")

    def numbers(self, columns: Sequence[str]) -> Any:
        """Read columns of numbers, or of lists or structs of them.

        Args:
            columns: Their names; a dot leads into a struct.

        Returns:
            An Arrow table.

        Raises:
            DataError: If one holds texts or bytes, or they are more than the file or the machine can hold.
        """
        for column in columns:
            for leaf in self._leaves(column):
                if leaf.width is None:
                    raise DataError(f"{self._name}: {column} holds texts or bytes; it must hold numbers")
                declared = [page for pages in leaf.groups for page in pages]
                values = sum(page.values for page in declared)
                largest = max((page.unpacked for page in declared), default=0)
                piece = largest + _LEVELS * values
                self._budget.spend(f"{self._name}: {column}", leaf.width, (values,), piece=piece)
        return self._file.read(columns=list(columns))

    def batches(self, column: str) -> Iterator[Any]:
        """Read a column of encoded images or of texts a few rows at a time.

        Args:
            column: Its name; a dot leads into a struct.

        Yields:
            Arrow arrays, in the order of the rows.

        Raises:
            DataError: If what is unpacked for it is more than the file can hold.
        """
        greatest = 1
        for leaf in self._leaves(column):
            for declared in leaf.groups:
                unpacked = sum(page.unpacked for page in declared)
                values = 0 if leaf.width is None else sum(page.values for page in declared)
                greatest = max(greatest, unpacked, (_LEVELS + 4) * values)
                self._budget.spend(f"{self._name}: {column}", 1, (unpacked + values,), held=False, piece=greatest)
        # Any value may be as large as what it is decoded from, and come in every row.
        for batch in self._file.iter_batches(max(1, min(_BATCH, _PIECE // greatest)), columns=[column]):
            yield batch.column(0)

    def _leaves(self, column: str) -> list["_Leaf"]:
        """Return the columns of values, as Parquet keeps them, that belong to a column."""
        found = []
        for index in range(len(self._meta.schema)):
            leaf = self._meta.schema.column(index)
            if leaf.path == column or leaf.path.startswith(f"{column}."):
                kind = leaf.physical_type
                width = leaf.length if kind == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(kind)
                groups = [list(self._pages(group, index)) for group in range(self._meta.num_row_groups)]
                found.append(_Leaf(width, groups))
        return found

    def _pages(self, group: int, index: int) -> Iterator[Page]:
        chunk = self._meta.row_group(group).column(index)
        start, size = chunk.data_page_offset, chunk.total_compressed_size
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
            start = chunk.dictionary_page_offset
        if chunk.file_path or min(start, size) < 0 or start + size > self._path.stat().st_size:
            raise DataError(f"{self._name} has a column at bytes {start} to {start + size}; the file is damaged")
        with self._path.open("rb") as file:
            yield from pages(file, start, size)
