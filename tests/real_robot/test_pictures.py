"""Pictures in shared memory, and what becomes of them: seen by time, given up when stale, recorded, a dataset."""

import shutil

import numpy as np
import pytest
from lockstep import MS, Bench, robot
from looking import Device, ask, picture
from test_recordings import spec

from robopol.config import parse
from robopol.data import load_episodes, save_episodes
from robopol.errors import DataError, RobotError
from robopol.real_robot.camera import CameraConfig, Frame
from robopol.real_robot.camera_desk import PAUSE, START, CameraDesk
from robopol.real_robot.capture import Capture
from robopol.real_robot.channels import EVENT_ROW
from robopol.real_robot.clock import VirtualClock
from robopol.real_robot.dataset import episodes_of
from robopol.real_robot.events import Code
from robopol.real_robot.film import Film, Pulse
from robopol.real_robot.pictures import Album
from robopol.real_robot.recorder import Recorder, load, load_pictures
from robopol.real_robot.sight import Sight
from robopol.real_robot.states import Command, State
from robopol.real_robot.steps import step_type
from robopol.real_robot.ticks import tick_type

SIZE = (8, 12)
CAMERA = CameraConfig(size=SIZE, fps=20.0, patience=0.5)


@pytest.fixture
def film():
    made = Film.new(CAMERA)
    yield made
    made.close()


def filled(film, numbers, begin=0):
    for number in numbers:
        film.put(Frame(begin + number * 50 * MS, picture(number)))


# in memory


def test_the_picture_of_a_time_is_the_nearest_one_that_is_still_there(film):
    assert film.newest() is None
    assert film.at(0) is None
    filled(film, range(100))
    assert film.newest() == 99 * 50 * MS
    for t, number in ((80 * 50 * MS, 80), (80 * 50 * MS + 24 * MS, 80), (80 * 50 * MS + 26 * MS, 81), (10**12, 99)):
        frame = film.at(t)
        assert frame.t == number * 50 * MS
        np.testing.assert_array_equal(frame.image, picture(number))
    assert film.at(0).t == (100 - 44) * 50 * MS  # two seconds are kept, and some more
    torn = film._slots._view
    where = 64 + (80 % film._slots.capacity) * film._slots._stride + 200
    torn[where : where + 1] = bytes([torn[where] ^ 1])  # as of a writer that was killed half way, or is at it
    assert film.at(80 * 50 * MS).t in (79 * 50 * MS, 81 * 50 * MS)


# from the camera


def test_a_picture_that_comes_again_is_none_and_patience_ends():
    clock, got, beats = VirtualClock(), [], []
    device = Device(clock, 50 * MS, [0, 1, 1, 2, None, 3, *[3] * 20])
    capture = Capture(device, CAMERA, clock, got.append, beats.append)
    ask(capture, 6)
    assert [frame.t // (50 * MS) for frame in got] == [1, 2, 4, 6]
    assert [beat.repeated for beat in beats] == [0, 0, 1, 0, 0, 0]
    assert capture.missed == 2
    with pytest.raises(RobotError, match=r"same picture 11 times in 0\.6 s"):
        ask(capture, 20)
    assert len(got) == 4
    silent = Capture(Device(clock, 50 * MS, [0] + [None] * 20), CAMERA, clock, got.append, beats.append)
    with pytest.raises(RobotError, match="no picture in"):
        ask(silent, 20)
    dead = Capture(Device(clock, 50 * MS, [None] * 700), CAMERA, clock, got.append, beats.append)
    ask(dead, 600)
    with pytest.raises(RobotError, match=r"no picture in 30\.1 s"):
        ask(dead, 1)
    other = Capture(Device(clock, 50 * MS, [0], (8, 8)), CAMERA, clock, got.append, beats.append)
    with pytest.raises(RobotError, match=r"\(8, 8, 3\), wanted was \(8, 12, 3\)"):
        other.step()
    still = CAMERA.model_copy(update={"repeats": True})
    believed = Capture(Device(clock, 50 * MS, [0, 0]), still, clock, got.append, beats.append)
    assert [believed.step() is not None for _ in range(2)] == [True, True]


# to the policy


def test_a_camera_that_is_stale_or_frozen_is_told_of_once_and_nothing_is_seen_until_it_is_back():
    events, films = [], {"left": Film.new(CAMERA), "right": Film.new(CAMERA)}
    sight = Sight(films, {"left": 4, "right": 7}, 0.2, events.append)
    assert sight.newest(0) is None
    filled(films["left"], [0, 1, 2])
    filled(films["right"], [0, 1], begin=20 * MS)
    assert sight.newest(110 * MS) == 70 * MS  # up to which both have seen
    assert sight.at(90 * MS)["images.left"].t == 100 * MS
    films["left"].beat(Pulse(340 * MS, 6, 0, 0))
    assert [sight.newest(t * MS) for t in (270, 280, 310, 400)] == [70 * MS, None, None, None]
    assert [(event.code, event.numbers) for event in events] == [
        (Code.CAMERA_STALE, (7, pytest.approx(0.21))),
        (Code.CAMERA_FROZEN, (4, pytest.approx(0.21), 6)),
    ]
    filled(films["left"], [8])
    assert sight.newest(420 * MS) is None
    filled(films["right"], [8], begin=5 * MS)
    assert sight.newest(420 * MS) == 400 * MS
    assert [(event.code, event.numbers) for event in events[2:]] == [
        (Code.CAMERA_BACK, (4, pytest.approx(0.3))),
        (Code.CAMERA_BACK, (7, pytest.approx(0.335))),
    ]
    for one in films.values():
        one.close()


# to the supervisor


class Process:
    def __init__(self):
        self.alive, self.ended = True, False

    def end(self, patience):
        self.ended = True


def test_a_camera_that_died_or_hangs_is_begun_anew_without_waiting_for_it(film):
    config = robot(cameras={"front": {"kind": "opencv", "size": list(SIZE), "patience": 1.0}})
    clock, started = VirtualClock(), []

    def start(name):
        started.append(Process())
        return started[-1]

    desk = CameraDesk(config, {"front": film}, start, clock)
    desk.add("front", start("front"))

    def after(seconds, asked=None):
        clock.t += round(seconds * 1e9)
        if asked:
            film.beat(Pulse(clock.t, 0, 0, 1))
        return desk.tend()

    assert after(PAUSE + 1) == []  # it may take its time to open
    assert after(1.0, asked=True) == []
    assert after(5.0) == ["camera front hangs: it is begun anew"]
    assert started[0].ended
    started[1].alive = False
    assert after(1.0) == []  # not at once
    assert after(PAUSE) == ["camera front has died: it is begun anew"]
    assert after(START + 1) == ["camera front hangs: it is begun anew"]
    assert desk.restarts == {"front": 3}
    assert not started[3].ended
    desk.close()
    assert started[3].ended


# to disk


def ticks(state):
    row = np.zeros(1, tick_type(5))
    row["state"] = state
    return {"ticks": row, "events": np.zeros(0, EVENT_ROW), "steps": np.zeros(0, [("t", np.int64)])}


def recorder_in(folder, film):
    rows = {name: found.dtype for name, found in ticks(0).items()}
    return Recorder(folder, rows, {"robot": {}}, Album({"front": film.ring}))


def test_pictures_of_an_episode_are_kept_to_the_bit_and_no_others(tmp_path, film):
    made = recorder_in(tmp_path, film)
    filled(film, [0, 1])
    made.add(ticks(State.ARMED), 0)
    filled(film, range(2, 20))
    made.add(ticks(State.RUNNING), 0)
    filled(film, range(20, 30))
    made.add(ticks(State.RUNNING), 0)
    filled(film, range(30, 33))
    made.add(ticks(State.ARMED), 0)
    filled(film, range(33, 40))
    made.add(ticks(State.ARMED), 0)
    (folder,) = made.written
    found, about = load(folder)
    assert len(found["ticks"]) == 3
    assert about["pictures"] == {"front": {"size": list(SIZE), "written": 31, "dropped": 0}}
    pictures = load_pictures(folder, about)["front"]
    assert (pictures.t // (50 * MS)).tolist() == list(range(2, 33))
    np.testing.assert_array_equal(pictures.nearest(15 * 50 * MS + 20 * MS).image, picture(15))


def test_what_is_too_slow_or_does_not_fit_is_dropped_and_counted(tmp_path, film):
    made = recorder_in(tmp_path, film)
    made.add(ticks(State.RUNNING), 0)
    filled(film, range(100))  # while the recorder was at something else; 44 are still there
    made.add(ticks(State.RUNNING), 0)
    file = made._album._files["front"]
    whole = file._pictures

    class Full:
        def seek(self, place):
            whole.seek(place)

        def write(self, data):
            if len(data) > 10:
                return whole.write(data[:10])
            raise OSError(28, "No space left on device")

    file._pictures = Full()
    filled(film, range(100, 101))
    for _ in range(5):
        made.add(ticks(State.RUNNING), 0)
    failed = file.failed
    assert failed > 0
    file._pictures = whole
    filled(film, range(101, 104))
    made.add(ticks(State.ARMED), 0)
    (folder,) = made.written
    _, about = load(folder)
    assert about["pictures"]["front"]["dropped"] == 56 + failed
    pictures = load_pictures(folder, about)["front"]
    assert about["pictures"]["front"]["written"] == len(pictures.t) == 104 - 56 - failed
    for t in pictures.t.tolist():
        np.testing.assert_array_equal(pictures.nearest(t).image, picture(t // (50 * MS)))


# to a dataset


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """Let an arm move in lock-step while a camera that the policy looks by, and one that it does not, are recorded."""
    cameras = {name: {"kind": "opencv", "size": list(SIZE), "fps": 20.0} for name in ("front", "side")}
    bench = Bench(robot(cameras=cameras)).ready()
    contract = spec("joint_pos").model_copy(update={"obs_shapes": {"state": (5,), "images.front": (*SIZE, 3)}})
    rows = {"ticks": tick_type(5), "events": EVENT_ROW, "steps": step_type(contract)}
    films = {name: Film.new(camera) for name, camera in bench.robot.cameras.items()}
    about = {"robot": bench.robot.tree(), "policy": {"spec": contract.tree(), "speaker": {"reach": 1}}}
    album = Album({name: film.ring for name, film in films.items()})
    recorder, seen, told = Recorder(tmp_path_factory.mktemp("record"), rows, about, album), [], 0
    for k in range(12):
        bench.send(bench.q + 0.02 * np.arange(1, 7)[:, None] * np.array([1, 0.5, -0.5, 1, -1]))
        now = bench.clock.now()
        for name, film in films.items():
            film.put(Frame(now - 30 * MS, picture(1000 * (name == "side") + k)))
        step = np.zeros(1, rows["steps"])
        # the policy saw it when it was 130 ms old
        step["t_observed"], step["taken.images.front"] = now - 130 * MS, now - 130 * MS
        seen.append(now - 130 * MS)
        bench.run(0.1)
        if k == 10:
            bench.say(Command.STOP, 2)
        events = np.zeros(0, EVENT_ROW)
        recorder.add({"ticks": np.array(bench.rows[told:], rows["ticks"]), "events": events, "steps": step}, 0)
        told = len(bench.rows)
    bench.run(0.5)
    recorder.add({"ticks": np.array(bench.rows[told:], rows["ticks"]), "events": events, "steps": step[:0]}, 0)
    for film in films.values():
        film.close()
    return recorder.written[0], seen


def test_what_was_recorded_is_a_dataset_with_the_pictures_that_were_seen(taken, tmp_path):
    folder, seen = taken
    episodes = episodes_of([folder])
    assert episodes.num_steps >= 6
    images = episodes.obs["images.front"].numpy()
    steps = load(folder)[0]["steps"]
    used = {t: k for k, t in enumerate(steps["t_observed"].tolist())}
    first = next(k for k in range(1, 12) if np.array_equal(images[0], picture(k - 1)))
    assert seen[first] in used
    for k, image in enumerate(images):
        np.testing.assert_array_equal(image, picture(first + k - 1))
        np.testing.assert_array_equal(episodes.obs["images.side"][k], picture(1000 + first + k - 1))
    for name in ("robot.hdf5", "lerobot:robot"):
        where = f"lerobot:{tmp_path / 'robot'}?images=png" if ":" in name else str(tmp_path / name)
        save_episodes(episodes, where)
        again = load_episodes(where.removesuffix("?images=png"))
        np.testing.assert_array_equal(again.obs["images.front"], images)
        np.testing.assert_array_equal(again.action, episodes.action)


def test_an_episode_whose_pictures_are_damaged_is_an_error_in_words(taken, tmp_path):
    for name, change, text in (
        ("images.front.png.bin", lambda data: data[:-1], "are to be there"),
        ("images.front.png.bin", lambda data: b"\0" * len(data), "not a PNG"),
        ("images.side.index.bin", lambda data: data[:24], "no picture within"),
        ("images.side.index.bin", lambda data: b"", "has no pictures"),
    ):
        folder = shutil.copytree(taken[0], tmp_path / text.replace(" ", ""))
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        with pytest.raises(DataError, match=text):
            episodes_of([folder])
    (folder / name).unlink()
    with pytest.raises(DataError, match="no pictures of the camera 'side'"):
        episodes_of([folder])


def test_cameras_of_a_robot_survive_the_way_to_another_process():
    made = robot(cameras={"front": {"kind": "opencv", "source": "/dev/video2", "width": 640, "height": 480}})
    assert parse(type(made), made.tree()) == made
