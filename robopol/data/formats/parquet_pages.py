"""Headers of the pages of a Parquet file (format: Apache Parquet, ``parquet.thrift``; Thrift's compact protocol).

What a reader unpacks and decodes is what the pages declare, and a page of a few bytes may declare billions of values
by one run. The footer repeats their sums, but nothing makes it say the truth.
"""

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from robopol.errors import DataError

_HEADER = (2**12, 2**24)  # bytes tried; statistics make some headers large

# Fields of a PageHeader, and of the headers inside it that have num_values as their first.
_UNPACKED, _PACKED, _KINDS, _VALUES = 2, 3, (5, 7, 8), 1


class Page(NamedTuple):
    """What one page declares.

    Attributes:
        values: Values, among them holes, and entries of a dictionary.
        unpacked: Bytes before they are decoded.
    """

    values: int
    unpacked: int


def pages(file: IO[bytes], start: int, size: int) -> Iterator[Page]:
    """Walk over the pages of a column.

    Args:
        file: The open file.
        start: Where the column begins in it.
        size: Its bytes.

    Yields:
        What is declared, page by page; nothing is unpacked.

    Raises:
        DataError: If the pages do not fill the column, or their headers are damaged.
    """
    at = start
    while at < start + size:
        fields, length = _header(file, at)
        unpacked, packed = fields.get(_UNPACKED), fields.get(_PACKED)
        inner = [fields[kind] for kind in _KINDS if isinstance(fields.get(kind), dict)]
        values = [header.get(_VALUES) for header in inner]
        numbers = (unpacked, packed, *values)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise DataError(f"the page at byte {at} declares {numbers}")
        yield Page(sum(values), unpacked)  # type: ignore[arg-type]
        at += length + packed  # type: ignore[operator]
    if at > start + size:
        raise DataError(f"the pages from byte {start} on end at {at}; the column ends at {start + size}")


def _header(file: IO[bytes], at: int) -> tuple[dict[int, Any], int]:
    """Read a header; return its fields and its length."""
    for most in _HEADER:
        file.seek(at)
        reader = _Compact(file.read(most))
        try:
            return reader.struct(), reader.at
        except IndexError:
            continue
    raise DataError(f"there is no header of a page at byte {at}")


class _Compact:
    """Reads values of Thrift's compact protocol; an IndexError says that the bytes are not enough."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a struct: number of a field -> its value; None for what is of no interest."""
        if depth > 8:
            raise DataError("the header of a page is nested too deeply")
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._integer()
            found[field] = self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # true and false are kinds
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):
            return self._skip(8 if kind == 7 else self._varint())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            for _ in range(count):
                self._value(3 if head & 15 in (1, 2) else head & 15, depth + 1)
            return None
        if kind == 12:
            return self.struct(depth + 1)
        raise DataError(f"the header of a page holds a value of kind {kind}")

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._data):
            raise IndexError

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise DataError("the header of a page holds a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
