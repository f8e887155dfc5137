"""Damaged files of every format: whatever the bytes, the outcome is valid episodes or one `DataError`.

Reading happens in another process, because a library that crashes, hangs or eats the memory must fail the test
and not the run. A coverage-guided fuzzer (atheris) would not see further: the code that parses untrusted bytes is
HDF5, zlib, Blosc and Arrow, which it cannot look into without building them anew.
"""

import hashlib
import multiprocessing
import resource
import traceback
import warnings
from dataclasses import dataclass, replace

import dataset_files as files
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from robopol.data import load_episodes, save_episodes
from robopol.errors import DataError

SECONDS = 20  # of one small file; reading takes milliseconds
MEGABYTES = 300  # that reading small files may add


def saved(format, options="", **more):
    """A writer by robopol's own writer of a format."""
    return lambda path, make: save_episodes(make([3, 2], states=True, **more), f"{format}:{path}{options}")


def old_lerobot(path, make):
    """Layout v2.1, as somebody else might have written it."""
    episodes = make([3, 2], images=True)
    images = [obs["images.front"].repeat(1, 8, 8, 1) for obs in (episodes.obs, episodes.final_obs)]
    large = replace(episodes, obs={"images.front": images[0]}, final_obs={"images.front": images[1]})
    save_episodes(large, f"lerobot:{path}")
    (path / "robopol.safetensors").unlink()
    files.lerobot_v21(path)


# Name -> how a small whole file or folder is written (path, what makes episodes), and the options it is read with.
# Where everything that is read carries a CRC (EXACT), what is still read must be what was written. The Fletcher
# checksums of HDF5 do not tell 0x0000 from 0xffff.
CASES = {
    "d4rl": (lambda path, _: files.d4rl(path, following=True), ""),
    "dppo": (lambda path, _: files.dppo(path), ""),
    "ogbench": (lambda path, _: files.ogbench(path.with_suffix(".npz")).rename(path), ""),
    "robomimic": (saved("robomimic"), ""),
    "robomimic, foreign": (lambda path, _: files.robomimic(path), "?dones=success"),
    "zarr": (lambda path, _: files.zarr(path), "?ends=truncated"),
    "zarr, format 3": (lambda path, _: files.zarr(path, 3), "?ends=truncated&missing=fill"),
    "zarr, zip": (lambda path, _: files.zarr(path.with_suffix(".zip")).rename(path), "?ends=truncated"),
    "minari": (saved("minari"), ""),
    "minari, jpeg": (lambda path, _: files.minari(path), ""),
    "minari, arrow": (lambda path, _: files.minari(path, "arrow"), ""),
    "minari, arrow, raw": (lambda path, _: files.minari(path, "arrow", jpeg=False), ""),
    "minari, parquet": (lambda path, _: files.minari(path, "parquet"), ""),
    "lerobot": (saved("lerobot"), ""),
    "lerobot, png": (saved("lerobot", "?images=png", images=True), ""),
    "lerobot, mp4": (saved("lerobot", "?images=h264", images=True), ""),
    "lerobot, v2.1": (old_lerobot, "?ends=truncated"),
    "arrays": (saved("arrays", images=True), ""),
}
EXACT = {"dppo", "ogbench", "zarr, zip"}

where = st.floats(0, 1, exclude_max=True)
DAMAGE = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), where, st.integers(1, 255)),
        st.tuples(st.just("cut"), where, st.none()),
        st.tuples(st.just("insert"), where, st.binary(min_size=1, max_size=9)),
        st.tuples(st.just("remove"), where, st.integers(1, 9)),
        st.tuples(st.just("overwrite"), where, st.sampled_from([bytes(8), b"\xff" * 8, b"\x7f" + b"\xff" * 3])),
    ),
    min_size=1,
    max_size=3,
)


def damaged(data: bytes, damages) -> bytes:
    out = bytearray(data)
    for kind, fraction, how in damages:
        at = int(fraction * len(out))
        if kind == "flip" and out:
            out[at] ^= how
        elif kind == "cut":
            del out[at:]
        elif kind == "insert":
            out[at:at] = how
        elif kind == "remove":
            del out[at : at + how]
        elif kind == "overwrite":
            out[at : at + len(how)] = how
    return bytes(out)


def serve(pipe) -> None:
    """Read what the pipe names until it closes; answer what happened and the largest memory so far (KiB)."""
    warnings.simplefilter("ignore")
    while True:
        uri = pipe.recv()
        try:
            episodes = load_episodes(uri)
            columns = episodes.step_columns() | episodes.episode_columns()
            digest = hashlib.sha256(repr([(n, c.numpy().tobytes()) for n, c in columns.items()]).encode())
            outcome = f"episodes {digest.hexdigest()}"
        except DataError:
            outcome = "DataError"
        except BaseException:
            outcome = traceback.format_exc()
        pipe.send((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


@dataclass
class Reader:
    """A process that reads; a new one is started when it was lost."""

    process: multiprocessing.Process | None = None
    pipe: object = None

    def read(self, uri: str) -> tuple[str, int]:
        if self.process is None:
            # Not forked: the test run may have threads.
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=serve, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
            self.pipe.send("none.hdf5")  # importing takes longer than reading
            assert self.pipe.poll(300)
            assert self.pipe.recv()[0] == "DataError"
        self.pipe.send(uri)
        try:
            if self.pipe.poll(SECONDS):
                return self.pipe.recv()
            outcome = f"no answer after {SECONDS} seconds"
        except EOFError:
            self.process.join()
            outcome = f"the process died with {self.process.exitcode}"
        self.stop()
        return outcome, 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
        self.process = None


@pytest.fixture(scope="module")
def reader():
    one = Reader()
    yield one
    one.stop()


@pytest.mark.parametrize("name", CASES)
def test_damaged_files_are_read_or_refused(name, reader, make_episodes, tmp_path):
    format = name.partition(",")[0]
    write, options = CASES[name]
    whole = tmp_path / "made-v0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(whole, make_episodes)
    contents = {p.relative_to(whole): p.read_bytes() for p in sorted([whole, *whole.rglob("*")]) if p.is_file()}
    original, before = reader.read(f"{format}:{whole}{options}")
    assert original.startswith("episodes")
    copy = tmp_path / "damaged-v0"
    for file, data in contents.items():
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (copy / file).write_bytes(data)
    peak = before

    @settings(max_examples=30, suppress_health_check=list(HealthCheck))
    @given(which=where, damages=DAMAGE)
    def fuzz(which, damages):
        nonlocal peak
        chosen = list(contents)[int(which * len(contents))]
        note(f"{chosen} of {name}")
        (copy / chosen).write_bytes(damaged(contents[chosen], damages))
        outcome, memory = reader.read(f"{format}:{copy}{options}")
        (copy / chosen).write_bytes(contents[chosen])
        read = outcome == original if name in EXACT else outcome.startswith("episodes ")
        assert read or outcome == "DataError", outcome
        peak = max(peak, memory)

    fuzz()
    assert peak - before < MEGABYTES * 1024
