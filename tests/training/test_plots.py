import matplotlib.image
import numpy as np
import pytest

from robopol.errors import DataError, ShapeError
from robopol.training.loggers import MetricsLog
from robopol.training.plots import COLOURS, FAILED, plot_curves, plot_paths


def run(folder, metric, values, first=100):
    folder.mkdir(parents=True)
    log = MetricsLog(folder)
    for index, value in enumerate(values):
        log.log(first * (index + 1), value if isinstance(value, dict) else {metric: value})
    return log.path


def share(picture, colour):
    """Share of the pixels that have a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float((np.abs(picture[..., :3] - wanted) < 0.03).all(-1).mean())


def test_every_metric_that_was_logged_gets_a_panel(tmp_path):
    success = {"eval/success_rate": 0.5, "eval/success_rate_lo": 0.4, "eval/success_rate_hi": 0.6}
    one = run(tmp_path / "one", "train/loss", [1.0, 0.5])
    four = run(tmp_path / "four", "", [{"train/loss": 1.0, "val/loss": 2.0, "val/action_error": 0.1} | success] * 2)
    sizes = []
    for log in (one, four):
        plot_curves([log], log.with_name("curves.png"))
        sizes.append(matplotlib.image.imread(log.with_name("curves.png")).shape[:2])
    assert sizes[1] == (2 * sizes[0][0], 2 * sizes[0][1])


def test_every_run_has_its_colour(tmp_path):
    logs = [run(tmp_path / f"{i}", "train/loss", [i + 1.0, i + 1.1]) for i in range(3)]
    plot_curves(logs, tmp_path / "curves.png")
    picture = matplotlib.image.imread(tmp_path / "curves.png")
    for colour in COLOURS[:3]:
        assert share(picture, colour) > 1e-3
    assert share(picture, COLOURS[3]) == 0


@pytest.mark.parametrize(
    "values",
    [
        [-1.0, -2.0],  # no logarithm
        [1.0, float("nan"), 0.5],
        [float("nan")],
        [{"eval/success_rate": 0.5, "eval/success_rate_lo": 0.4, "eval/success_rate_hi": 0.6}],  # one point
        [{"eval/success_rate": 0.5}, {"eval/success_rate": 0.7}],  # no interval
    ],
)
def test_awkward_curves_are_drawn(tmp_path, values):
    plot_curves([run(tmp_path / "run", "train/loss", values)], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_what_cannot_be_drawn_is_said(tmp_path):
    empty = run(tmp_path / "run", "time/updates_per_s", [1.0])
    with pytest.raises(DataError, match="nothing to draw in"):
        plot_curves([empty], tmp_path / "curves.png")
    with pytest.raises(DataError, match="named twice"):
        plot_curves([empty, empty], tmp_path / "curves.png")
    with pytest.raises(DataError, match="cannot be read"):
        plot_curves([tmp_path / "none" / "metrics.jsonl"], tmp_path / "curves.png")
    assert not list(tmp_path.glob("*.png"))


def test_paths_are_coloured_by_the_way_they_took(tmp_path):
    time = np.linspace(0, 1, 20)
    paths = [np.stack([time, side * time * (1 - time)], 1) for side in (-1, 1, 0)]
    shapes = [
        {"kind": "circle", "xy": (0.5, 0.0), "size": 0.1, "label": "obstacle"},
        {"kind": "box", "xy": (1.0, 0.0), "size": (0.1, 0.2)},
    ]
    plot_paths(paths, ["left", "right", FAILED], tmp_path / "paths.png", shapes, "ways")
    picture = matplotlib.image.imread(tmp_path / "paths.png")
    assert share(picture, COLOURS[0]) > 1e-4
    assert share(picture, COLOURS[1]) > 1e-4
    assert share(picture, COLOURS[2]) == 0
    assert share(picture, "#e0e0e0") > 0.01  # the shapes
    plot_paths([], [], tmp_path / "none.png")


@pytest.mark.parametrize(
    ("paths", "labels", "shapes", "message"),
    [
        ([np.zeros((5, 3))], ["a"], [], r"path 0 has shape \(5, 3\)"),
        ([np.zeros((0, 2))], ["a"], [], r"path 0 has shape \(0, 2\)"),
        ([np.zeros((5, 2))], ["a", "b"], [], "2 labels for 1 paths"),
        ([], [], [{"kind": "box", "xy": (0, 0), "size": 1.0}], "cannot draw"),
        ([], [], [{"kind": "star", "xy": (0, 0), "size": 1.0}], "cannot draw"),
    ],
)
def test_what_is_not_a_path_is_refused(tmp_path, paths, labels, shapes, message):
    with pytest.raises(ShapeError, match=message):
        plot_paths(paths, labels, tmp_path / "paths.png", shapes)
