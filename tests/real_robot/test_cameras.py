"""The camera of OpenCV, on a video file as its device, and the process that a camera has."""

import importlib.util
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from lockstep import MS, robot
from looking import ask

from robopol import cli
from robopol.config import parse
from robopol.doctor import check_cameras
from robopol.errors import ConfigError, MissingExtraError, RobotError
from robopol.real_robot import checkup
from robopol.real_robot.cameras.opencv import OpenCVConfig
from robopol.real_robot.capture import Capture
from robopol.real_robot.channels import Channels
from robopol.real_robot.clock import MonotonicClock, VirtualClock
from robopol.real_robot.process import Child

opencv = pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="pip install 'robopol[opencv]'")
HEIGHT, WIDTH = 32, 64


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Ten pictures: red on the left, blue on the right, between them green that becomes brighter."""
    import cv2

    path = tmp_path_factory.mktemp("video") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 10.0, (WIDTH, HEIGHT))
    for k in range(10):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[:, :16, 0], image[:, 16:48, 1], image[:, 48:, 2] = 200, 100 + 10 * k, 200
        writer.write(image[..., ::-1])
    writer.release()
    return str(path)


def opened(video, clock=None, **fields):
    config = parse(OpenCVConfig, {"source": video, "fps": 10.0, "size": [HEIGHT, WIDTH]} | fields)
    camera = config.build(clock or VirtualClock(), None)
    return camera, camera.open()


@opencv
def test_pictures_have_their_colours_and_the_time_of_their_arrival_less_the_latency(video):
    clock = VirtualClock(1_000 * MS)
    camera, about = opened(video, clock, latency=0.03)
    assert "64 x 32" in about
    for k in range(10):
        frame = camera.read()
        assert frame.t == (1_000 + 100 * k - 30) * MS
        expected = [(200, 0, 0), (0, 100 + 10 * k, 0), (0, 0, 200)]
        np.testing.assert_allclose(frame.image[HEIGHT // 2, [4, WIDTH // 2, -4]], expected, atol=3)
    assert camera.read() is None
    camera.close()
    camera.close()


def ages(monkeypatch, *told):
    """Return how old a device's pictures are said to be, s, which are so old by its own stamps, None without one."""
    clock, left = VirtualClock(100_000 * MS), list(told)
    device = SimpleNamespace(isOpened=lambda: True, set=lambda *_: None, release=lambda: None)
    device.getBackendName, device.grab = lambda: "V4L2", lambda: True
    device.retrieve = lambda: (True, np.zeros((HEIGHT, WIDTH, 3), np.uint8))

    def get(what):
        if what in ("width", "height"):
            return {"width": WIDTH, "height": HEIGHT}[what]
        age = left.pop(0)
        return 0.0 if age is None else clock.now() * 1e-6 - age * 1e3

    device.get = get
    names = {"CAP_PROP_FRAME_WIDTH": "width", "CAP_PROP_FRAME_HEIGHT": "height", "CAP_PROP_POS_MSEC": "stamp"}
    names |= dict.fromkeys(["CAP_PROP_FPS", "CAP_PROP_BUFFERSIZE"])
    logging = SimpleNamespace(setLogLevel=lambda level: None, LOG_LEVEL_SILENT=0)
    cv = SimpleNamespace(**names, utils=SimpleNamespace(logging=logging), VideoCapture=lambda source: device)
    monkeypatch.setitem(sys.modules, "cv2", cv)
    camera, _ = opened(0, clock, latency=0.01)
    frames = [camera.read() for _ in told]
    return [frame and round((clock.now() - frame.t) * 1e-9 - 0.01, 6) for frame in frames], camera.stamps


def test_whether_a_device_stamps_is_decided_once_and_an_old_picture_stays_old(monkeypatch):
    assert ages(monkeypatch, 0.03, 0.9, 1.1, 3.0, None) == ([0.03, 0.9, 1.1, 3.0, 100.0], True)
    assert ages(monkeypatch, 2.0, 0.03, 2.0) == ([None, 0.03, 2.0], True)  # the first one had waited since the opening
    assert ages(monkeypatch, 0.03, -0.2, 0.03) == ([0.03, None, 0.03], True)  # of the future
    assert ages(monkeypatch, *[None] * 6, 0.03) == ([None] * 4 + [0.0] * 3, False)


@opencv
@pytest.mark.parametrize(
    ("fields", "left", "middle"),
    [
        ({"size": [16, 16]}, (0, 100, 0), (0, 100, 0)),  # the middle of it
        ({"size": [16, 32]}, (200, 0, 0), (0, 100, 0)),  # all of it, smaller
        ({"size": [64, 128]}, (200, 0, 0), (0, 100, 0)),  # larger
        ({"size": [32, 32], "crop": [0, 0, 32, 64]}, (200, 0, 0), (0, 100, 0)),  # squeezed
        ({"size": [8, 8], "crop": [4, 48, 8, 8]}, (0, 0, 200), (0, 0, 200)),
        ({"order": "rgb"}, (0, 0, 200), (0, 100, 0)),
    ],
)
def test_the_part_that_is_kept_is_scaled_to_what_the_policy_looks_at(video, fields, left, middle):
    camera, _ = opened(video, **fields)
    image = camera.read().image
    assert list(image.shape) == [*fields.get("size", [HEIGHT, WIDTH]), 3]
    assert image.flags.c_contiguous
    row = image[len(image) // 2]
    np.testing.assert_allclose(row[1], left, atol=3)
    np.testing.assert_allclose(row[len(row) // 2], middle, atol=3)
    camera.close()


@opencv
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"source": "/nowhere.avi"}, "no camera at source='/nowhere.avi'"),
        ({"source": 63}, "no camera at source=63"),
        ({"width": 640, "height": 480}, "gives 64 x 32 pixels, asked for were 640 x 480"),
        ({"crop": [0, 40, 32, 32]}, "not within the camera's 32 x 64"),
    ],
)
def test_a_camera_that_is_not_there_or_cannot_do_it_is_an_error_in_words(video, fields, text):
    with pytest.raises(RobotError, match=text):
        opened(video, **fields)


def test_settings_that_make_no_sense_and_a_missing_package_are_errors_in_words(monkeypatch):
    for fields, text in (
        ({"width": 640}, "go together"),
        ({"crop": [0, 0, 0, 4]}, "top, left, height, width"),
        ({"fps": 0.0}, "greater than 0"),
        ({"sise": [1, 1]}, "did you mean size"),
    ):
        with pytest.raises(ConfigError, match=text):
            parse(OpenCVConfig, fields)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"robopol\[opencv\]"):
        OpenCVConfig().build(VirtualClock(), None).open()


def test_cameras_are_listed_with_their_keys(capsys):
    assert cli.run(["list", "camera"]) == 0
    assert "rendered" in capsys.readouterr().out
    assert cli.run(["list", "camera", "opencv"]) == 0
    assert "/dev/v4l/by-id" in capsys.readouterr().out


@opencv
def test_the_doctor_says_how_a_camera_does(video, monkeypatch):
    monkeypatch.setattr(checkup, "MonotonicClock", VirtualClock)
    cameras = {"front": {"kind": "opencv", "source": video, "size": [8, 8], "fps": 10.0, "patience": 0.2}}
    (check,) = check_cameras(robot(cameras=cameras))
    assert check.status == "fail"  # the file ends before the two seconds do
    assert "no picture in" in check.detail
    cameras["front"] |= {"patience": 5.0}
    (check,) = check_cameras(robot(cameras=cameras))
    assert check.status == "ok"
    assert "10.0 pictures a second of 8 x 8 (10 wanted), of an age that it does not tell, 0 missed" in check.detail
    cameras["front"] |= {"source": "/nowhere.avi"}
    (check,) = check_cameras(robot(cameras=cameras))
    assert "/nowhere.avi" in check.detail


@opencv
def test_a_process_takes_the_pictures_and_ends_with_its_parent(video):
    made = robot(cameras={"front": {"kind": "opencv", "source": video, "size": [8, 16], "fps": 10.0}})
    channels, clock = Channels.new(made), MonotonicClock()
    film, before = channels.films["front"], clock.now()
    setup = {"robot": made.tree(), "channels": channels.handles(), "camera": "front"}
    child = Child("camera_process", setup, channels.descriptors)
    assert "64 x 32" in child.ready()["about"]
    end = time.monotonic() + 60
    while film.ring.count < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert before < film.newest() <= clock.now()
    assert film.pulse.pid == child.process.pid
    assert film.at(clock.now()).image[4, 1, 0] > 190
    child.process.stdin.close()  # what the kernel does when the supervisor is killed
    assert child.process.wait(20) == 0
    child.process.stdin = None
    child.end(1.0)
    channels.close()


@opencv
def test_capture_of_a_file_that_ends(video):
    clock, got = VirtualClock(), []
    camera, _ = opened(video, clock, patience=0.35)
    config = parse(OpenCVConfig, {"size": [HEIGHT, WIDTH], "fps": 10.0, "patience": 0.35})
    capture = Capture(camera, config, clock, got.append, lambda pulse: None)
    with pytest.raises(RobotError, match=r"no picture in 0\.4 s"):
        ask(capture, 100)
    assert len(got) == 10
