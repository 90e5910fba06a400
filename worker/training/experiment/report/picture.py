"""Line charts and paired dots as SVG text: axes with round numbers, a legend, nothing else. No library, no script, no font but the
reader's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""

WIDTH, PLOT, LEFT, RIGHT, TOP, BOTTOM, ROW = 380, 220, 62, 16, 34, 44, 18
MOST_POINTS = 400
SHADE = "#ececec"


@dataclass(frozen=True)
class Curve:
    """`points`: (x, y) in the order of x; a y that is None or not finite is a gap. `dashed`: a control's."""

    label: str
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False
    colour: int = 0


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    curves: Sequence[Curve]


@dataclass(frozen=True)
class Pairs:
    """One metric of both arms. `rows`: (label, treated, control, difference) of each pair; treated and control are None where the
    quantity is itself a difference. `unit`: of the differences, their `mean`, its `interval` and the `margin`."""

    title: str
    unit: str
    rows: Sequence[tuple[str, float | None, float | None, float]]
    mean: float
    interval: tuple[float, float] | None = None
    margin: float | None = None


def chart(title: str, panels: Sequence[Panel]) -> str:
    """The panels side by side, as a whole SVG document; a screen reader reads `title`."""
    legend = max((len(panel.curves) for panel in panels), default=0)
    height = TOP + PLOT + BOTTOM + legend * ROW
    width = WIDTH * max(1, len(panels))
    parts: list[str] = []
    for place, panel in enumerate(panels):
        parts += [f'<g transform="translate({place * WIDTH} 0)">', *_panel(panel), "</g>"]
    return _document(title, width, height, parts)


def paired(title: str, blocks: Sequence[Pairs]) -> str:
    """The blocks one below the other, with a row for each seed: at the left both arms' values, at the right their differences, with
    the mean and its interval below."""
    parts: list[str] = []
    top = 0
    for block in blocks:
        parts += [f'<g transform="translate(0 {top})">', *_values(block), *_differences(block), "</g>"]
        top += TOP + ROW * (len(block.rows) + 1) + BOTTOM
    colour, y, height = COLOURS[0], top + 4, top + ROW
    parts += [
        f'<circle cx="{LEFT}" cy="{y}" r="4" fill="{colour}"/><text x="{LEFT + 10}" y="{y + 4}">with the method</text>',
        f'<circle cx="{LEFT + 120}" cy="{y}" r="3.4" fill="#ffffff" stroke="{colour}" stroke-width="1.4"/>',
        f'<text x="{LEFT + 130}" y="{y + 4}">its control</text>',
        f'<rect x="{WIDTH + LEFT}" y="{y - 6}" width="16" height="12" fill="{SHADE}"/>',
        f'<text x="{WIDTH + LEFT + 22}" y="{y + 4}">within the margin</text>',
        f'<path d="M{WIDTH + LEFT + 140} {y}h24" stroke="#000000" stroke-width="2"/>',
        f'<circle cx="{WIDTH + LEFT + 152}" cy="{y}" r="4.5" fill="#000000"/>',
        f'<text x="{WIDTH + LEFT + 170}" y="{y + 4}">mean and its interval</text>',
    ]
    return _document(title, 2 * WIDTH, height, parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], about so many: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    step = 10 ** math.floor(math.log10(span / about))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * about >= span)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _document(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    begin = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{_text(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<g font-family="system-ui, sans-serif" font-size="11">',
    ]
    return "\n".join([*begin, *parts, "</g>", "</svg>", ""])


def _values(block: Pairs) -> list[str]:
    both = [(place, ours, theirs) for place, (_, ours, theirs, _) in enumerate(block.rows) if ours is not None]
    parts = [f'<text x="{LEFT}" y="20" font-size="13" font-weight="600">{_text(block.title)}</text>']
    if not both:
        return parts
    across, axis = _axis(LEFT, [value for _, *pair in both for value in pair if value is not None], len(block.rows))
    parts += axis
    for place, ours, theirs in both:
        y, colour = _middle(place), COLOURS[0]
        if theirs is not None:
            parts.append(
                f'<path d="M{across(theirs):.1f} {y}H{across(ours):.1f}" stroke="{colour}" stroke-width="1.2"/>'
            )
            parts.append(
                f'<circle cx="{across(theirs):.1f}" cy="{y}" r="3.4" fill="#ffffff" stroke="{colour}" stroke-width="1.4"/>'
            )
        parts.append(f'<circle cx="{across(ours):.1f}" cy="{y}" r="4" fill="{colour}"/>')
    return parts


def _differences(block: Pairs) -> list[str]:
    left, last = WIDTH + LEFT, len(block.rows)
    ends = [*(block.interval or ()), *((-block.margin, block.margin) if block.margin is not None else ())]
    across, axis = _axis(left, [0.0, block.mean, *ends, *(row[3] for row in block.rows)], last + 1)
    parts = [f'<text x="{left}" y="20" font-size="13" font-weight="600">difference, {_text(block.unit)}</text>']
    bottom = TOP + ROW * (last + 1)
    if block.margin:
        low, high = across(-block.margin), across(block.margin)
        parts.append(f'<rect x="{low:.1f}" y="{TOP}" width="{high - low:.1f}" height="{bottom - TOP}" fill="{SHADE}"/>')
    parts += [*axis, f'<path d="M{across(0):.1f} {TOP}V{bottom}" stroke="#888888"/>']
    for place, (label, *_, difference) in enumerate(block.rows):
        y = _middle(place)
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{_text(label)}</text>')
        if block.rows[place][1] is not None:
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_text(label)}</text>')
        parts.append(f'<circle cx="{across(difference):.1f}" cy="{y}" r="3.4" fill="{COLOURS[0]}"/>')
    y = _middle(last)
    parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end" font-weight="600">mean</text>')
    if block.interval is not None:
        low, high = (across(end) for end in block.interval)
        parts.append(f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="#000000" stroke-width="2"/>')
    parts.append(f'<circle cx="{across(block.mean):.1f}" cy="{y}" r="4.5" fill="#000000"/>')
    return parts


def _middle(place: int) -> float:
    return TOP + ROW * (place + 0.5)


def _axis(left: float, values: Sequence[float], rows: int) -> tuple[Callable[[float], float], list[str]]:
    """The function from a value to its x in a panel of `rows` rows that begins at `left`, and the axis' lines and numbers."""
    low, high = _padded(min(values), max(values))
    inner, bottom = WIDTH - LEFT - RIGHT, TOP + ROW * rows

    def across(value: float) -> float:
        return left + inner * (value - low) / (high - low)

    parts: list[str] = []
    for value in ticks(low, high):
        x = across(value)
        parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555555">{_number(value)}</text>')
    return across, parts


def _panel(panel: Panel) -> list[str]:
    drawn = [(curve, _thin(curve)) for curve in panel.curves]
    finite = [point for _, points in drawn for point in points if point is not None]
    xs, ys = [point[0] for point in finite], [point[1] for point in finite]
    left, right = (min(xs), max(xs)) if xs else (0.0, 1.0)
    low, high = _padded(min(ys), max(ys)) if ys else (0.0, 1.0)
    inner = WIDTH - LEFT - RIGHT

    def across(value: float) -> float:
        return LEFT + (inner * (value - left) / (right - left) if right > left else inner / 2)

    def down(value: float) -> float:
        return TOP + PLOT - PLOT * (value - low) / (high - low)

    parts = [f'<text x="{LEFT}" y="20" font-size="13" font-weight="600">{_text(panel.title)}</text>']
    for value in ticks(low, high):
        y = down(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + inner}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555555">{_number(value)}</text>')
    parts += [
        f'<text x="{across(value):.1f}" y="{TOP + PLOT + 16}" text-anchor="middle" fill="#555555">{_number(value)}</text>'
        for value in ticks(left, right)
    ]
    parts.append(
        f'<text x="{LEFT + inner / 2:.1f}" y="{TOP + PLOT + 34}" text-anchor="middle" fill="#555555">{_text(panel.x)}</text>'
    )
    parts.append(f'<path d="M{LEFT} {TOP}V{TOP + PLOT}H{LEFT + inner}" fill="none" stroke="#888888"/>')
    for row, (curve, points) in enumerate(drawn):
        style = f'stroke="{COLOURS[curve.colour % len(COLOURS)]}"' + (' stroke-dasharray="5 3"' if curve.dashed else "")
        placed = [None if point is None else (across(point[0]), down(point[1])) for point in points]
        parts += [
            f'<path d="{path}" fill="none" {style} stroke-width="1.8" stroke-linecap="round"/>'
            for path in _paths(placed)
        ]
        y = TOP + PLOT + BOTTOM + row * ROW
        parts.append(f'<path d="M{LEFT} {y}h24" {style} stroke-width="1.8"/>')
        parts.append(f'<text x="{LEFT + 30}" y="{y + 4}">{_text(curve.label)}</text>')
    return parts


def _thin(curve: Curve) -> list[tuple[float, float] | None]:
    """The points, at most some hundred of them; None where the line breaks."""
    every = max(1, math.ceil(len(curve.points) / MOST_POINTS))
    thinned = [*curve.points[:-1:every], *curve.points[-1:]]
    return [(x, y) if y is not None and math.isfinite(y) else None for x, y in thinned]


def _paths(points: Sequence[tuple[float, float] | None]) -> list[str]:
    """A path for each unbroken piece; a piece of one point is a dot, drawn by its round cap."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            pieces.append([])
        else:
            pieces[-1].append(point)
    return [
        f"M{piece[0][0]:.1f} {piece[0][1]:.1f}" + "".join(f"L{x:.1f} {y:.1f}" for x, y in piece[1:] or piece[:1])
        for piece in pieces
        if piece
    ]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    return low - room, high + room


def _number(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:.10g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def _text(text: str) -> str:
    """`text` escaped for XML, without characters that no document may hold."""
    return escape("".join(letter for letter in text if letter.isprintable()))
