import importlib.metadata
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from robopol import doctor
from robopol.config import parse
from robopol.doctor import Check, diagnose
from robopol.envs import native, rendering
from robopol.networks import precision


@pytest.fixture(scope="module")
def found():
    return diagnose()


def test_the_machine_that_runs_the_tests_has_what_robopol_needs(found):
    assert [check for check in found if check.status == "fail"] == []
    assert {"python", "cpu", "gpu", "matmul", "simulation", "rendering", "video", "disk"} <= {
        check.name for check in found
    }


def test_whoever_does_not_get_ok_is_told_what_to_do(found):
    assert all(check.advice for check in found if check.status != "ok")


def test_checks_are_json(found):
    told = json.loads(json.dumps([check.tree() for check in found]))
    assert [parse(Check, tree) for tree in told] == found


def test_a_check_that_breaks_is_a_failed_check(monkeypatch):
    def check_luck():
        yield Check(name="first", status="ok", detail="seen")
        raise RuntimeError("out of luck")

    monkeypatch.setattr(doctor, "CHECKS", (check_luck, doctor.check_python))
    broken, python = diagnose()
    assert (broken.name, broken.status, broken.detail) == ("luck", "fail", "RuntimeError: out of luck")
    assert python.status == "ok"


@pytest.mark.parametrize(
    ("line", "installed", "status", "advice"),
    [
        ("torch>=2.11", "2.12.1", "ok", ""),
        ("torch>=2.11", "2.9.0", "fail", "pip install 'torch>=2.11'"),
        ("torch>=2.11", None, "fail", "pip install 'torch>=2.11'"),
        ('wandb>=0.19; extra == "wandb"', "0.31.0", "ok", ""),
        ('sb3-contrib>=2.6; extra == "sb3"', "2.0", "warn", "pip install 'robopol[sb3]'"),
        ('sb3-contrib>=2.6; extra == "sb3"', None, "ok", "pip install 'robopol[sb3]'"),
    ],
)
def test_packages_are_held_against_what_robopol_asks_for(monkeypatch, line, installed, status, advice):
    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [line])
    monkeypatch.setattr(importlib.metadata, "version", version)
    (check,) = doctor.check_packages()
    assert (check.status, check.advice) == (status, advice)


def test_robopol_need_not_be_installed(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    (check,) = doctor.check_packages()
    assert check.status == "warn"
    assert "pip install -e ." in check.advice


def test_without_native_threads_there_is_a_warning_with_advice(monkeypatch):
    monkeypatch.setattr(native, "why_not", lambda: "native threads need a C compiler; install one")
    (check,) = doctor.check_simulation()
    assert check.status == "warn"
    assert check.detail.endswith("native threads need a C compiler")
    assert check.advice == "install one"


def test_without_opengl_there_is_a_warning_with_advice(monkeypatch):
    monkeypatch.setattr(rendering, "why_not", lambda: rendering.NO_BACKEND.format(tried="egl, osmesa"))
    (check,) = doctor.check_rendering()
    assert check.status == "warn"
    assert "tried egl, osmesa" in check.detail
    assert check.advice.startswith("install EGL drivers")


def test_inaccurate_matrix_products_fail(monkeypatch):
    monkeypatch.setattr(precision, "_product_error", lambda *_: (0.06, 0.3))
    (check,) = doctor.check_matmul()
    assert check.status == "fail"
    assert "matmul=highest" in check.advice


def test_a_full_disk_is_noticed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Usage = namedtuple("Usage", "total used free")
    for free, status in ((1.9e9, "warn"), (2.1e9, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(1e12, 0, int(free)))
        (check,) = doctor.check_disk()
        assert check.status == status
        assert f"{free / 1e9:.1f} GB" in check.detail


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody may write")
def test_a_folder_in_which_nobody_may_write_fails(monkeypatch):
    monkeypatch.chdir("/proc")
    (check,) = doctor.check_disk()
    assert check.status == "fail"
    assert "/proc" in check.detail
