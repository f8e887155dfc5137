"""Datasets by id, ``source:name``: fetched once over https into a cache folder, whole or not at all."""

import hashlib
import http.client
import json
import os
import re
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote, urljoin, urlsplit

from robopol import __version__
from robopol.data.sources import BASES, RemoteFile, entry, remote_files
from robopol.errors import DataError
from robopol.files import TEMPORARY
from robopol.progress import Advance, progress

_BLOCK = 2**20
_LISTING = 2**26  # bytes that a list of files may have
_SECONDS = 30.0  # that a server may stay silent
_INFLATION = 100  # how many times an archive may grow when it is unpacked


def cache_dir() -> Path:
    """Return the folder of downloaded datasets: ``ROBOPOL_DATA``, or ``~/.cache/robopol/data``."""
    return Path(os.environ.get("ROBOPOL_DATA") or "~/.cache/robopol/data").expanduser()


def download(source: str, name: str, *, bases: Mapping[str, str] = BASES) -> Path:
    """Return where a dataset is on this machine, fetching it first if it is not there.

    Sizes are always checked, and the checksums that the Hugging Face hub states.

    Args:
        source: A key of `BASES`.
        name: One of its datasets, e.g. ``"hopper-medium-v2"``.
        bases: Source -> where its files are.

    Returns:
        The file or the folder that the source's format reads.

    Raises:
        DataError: If there is no such dataset, it cannot be reached, or what came is not what was announced.
            Nothing is left in the cache then.
    """
    folder = cache_dir() / source / name
    if not folder.is_dir():
        try:
            _download(source, name, bases[source], folder)
        except (OSError, DataError, http.client.HTTPException, zipfile.BadZipFile) as error:
            reason = str(error) or type(error).__name__
            raise DataError(
                f"{source}:{name} is neither the local path {Path(name).absolute()} nor in the cache ({folder}), and "
                f"could not be downloaded: {reason}; if you have it elsewhere, give its path: {source}:/path/to/it"
            ) from error
    return folder / entry(source, name)


def _download(source: str, name: str, base: str, folder: Path) -> None:
    web = _Web(base)
    files = [
        file if file.size >= 0 else replace(file, size=web.size(file.url))
        for file in remote_files(source, name, base, web.listing)
    ]
    total = sum(file.size for file in files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder.parent).free) < total:
        raise DataError(f"it needs {_megabytes(total)}, {folder.parent} has {_megabytes(free)} left")
    print(f"{source}:{name}: {len(files)} files, {_megabytes(total)}, to {folder}", file=sys.stderr)
    # A name of its own, so that two processes that fetch the same dataset do not meet.
    draft = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{folder.name}-", dir=folder.parent))
    try:
        _fetch(web, files, draft)
        if source == "zarr":
            _unpack(draft / files[0].name, draft)
        if not (draft / entry(source, name)).exists():
            raise DataError(f"there is no {entry(source, name)} in what came from {files[0].url}")
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process may have been faster; its copy is as good
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


class _Web:
    """Fetches from one source, over https only (the base itself may be another, and then its own host too)."""

    def __init__(self, base: str) -> None:
        self._base = base
        parts = urlsplit(base)
        allowed = ("https://", f"{parts.scheme}://{parts.netloc}/")

        class Redirects(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
                if not arguments[-1].startswith(allowed):
                    raise DataError(f"{arguments[0].full_url} leads to {arguments[-1]}, which is not https")
                return super().redirect_request(*arguments)

        self._opener = urllib.request.build_opener(Redirects)

    def open(self, url: str, method: str = "GET") -> Any:
        """Open a file; the response is a context manager."""
        request = urllib.request.Request(url, method=method, headers={"User-Agent": f"robopol/{__version__}"})
        try:
            return self._opener.open(request, timeout=_SECONDS)
        except urllib.error.HTTPError as error:
            error.close()
            raise DataError(f"{url}: {_status(error)}") from error
        except urllib.error.URLError as error:
            raise DataError(f"{url}: {error.reason}") from error

    def size(self, url: str) -> int:
        """Ask the server how many bytes a file has."""
        with self.open(url, "HEAD") as response:
            length = response.headers.get("Content-Length", "")
        if not length.isdigit():
            raise DataError(f"{url} does not say how long it is, so that a cut transfer would not be noticed")
        return int(length)

    def listing(self, repository: str, folder: str) -> list[RemoteFile]:
        """List the files of a dataset repository of the Hugging Face hub, names relative to ``folder``."""
        root = f"{self._base}/api/datasets/{quote(repository)}/tree/main"
        page: str | None = f"{root}{'/' * bool(folder)}{quote(folder)}?recursive=true"
        files: list[RemoteFile] = []
        while page is not None:
            with self.open(page) as response:
                text, link = response.read(_LISTING), response.headers.get("Link", "")
            try:
                files += [self._remote(repository, folder, item) for item in json.loads(text) if item["type"] == "file"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{page} is not a list of files as the hub gives them: {error!r}") from error
            following = re.search(r'<([^>]+)>;\s*rel="next"', link)
            page = urljoin(page, following[1]) if following else None
            if page is not None and not page.startswith(root):
                raise DataError(f"{root} goes on at {page}, which is not the same list")
        if not files:
            raise DataError(f"{root}/{folder} has no files")
        return files

    def _remote(self, repository: str, folder: str, item: dict[str, Any]) -> RemoteFile:
        path = item["path"]
        return RemoteFile(
            url=f"{self._base}/datasets/{quote(repository)}/resolve/main/{quote(path)}",
            name=str(PurePosixPath(path).relative_to(folder)) if folder else path,
            size=int(item["size"]),
            digest=f"sha256:{item['lfs']['oid']}" if item.get("lfs") else f"git:{item['oid']}",
        )


def _fetch(web: _Web, files: list[RemoteFile], folder: Path) -> None:
    """Fetch files into a folder."""
    targets = [_inside(folder, file.name) for file in files]
    done = 0
    with progress("download", max(1, round(sum(file.size for file in files) / 1e6)), "MB") as report:
        for file, target in zip(files, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            with web.open(file.url) as response, target.open("wb") as out:
                _copy(response, out, file, done, report)
            done += file.size


def _copy(response: Any, out: IO[bytes], file: RemoteFile, done: int, report: Advance) -> None:
    """Copy one file and check its size and its checksum."""
    kind, _, expected = file.digest.partition(":")
    digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if kind == "git" else hashlib.sha256()
    got = 0
    while block := response.read(_BLOCK):
        got += len(block)
        if got > file.size:
            break
        digest.update(block)
        out.write(block)
        report(round((done + got) / 1e6))
    if got != file.size:
        raise DataError(f"{file.url}: {'more than ' * (got > file.size)}{got} bytes came, {file.size} were announced")
    if expected and digest.hexdigest() != expected:
        raise DataError(f"{file.url}: the {kind} checksum is {digest.hexdigest()}, the source states {expected}")
    out.flush()
    os.fsync(out.fileno())


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into a folder and remove it."""
    limit = min(_INFLATION * archive.stat().st_size, shutil.disk_usage(folder).free)
    with zipfile.ZipFile(archive) as file:
        total = sum(member.file_size for member in file.infolist())
        if total > limit:
            raise DataError(f"{archive.name} would unpack to {_megabytes(total)}; {_megabytes(limit)} are allowed")
        for member in file.infolist():
            target = _inside(folder, member.filename)
            if member.is_dir():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open(member) as packed, target.open("wb") as out:
                shutil.copyfileobj(packed, out)
    archive.unlink()


def _inside(folder: Path, name: str) -> Path:
    """Return a path inside a folder, whatever the name tries."""
    parts = name.rstrip("/").split("/")
    if name != "." and (re.search(r"[\\:\0]", name) or {"", ".", ".."} & set(parts)):
        raise DataError(f"the file name {name!r} does not stay in the dataset's folder")
    return folder / name


def _status(error: urllib.error.HTTPError) -> str:
    if error.code in (401, 403):
        return (
            f"refused ({error.code}): it does not exist, is private, or asks you to log in and accept its terms; "
            "then download it with your own account"
        )
    return "there is no such file (404)" if error.code == 404 else f"the server says {error.code} {error.reason}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
