"""Figures as SVG, for light and dark pages alike."""

import math
import statistics
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 64, 40  # around the drawing

STYLE = """
    text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
    .title { font-size: 15px; font-weight: 600; }
    .small { font-size: 12px; fill: #59636e; }
    .middle { text-anchor: middle; }
    .end { text-anchor: end; }
    .grid { stroke: #d1d9e0; stroke-width: 1; }
    .spread { stroke: #1f2328; stroke-width: 1.5; }
    .bar0 { fill: #b6c2cf; } .bar1 { fill: #bc8c00; } .bar2 { fill: #0969da; }
    .curve { fill: none; stroke-width: 2.5; }
    .curve0 { stroke: #0969da; } .curve1 { stroke: #818b98; }
    .curve2 { stroke: #bc4c00; stroke-width: 1.5; stroke-dasharray: 5 4; }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; }
      .small { fill: #9198a1; }
      .grid { stroke: #3d444d; }
      .spread { stroke: #f0f6fc; }
      .bar0 { fill: #656c76; } .bar1 { fill: #d29922; } .bar2 { fill: #4493f8; }
      .curve0 { stroke: #4493f8; } .curve1 { stroke: #9198a1; } .curve2 { stroke: #f0883e; }
    }
"""


def text(x, y, words, *classes):
    names = f' class="{" ".join(classes)}"' if classes else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{names}>{escape(words)}</text>'


def line(x1, y1, x2, y2, name):
    return f'<path class="{name}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def ticks(most):
    """Round numbers from 0 up to, and the last one beyond, the largest value."""
    raw = most / 4
    step = 10 ** math.floor(math.log10(raw))
    step = next(step * f for f in (1, 2, 2.5, 5, 10) if step * f >= raw)
    return [step * i for i in range(math.ceil(most / step) + 1)]


def write(path, title, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    with open(path, "w") as file:
        file.write(f'{head} aria-label="{escape(title)}">\n<style>{STYLE}</style>\n')
        file.write("\n".join([text(LEFT, 24, title, "title"), *parts]) + "\n</svg>\n")


def legend(names, mark):
    parts, x = [], LEFT
    for i, name in enumerate(names):
        parts += [mark(i, x, 44), text(x + 22, 48, name)]
        x += 48 + 8 * len(name)
    return parts


def write_bars(path, title, groups, series):
    """series: {name: [samples of each group]}; bars are medians, lines from least to most."""
    scale = ticks(max(max(samples) for rows in series.values() for samples in rows))
    bottom, height = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP

    def y(value):
        return bottom - height * value / scale[-1]

    parts = legend(
        series, lambda i, x, y: f'<rect class="bar{i}" x="{x}" y="{y - 6}" width="14" height="10"/>'
    )
    for tick in scale:
        parts.append(line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid"))
        parts.append(text(LEFT - 8, y(tick) + 4, f"{tick:,.0f}", "small", "end"))
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = room * 0.75 / len(series)
    for g, group in enumerate(groups):
        left = LEFT + room * g + room * 0.125
        parts.append(text(left + room * 0.375, HEIGHT - 14, group, "middle"))
        for i, rows in enumerate(series.values()):
            x, value = left + i * width, statistics.median(rows[g])
            size = f'width="{width * 0.86:.1f}" height="{bottom - y(value):.1f}"'
            parts.append(f'<rect class="bar{i}" x="{x:.1f}" y="{y(value):.1f}" {size}/>')
            middle = x + width * 0.43
            parts.append(line(middle, y(min(rows[g])), middle, y(max(rows[g])), "spread"))
            parts.append(text(middle, y(max(rows[g])) - 6, f"{value:,.0f}", "small", "middle"))
    write(path, title, parts)


def write_curves(path, title, unit, series):
    """series: {name: [quantiles, evenly spaced from the least to the most]}. The slowest
    percent is cut off."""
    most = max(values[int(0.99 * (len(values) - 1))] for values in series.values())
    scale = ticks(most)
    bottom, height = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP

    def x(value):
        return LEFT + (WIDTH - LEFT - RIGHT) * value / scale[-1]

    def y(share):
        return bottom - height * share

    parts = legend(
        series, lambda i, x, y: f'<path class="curve curve{i}" d="M{x} {y}L{x + 16} {y}"/>'
    )
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(line(LEFT, y(share), WIDTH - RIGHT, y(share), "grid"))
        parts.append(text(LEFT - 8, y(share) + 4, f"{share:.0%}", "small", "end"))
    for tick in scale:
        parts.append(text(x(tick), HEIGHT - 18, f"{tick:g} {unit}", "small", "middle"))
    for i, values in enumerate(series.values()):
        shares = [(value, k / (len(values) - 1)) for k, value in enumerate(values)]
        points = " ".join(
            f"{x(value):.1f},{y(share):.1f}" for value, share in shares[::5] if value <= scale[-1]
        )
        parts.append(f'<polyline class="curve curve{i}" points="{points}"/>')
    write(path, title, parts)
