"""Progress, as plain lines say it."""

import pytest

from robopol.progress import progress


@pytest.mark.parametrize(
    ("done", "elapsed", "said"),
    [
        (100, 10, "work: 100/1000 steps, 10/s, ETA 0:01:30 well"),
        (100, 1234, "work: 100/1000 steps, 0.081/s, ETA 3:05:06 well"),
        (100, 20000, "work: 100/1000 steps, 0.005/s, ETA 2 days, 2:00:00 well"),
        (0, 10, "work: 0/1000 steps, 0/s, ETA unknown well"),
        (1000, 1, "work: 1000/1000 steps, 1e+03/s, ETA 0:00:00 well"),
    ],
)
def test_the_time_that_is_left_is_said_in_full(monkeypatch, capsys, done, elapsed, said):
    now = 50.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress("work", 1000, "steps") as report:
        now += elapsed
        report(done, "well")
    assert capsys.readouterr().err == f"{said}\n"
