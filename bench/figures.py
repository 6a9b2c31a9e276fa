"""Figures of a run: each with the reference that was measured beside it, as a ratio."""

import json
import time

from lib import WORK


class Figures:
    """What one case found out. Every line is printed as soon as it is known."""

    def __init__(self, case, command):
        self.case = case
        self.record = {"case": case, "command": command, "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "rows": [], "growth": [], "notes": []}

    def add(self, what, value, unit, reference=None, reference_value=None):
        """`reference` names the floor or peer whose figure of the same run is `reference_value`."""
        ratio = value / reference_value if reference_value else None
        self.record["rows"].append(
            {"what": what, "value": value, "unit": unit, "reference": reference, "reference_value": reference_value, "ratio": ratio}
        )
        beside = ""
        if reference is not None:
            beside = f"   {reference} {number(reference_value)} {unit}"
            beside += f"   ratio {ratio:.2f}" if ratio is not None else "   ratio –"
        print(f"{self.case:8} {what:58} {number(value):>10} {unit}{beside}", flush=True)

    def grow(self, title, axis, series, size, value):
        """A point of a growth plot: `value` of `series` at `size` sources."""
        self.record["growth"].append({"title": title, "axis": axis, "series": series, "size": size, "value": value})

    def note(self, text):
        self.record["notes"].append(text)
        print(f"{self.case:8} note: {text}", flush=True)

    def save(self):
        folder = WORK / "results"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.case}.json").write_text(json.dumps(self.record, indent=1), encoding="utf-8")


def number(value):
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"
