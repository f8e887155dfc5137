"""What the figures of bridge.py are to be, and whether they are; a run that is too short to say so says that.

The limits are those of the cases T1, T2, T4, T5, T11, T16 and T20 of docs/bridge-checks.md.
"""

from typing import Any

SECONDS, ORDERS, PROBES, SOAK = 20.0, 100, 50, 60.0
"""Least lengths of a run: of a loop, s; orders and probes, for a 99th percentile; of a soak, s."""
BRAKE = {"ur": 10.0, "dynamixel": 60.0}
"""Deceleration of the emulated arms when their watchdogs stop them, rad/s^2."""
STOPPING = {"ur": 10.0}
"""That of the stop a driver ends with; others brake as the loop does, with 0.9 of bridge_arms.py's acceleration."""


def judged(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row a figure: case, what it is of, value, limit, and whether it is within it."""
    rows: list[dict[str, Any]] = []

    def add(case: str, what: str, value: float | None, limit: float | None, enough: bool = True) -> None:
        if value is None or limit is None:
            return
        verdict = "within" if value <= limit else "over"
        rows.append(
            {
                "case": case,
                "what": what,
                "value": round(value, 6),
                "limit": round(limit, 6),
                "verdict": verdict if enough else f"{verdict}, of too short a run",
            }
        )

    long = found.get("seconds", 0.0) >= SECONDS
    for key in ("loop_100_hz", "loop_250_hz"):
        if key in found:
            row, period = found[key], 1e3 / found[key]["hz"]
            _punctual(add, f"loop alone, {row['hz']} Hz", row, long)
            braking = row["order_to_braking_ms"]
            name = f"loop alone, {row['hz']} Hz: order to braking, worst, ms"
            add("T11", name, braking["worst"], period + 1.0, braking["orders"] >= ORDERS)
    for row in found.get("arms", []):
        if "failed" in row:
            continue
        name, period = f"{row['driver']} {row['hz']} Hz", 1e3 / row["hz"]
        _punctual(add, name, row, long)
        add("T1", f"{name}: stopped before the end", float(not row["still_running"]), 0.0, long)
        probe = row.get("probe", {})
        if probe.get("probes"):
            many = probe["probes"] >= PROBES
            add("T2", f"{name}: state to goal, p50, ms", probe["p50_ms"], period + 1.0, many)
            add("T2", f"{name}: state to goal, p99, ms", probe["p99_ms"], 2 * period + 2.0, many)
        if "killed" in row:
            dead = row["killed"]
            add("T4", f"{name}: killed, alarm, ms", dead["alarm_ms"], 300.0)
            braking = 1e3 * dead["speed"] / BRAKE.get(row["driver"], 1.0)
            wait = {"ur": 100.0, "dynamixel": 100.0 + period}.get(row["driver"])
            add("T4", f"{name}: killed, at rest, ms", dead.get("rest_ms"), None if wait is None else wait + braking)
        if "orphaned" in row:
            alone = row["orphaned"]
            braking = 1e3 * alone["speed"] / STOPPING.get(row["driver"], 36.0)
            add("T5", f"{name}: no supervisor, at rest, ms", alone.get("rest_ms"), 100.0 + braking)
    for key, ms in found.get("killed", {}).items():
        add("T4", f"loop alone: {key.removesuffix('_ms').replace('_', ' ')}, ms", ms, 300.0)
    for state, row in found.get("recorder", {}).items():
        add("T16", f"loop alone, 100 Hz, recorder {state}: missed, share", row["missed"], 0.002, long)
    if soak := found.get("soak"):
        enough = soak["seconds"] >= SOAK
        for what, most in (("descriptors", 0.0), ("threads", 0.0), ("rss_kb", 5 * 1024.0)):
            add("T20", f"more {what}", soak["more"][what], most, enough)
        add("T20", "drift, ns", soak["drift_ns"], 0.0, enough)
    return rows


def _punctual(add: Any, name: str, row: dict[str, Any], long: bool) -> None:
    """Judge lateness and missed ticks by what scheduling was granted (T1)."""
    granted, hz = row["scheduling"].startswith("SCHED_FIFO"), row["hz"]
    asked = 0.003 if hz >= 250 or row.get("driver") == "ur" else 0.002
    most = asked if granted else None if hz >= 250 else 0.05
    add("T1", f"{name}: missed, share", row["missed"], most, long)
    if granted and hz >= 250:
        add("T1", f"{name}: late, p99, ms", row["late_ms"]["p99"], 0.2, long)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of docs/results.md."""
    lines = ["| case | figure | measured | limit | |", "|---|---|---|---|---|"]
    lines += [f"| {r['case']} | {r['what']} | {r['value']:.3g} | {r['limit']:.3g} | {r['verdict']} |" for r in rows]
    return [*lines, ""]
