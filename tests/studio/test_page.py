"""The page in a real browser: a target is dragged with the mouse, and the plans follow."""

import shutil

import pytest

pytest.importorskip("websockets")

from studio.browser import browsing
from studio.point import policy_for, world
from studio.test_server import serving

from robopol.studio import Session

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READY = "typeof studio !== 'undefined' && studio.plans !== null && planning === null"
MEAN_END = "(paths => [0, 1].map(i => paths.reduce((sum, path) => sum + path.at(-1)[i], 0) / paths.length))"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
def test_dragging_a_target_leads_the_plans(tmp_path):
    env = world()
    session = Session(policy_for(env), env, plans=6, seed=3)
    with serving(session) as studio, browsing(CHROMIUM, studio.url, tmp_path) as tab:
        tab.until(READY)

        def at(x: float, y: float) -> list[float]:
            """Return where a place of the plane is in the window, pixels."""
            return tab.value(
                f"(b => px([{x}, {y}]).map((v, i) => v + (i ? b.y : b.x)))(canvas.getBoundingClientRect())"
            )

        def end() -> list[float]:
            return tab.value(f"{MEAN_END}(studio.plans.steered)")

        drawn = tab.value("canvas.toDataURL()")
        assert tab.value("studio.plans.steered") is None
        tab.drag(at(0.5, 0.5), at(0.6, 0.3), at(0.8, 0.0))
        tab.until(READY)
        east = end()
        assert tab.value("studio.wish.point") == pytest.approx([0.8, 0.0], abs=0.01)
        assert "kind: point" in tab.value("document.getElementById('command').textContent")
        assert "guide/shift" in tab.value("document.getElementById('numbers').textContent")
        followed = tab.value("canvas.toDataURL()")
        assert followed != drawn
        tab.drag(at(0.8, 0.0), at(0.0, 0.4), at(-0.8, 0.0))
        tab.until(READY)
        west = end()
        assert east[0] > west[0] + 0.05
        assert tab.value("canvas.toDataURL()") != followed

        tab.click("[data-mode=line]")
        tab.drag(at(0.0, 0.1), at(0.2, 0.2), at(0.4, 0.2), at(0.6, 0.3))
        tab.click("[data-mode=away]")
        tab.drag(at(0.3, -0.3), at(0.4, -0.3), at(0.5, -0.3))
        tab.until(READY)
        wish = tab.value("told()")
        assert wish["line"][0] == pytest.approx([0.0, 0.1], abs=0.01)
        assert wish["line"][-1] == pytest.approx([0.6, 0.3], abs=0.01)
        [disc] = wish["discs"]
        assert disc["radius"] == pytest.approx(0.2, abs=0.01)
        assert "weighted_sum" in tab.value("studio.plans.command")

        shown = tab.value("studio.plans.steered[0][0]")
        tab.click("#execute")
        tab.until(f"studio.scene.step === 4 && {READY}")
        assert session.scene().trail[1] == pytest.approx(shown, abs=1e-6)
        tab.click("#clear")
        tab.click("#reset")
        tab.until(f"studio.scene.seed === 4 && {READY}")
        assert tab.value("studio.plans.steered") is None

        assert tab.value("getComputedStyle(document.getElementById('error')).display") == "none"
        tab.value("studio.wish.strength = -1; replan()")
        assert "wish.strength" in tab.value("document.getElementById('error').textContent")
        assert tab.faults == []
