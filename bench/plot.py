"""Plots of growth as SVG, on logarithmic axes: no library, no network."""

import math
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50
# Distinct for people with color blindness, on white and on black.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"]


def decades(values):
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def short(value):
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def growth(title, points):
    """A line for each series over the number of sources. Values of zero have no place on a logarithmic axis and are left out."""
    points = [point for point in points if point["value"] > 0 and point["size"] > 0]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}, by number of sources</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="15" fill="#111">{escape(title)}</text>',
    ]
    if points:
        parts += body(points)
    return "\n".join([*parts, "</svg>", ""])


def body(points):
    columns, rows = decades([point["size"] for point in points]), decades([point["value"] for point in points])

    def x(size):
        return LEFT + (math.log10(size) - columns[0]) / (columns[1] - columns[0]) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - (math.log10(value) - rows[0]) / (rows[1] - rows[0]) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for power in range(columns[0], columns[1] + 1):
        at = x(10**power)
        parts.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#444">{short(10**power)}</text>')
    for power in range(rows[0], rows[1] + 1):
        at = y(10.0**power)
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#444">{short(10.0**power)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 10}" text-anchor="middle" fill="#444">sources</text>')
    parts.append(f'<text x="{LEFT - 8}" y="{TOP - 8}" text-anchor="end" fill="#444">{escape(points[0]["axis"])}</text>')
    for number, name in enumerate(dict.fromkeys(point["series"] for point in points)):
        parts += series(name, [(x(point["size"]), y(point["value"])) for point in points if point["series"] == name], number)
    return parts


def series(name, places, number):
    color = COLORS[number % len(COLORS)]
    places.sort()
    line = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
    parts = [f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>']
    parts += [f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3.5" fill="{color}"/>' for left, top in places]
    top = TOP + 12 + 18 * number
    parts.append(f'<rect x="{WIDTH - RIGHT + 14}" y="{top - 9}" width="10" height="10" fill="{color}"/>')
    parts.append(f'<text x="{WIDTH - RIGHT + 30}" y="{top}" fill="#111">{escape(name)}</text>')
    return parts
