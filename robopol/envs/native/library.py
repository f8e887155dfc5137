"""The compiled part: built from ``pool.c`` when it is first needed, kept in the user's cache.

Nothing has to be built at installation, so one wheel serves every platform, and an installation from a folder
never runs a binary that is older than its source: the file's name holds the hash of the source. Where there
is no C compiler, worlds are stepped one after the other, with the same results.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from robopol.errors import EnvError

_FLAGS = ("-O2", "-std=c11", "-shared", "-fPIC", "-pthread")


def why_not() -> str | None:
    """Say why nothing can be stepped in native threads here and what to do, or return None if it can."""
    try:
        pool_library()
        mujoco_library()
    except EnvError as error:
        return str(error)
    return None


@functools.cache
def pool_library() -> ctypes.CDLL:
    """Return the functions of ``pool.c``, compiled unless that was done before.

    Raises:
        EnvError: If they cannot be compiled or loaded here.
    """
    source = files("robopol.envs.native").joinpath("pool.c").read_bytes()
    target = "-".join((sys.platform, platform.machine(), *platform.libc_ver()))
    name = f"pool-{target}-{hashlib.sha256(source).hexdigest()[:16]}.so"
    try:
        cache = _cache_folder()
        if cache is not None and Path(cache, name).exists():
            return _declared(ctypes.CDLL(str(cache / name)))
        with tempfile.TemporaryDirectory(dir=cache) as draft:
            built = Path(draft, name)
            _compile(source, built)
            if cache is not None:
                built = built.replace(cache / name)
            return _declared(ctypes.CDLL(str(built)))
    except OSError as error:
        raise EnvError(f"native threads cannot be loaded: {error}; step with backend='serial'") from error


@functools.cache
def mujoco_library() -> ctypes.CDLL:
    """Return the functions of the very MuJoCo library that its Python package uses.

    Raises:
        EnvError: If it is not found where the package keeps it.
    """
    from robopol.envs.engine import mujoco

    folder = Path(mujoco.__file__).parent
    found = [path for path in folder.glob("libmujoco*") if mujoco.mj_versionString() in path.name]
    if len(found) != 1:
        raise EnvError(
            f"{folder} has {len(found)} files of MuJoCo {mujoco.mj_versionString()}'s library, needed 1; reinstall it: "
            "pip install --force-reinstall mujoco"
        )
    library = ctypes.CDLL(str(found[0]))
    pool_library().robopol_catch_errors(ctypes.addressof(ctypes.c_void_p.in_dll(library, "mju_user_error")))
    return library


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    library.robopol_catch_errors.argtypes = [ctypes.c_void_p]
    library.robopol_catch_errors.restype = None
    library.robopol_pool_new.argtypes = [ctypes.c_int, ctypes.c_int]
    library.robopol_pool_new.restype = ctypes.c_void_p
    library.robopol_pool_free.argtypes = [ctypes.c_void_p]
    library.robopol_pool_free.restype = None
    library.robopol_advance.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    library.robopol_advance.restype = ctypes.c_char_p
    return library


def _cache_folder() -> Path | None:
    """Return a folder that nobody else may write into; None if there is none."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = root / "robopol"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    ours = os.name == "posix" and status.st_uid == os.getuid() and not status.st_mode & 0o022
    return folder if ours and os.access(folder, os.W_OK) else None


def _compile(source: bytes, built: Path) -> None:
    """Compile to a shared library.

    Raises:
        EnvError: If there is no compiler, or it fails.
    """
    command = _compiler()
    if os.name != "posix" or not command:
        raise EnvError(
            "native threads need a C compiler once, and there is none; install one (apt-get install gcc, or "
            "xcode-select --install), or name it by the environment variable CC"
        )
    file = built.with_suffix(".c")
    file.write_bytes(source)
    run = subprocess.run([*command, *_FLAGS, "-o", built, file, "-lm"], capture_output=True, text=True, check=False)
    if run.returncode:
        lines = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
        raise EnvError(f"native threads could not be compiled by {command[0]}: {lines[-1]}; name another by CC")


def _compiler() -> list[str]:
    """Return the command of the C compiler; empty if there is none."""
    named = shlex.split(os.environ.get("CC", ""))
    if named:
        return named if shutil.which(named[0]) else []
    if sys.platform == "darwin" and subprocess.run(["xcode-select", "-p"], capture_output=True, check=False).returncode:
        return []  # Apple's stand-in for cc would open a window
    found = next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)
    return [found] if found else []
