"""Checks of a machine: whether what robopol needs is there and works, and what to do where it does not."""

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robopol.config import Config

if TYPE_CHECKING:
    from robopol.policies import Policy
    from robopol.real_robot.robot import RobotConfig

FREE_GB = 2.0
"""Below this much free disk space, gigabytes, a warning is given."""
MATMUL_ERROR = 1e-3
"""Largest rms error of a float32 product of standard normal matrices, 512 wide; bfloat16 has 6e-2."""


class Check(Config):
    """What one check found.

    Attributes:
        name: What was checked.
        status: ``"ok"``; ``"warn"``: something optional does not work; ``"fail"``: robopol will not work.
        detail: What was found.
        advice: What to do; empty if there is nothing to do.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    advice: str = ""


def diagnose() -> list[Check]:
    """Check this machine and the current folder, in some seconds.

    Returns:
        What was found; a check that broke is a failed one.
    """
    found = []
    for check in CHECKS:
        try:
            found += list(check())
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            advice = "mend what the other checks complain of; if they do not, report this as a fault of robopol"
            found.append(Check(name=name, status="fail", detail=f"{type(error).__name__}: {error}", advice=advice))
    return found


def diagnose_robot(words: Sequence[str]) -> list[Check]:
    """Check a robot without moving it, and whether a policy is fast enough for it.

    Args:
        words: ``robot=NAME`` and, if a policy is to be checked, what `robopol deploy` takes besides.

    Raises:
        ConfigError: If they describe no robot.
    """
    from robopol.config import parse
    from robopol.configs import load_config
    from robopol.real_robot.robot import RobotConfig

    tree = load_config("deploy", words)
    robot = parse(RobotConfig, tree.pop("robot", {}))
    found = [*check_loop(robot), *check_arm(robot), *check_cameras(robot)]
    if "checkpoint" in tree:
        found += check_policy(robot, tree)
    return found


def check_loop(robot: "RobotConfig") -> Iterator[Check]:
    """Measure how punctual the servo loop can be, and what its own part of a tick costs."""
    from robopol.real_robot.checkup import measure_loop

    granted, late, cost = measure_loop(robot)
    good = late.missed <= 0.05 and cost < robot.period / 2
    yield Check(
        name="servo loop",
        status="ok" if good else "warn",
        detail=f"{1 / robot.period:.0f} Hz, {granted}; late by {late.median * 1e6:.0f} us, 99 of 100 ticks by less "
        f"than {late.p99 * 1e6:.0f} us, {late.missed:.1%} missed; plan and limiter take up to {cost * 1e6:.0f} us",
        advice="" if good else "end what else runs, allow SCHED_FIFO (ulimit -r 50), or make robot.period longer",
    )


def check_arm(robot: "RobotConfig") -> Iterator[Check]:
    """Connect the arm and read it, without moving it."""
    from robopol.errors import RobopolError
    from robopol.real_robot.checkup import answers
    from robopol.real_robot.servo import READ_AT

    if robot.driver.kind == "simulated" and not robot.driver.model:
        yield Check(name="arm", status="ok", detail="simulated, in the scene of the policy's task")
        return
    try:
        found = answers(robot)
    except RobopolError as error:
        yield Check(name="arm", status="fail", detail=str(error), advice="look at cables, power and robot.driver")
        return
    left = (1 - READ_AT) * robot.period
    good = found.failed < 0.01 and found.p99 < left
    yield Check(
        name="arm",
        status="ok" if good else "warn",
        detail=f"{found.model} answers in up to {found.p99 * 1e3:.1f} ms, {found.fresh:.0f} new states a second, "
        f"{found.failed:.1%} of the reads failed",
        advice=""
        if good
        else f"an arm is to answer within {left * 1e3:.1f} ms, before the next goal is due: make robot.period longer",
    )


def check_cameras(robot: "RobotConfig") -> Iterator[Check]:
    """Take pictures by every camera for two seconds."""
    from robopol.errors import RobopolError
    from robopol.real_robot.checkup import view

    for name, camera in robot.cameras.items():
        title = f"camera {name}"
        if robot.driver.kind == "simulated" and not robot.driver.model:
            yield Check(name=title, status="ok", detail="of the scene of the policy's task")
            continue
        try:
            found = view(robot, name)
        except RobopolError as error:
            advice = f"look at cables, other programs that use it, and robot.cameras.{name}"
            yield Check(name=title, status="fail", detail=str(error), advice=advice)
            continue
        slow = found.fps < 0.9 * camera.fps
        good = not slow and not found.repeated
        age = "of an age that it does not tell" if found.age is None else f"{found.age * 1e3:.0f} ms old on arrival"
        yield Check(
            name=title,
            status="ok" if good else "warn",
            detail=f"{found.about}; {found.fps:.1f} pictures a second of {camera.size[0]} x {camera.size[1]} "
            f"({camera.fps:.4g} wanted), {age}, {found.missed} missed, {found.repeated} repeated",
            advice=""
            if good
            else f"lower robot.cameras.{name}.fps, width and height, try format=MJPG, more light, another USB port",
        )


def check_policy(robot: "RobotConfig", tree: dict[str, Any]) -> Iterator[Check]:
    """Let a policy plan for an observation of zeros, and compare the time with the robot's."""
    from robopol.config import parse
    from robopol.real_robot.checkup import verdict
    from robopol.real_robot.policy_process import Speaker, latency_of
    from robopol.real_robot.sight import check_cameras as fits
    from robopol.real_robot.waypoints import waypoints_for

    speaker = parse(Speaker, {key: value for key, value in tree.items() if key in Speaker.model_fields})
    policy = speaker.ready()
    waypoints_for(policy.spec, robot)
    if robot.driver.kind != "simulated" or robot.driver.model or robot.cameras:
        fits(policy.spec, robot.cameras, recorded=True)
    executed = speaker.period(policy.spec)
    said = verdict(robot, latency_of(policy), executed, policy.spec.tree())
    slow = "TOO SLOW" in said
    yield Check(
        name="policy",
        status="fail" if slow else "ok",
        detail=said,
        advice="fewer steps (policy.sampler=ddim policy.steps=5), policy.backend, export, or a GPU" if slow else "",
    )
    if tree.get("record") is not None:
        yield check_weights(robot, policy, executed, str(tree["record"]))


def check_weights(robot: "RobotConfig", policy: "Policy", executed: int, folder: str) -> Check:
    """Let a policy plan for what was recorded of the robot: the gate that new weights have to pass."""
    from robopol.real_robot.fitness import try_on

    trial = try_on(policy, robot, executed, folder)
    p99, allowed = trial.fitness.p99 * 1e3, trial.allowed * 1e3
    good = f"its plans are plans, 99 of 100 within {p99:.0f} ms, and {allowed:.0f} ms are allowed"
    return Check(
        name="weights",
        status="fail" if trial.fault else "ok",
        detail=f"on the observations of {trial.episodes} episodes: {trial.fault or good}",
        advice="leave the old weights where they are, or look at these actions" if trial.fault else "",
    )


def check_python() -> Iterator[Check]:
    """Name the Python and the system."""
    yield Check(name="python", status="ok", detail=f"{platform.python_version()}, {platform.platform()}")


def check_packages() -> Iterator[Check]:
    """Compare every package that robopol names with what is installed."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires("robopol") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check(
            name="robopol",
            status="warn",
            detail="runs from a folder without being installed, so versions are not checked",
            advice="pip install -e . in that folder",
        )
        return
    for needed in map(Requirement, lines):
        extra = str(needed.marker).partition("extra == ")[2].strip("\"'") if needed.marker else ""
        remedy = f"pip install 'robopol[{extra}]'" if extra else f"pip install '{needed.name}{needed.specifier}'"
        bad: Literal["warn", "fail"] = "warn" if extra else "fail"
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            status = "ok" if extra else bad  # not to have what is optional is no fault
            detail = "not installed" + (" (optional)" if extra else "")
            yield Check(name=needed.name, status=status, detail=detail, advice=remedy)
            continue
        if needed.specifier.contains(version, prereleases=True):
            yield Check(name=needed.name, status="ok", detail=version)
        else:
            yield Check(name=needed.name, status=bad, detail=f"{version}, needed {needed.specifier}", advice=remedy)


def check_processors() -> Iterator[Check]:
    """Name the CPU and the GPU."""
    import torch

    from robopol.training.environment import cpu_model

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(name="cpu", status="ok", detail=f"{cores} x {cpu_model()}")
    if torch.cuda.is_available():
        torch.ones(64, 64, device="cuda").mm(
            torch.ones(64, 64, device="cuda")
        ).sum().item()  # are there kernels for it?
        size = torch.cuda.get_device_properties(0).total_memory / 2**30
        yield Check(
            name="gpu",
            status="ok",
            detail=f"{torch.cuda.get_device_name()}, {size:.0f} GiB, CUDA {torch.version.cuda}",
        )
    elif Path("/proc/driver/nvidia/version").exists():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        yield Check(
            name="gpu",
            status="warn",
            detail=f"there is an NVIDIA driver, but torch {torch.__version__} cannot use it; it {built}",
            advice="install a torch that fits the driver (pytorch.org, 'Get started'), or update the driver",
        )
    else:
        yield Check(name="gpu", status="ok", detail="none; everything runs on the CPU")


def check_matmul() -> Iterator[Check]:
    """Choose the arithmetic that a run on the CPU would choose, and look at its error."""
    from robopol.networks.precision import RuntimeConfig

    runtime = RuntimeConfig(device="cpu").build()
    setting = (runtime.precision, runtime.matmul, runtime.threads)
    chosen = next(t for t in runtime.trials if (t.precision, t.matmul, t.threads) == setting)
    good = chosen.rms_error < MATMUL_ERROR
    yield Check(
        name="matmul",
        status="ok" if good else "fail",
        detail=f"{runtime.precision} by '{runtime.matmul}' kernels, threads: {runtime.threads}; "
        f"a small training step takes {chosen.step_ms:.2f} ms; rms error of a product {chosen.rms_error:.1e}",
        advice="" if good else "set runtime.matmul=highest, update torch, check this machine's memory",
    )


def check_simulation() -> Iterator[Check]:
    """See whether worlds are stepped in native threads."""
    from robopol.envs.native import why_not
    from robopol.networks.precision import usable_cores

    reason = why_not()
    if reason is None:
        yield Check(name="simulation", status="ok", detail=f"native threads, up to {usable_cores()}")
    else:
        what, _, advice = reason.partition("; ")
        yield Check(name="simulation", status="warn", detail=f"one world after the other: {what}", advice=advice)


def check_rendering() -> Iterator[Check]:
    """Find an OpenGL backend that works."""
    from robopol.envs.rendering import gl_backend, why_not

    reason = why_not()
    if reason is None:
        yield Check(name="rendering", status="ok", detail=f"OpenGL by {gl_backend()}")
    else:
        what, _, advice = reason.partition("; ")
        yield Check(name="rendering", status="warn", detail=what, advice=advice)


def check_video() -> Iterator[Check]:
    """Write a short MP4 and read it back."""
    import av
    import numpy as np

    from robopol.evaluation.video import Film

    film = Film([0], fps=10)
    for shade in (0, 255):
        film.frame(0, np.full((64, 64, 3), shade, np.uint8))
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "film.mp4")
            film.save(path)
            with av.open(str(path)) as container:
                first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    except (av.FFmpegError, ValueError, OSError) as error:
        yield Check(
            name="video",
            status="warn",
            detail=f"no H.264 in MP4: {error}",
            advice="pip install --force-reinstall av (wheels have an encoder), or train with eval.videos=0",
        )
        return
    if first.mean() > 20:
        detail, advice = (
            "an MP4 that was read back differs from what was written",
            "pip install --force-reinstall av",
        )
        yield Check(name="video", status="warn", detail=detail, advice=advice)
    else:
        yield Check(name="video", status="ok", detail=f"H.264 in MP4 by av {av.__version__}")


def check_disk() -> Iterator[Check]:
    """Look for free space and write permission in the current folder, where runs go."""
    here = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=here) as file:
            file.write(b"0")
    except OSError as error:
        yield Check(
            name="disk",
            status="fail",
            detail=f"cannot write in {here}: {error}",
            advice="work in a folder of yours, or name one by run=",
        )
        return
    free = shutil.disk_usage(here).free / 1e9
    enough = free >= FREE_GB
    yield Check(
        name="disk",
        status="ok" if enough else "warn",
        detail=f"{free:.1f} GB free in {here}",
        advice=""
        if enough
        else "delete old runs, keep fewer checkpoints (checkpoint.keep=1), or name another disk by run=",
    )


CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    check_python,
    check_packages,
    check_processors,
    check_matmul,
    check_simulation,
    check_rendering,
    check_video,
    check_disk,
)
"""Every check, in the order of the report."""
