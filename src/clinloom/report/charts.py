"""Charts as inline SVG: no script, nothing from outside, colours that colour-blind eyes tell.

The palette is Okabe and Ito's (2008); the page's style gives it to the classes used here, so that
charts follow light, dark and paper. Every chart has a title for those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from clinloom.report.figures import interval, number

Points = Sequence[Sequence[float]]
EDGE = 3.0  # percent of a track's width that is left free at both ends


class Plot:
    """A plotting area with linear axes: add marks, then take the SVG."""

    def __init__(
        self,
        title: str,
        *,
        x: tuple[float, float] = (0, 1),
        y: tuple[float, float] = (0, 1),
        xlabel: str = "",
        ylabel: str = "",
        percent: str = "xy",
        width: int = 420,
        height: int = 384,
    ):
        self.title, self.x, self.y, self.percent = title, x, y, percent
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = 62, 26, 12, 52
        self.parts: list[Markup] = []
        self._axes(xlabel, ylabel)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the picture."""
        wide = self.width - self.left - self.right
        high = self.height - self.top - self.bottom
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * wide, self.top + (1 - up) * high

    def _add(self, form: str, *values: Any) -> None:
        self.parts.append(Markup(form).format(*values))  # noqa: S704 - forms are written here

    def _axes(self, xlabel: str, ylabel: str) -> None:
        for value in ticks(*self.y):
            x0, y = self.at(self.x[0], value)
            x1, _ = self.at(self.x[1], value)
            kind = "axis" if value == 0 else "grid"
            line = '<line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}" class="{}"/>'
            self._add(line, x0, x1, y, y, kind)
            said = show(value, percent="y" in self.percent)
            self._add('<text x="{:.1f}" y="{:.1f}" class="tick end">{}</text>', x0 - 8, y + 4, said)
        low = self.height - self.bottom
        for value in ticks(*self.x):
            x, _ = self.at(value, self.y[0])
            said = show(value, percent="x" in self.percent)
            self._add('<text x="{:.1f}" y="{}" class="tick mid">{}</text>', x, low + 19, said)
        middle = (self.left + self.width - self.right) / 2
        form = '<text x="{:.1f}" y="{}" class="label mid">{}</text>'
        self._add(form, middle, self.height - 8, xlabel)
        form = '<text transform="translate(15 {:.1f}) rotate(-90)" class="label mid">{}</text>'
        self._add(form, (self.top + low) / 2, ylabel)

    def line(self, points: Points, kind: str) -> None:
        """A line through points (x, y); ``kind``: main, other, chance, rival or mark."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in _thinned([self.at(*p) for p in points]))
        if path:
            self._add('<polyline points="{}" class="line {}"/>', path, kind)

    def band(self, points: Sequence[tuple[Any, ...]], floor: float) -> None:
        """A shade between the two values of points (x, low, high), within ``floor`` and the top."""
        top = self.y[1]
        upper = [self.at(x, min(top, max(high, floor))) for x, _, high in points]
        lower = [self.at(x, min(top, max(low, floor))) for x, low, _ in reversed(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*_thinned(upper), *_thinned(lower)])
        if path:
            self._add('<polygon points="{}" class="band"/>', path)

    def interval(self, x: float, low: float, high: float, kind: str = "main") -> None:
        """A vertical interval."""
        (cx, top), (_, bottom) = self.at(x, high), self.at(x, low)
        form = '<line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}" class="whisker {}"/>'
        self._add(form, cx, cx, top, bottom, kind)

    def dot(self, x: float, y: float, kind: str = "main", *, note: str = "") -> None:
        """A dot, with what it stands for."""
        cx, cy = self.at(x, y)
        said = Markup("<title>{}</title>").format(note) if note else ""
        form = '<circle cx="{:.1f}" cy="{:.1f}" r="4.5" class="dot {}">{}</circle>'
        self._add(form, cx, cy, kind, said)

    def svg(self) -> Markup:
        """The chart."""
        form = (
            '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">'
            "<title>{}</title>{}</svg>"
        )
        inside = Markup("").join(self.parts)
        return Markup(form).format(self.width, self.height, self.title, self.title, inside)  # noqa: S704


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points without those that nobody could see apart."""
    out = points[:1]
    for at, point in enumerate(points[1:], start=1):
        if math.dist(point, out[-1]) >= 1 or at == len(points) - 1:
            out.append(point)
    return out


def above(points: Points, low: float) -> list[tuple[float, float]]:
    """The line up to where it first falls below ``low``, with the point at which it does."""
    out: list[tuple[float, float]] = []
    for x, y in points:
        if y < low:
            if out:
                x0, y0 = out[-1]
                out.append((x0 + (x - x0) * (y0 - low) / (y0 - y), low))
            break
        out.append((x, y))
    return out


def ticks(low: float, high: float) -> list[float]:
    """Round values across an axis, three to six."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if (high - low) / (step * m) <= 5.01)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def show(value: float, *, percent: bool = False) -> str:
    """A tick's text."""
    text = f"{100 * value:g}%" if percent else f"{value:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def forest(
    rows: Sequence[tuple[str, Mapping[str, Any], bool]], *, measure: str, zero: bool = False
) -> Markup:
    """Names with values and intervals on a common axis; the marked ones stand out.

    Each row is text, a track and text, so that it folds on a narrow screen; places on the tracks
    are percentages of their width. ``zero``: the axis begins at 0, or below it where values do.
    """
    found = [v for _, f, _ in rows for v in (f.get("value"), f.get("low"), f.get("high"))]
    known = [v for v in found if v is not None] or [0.5, 1.0]
    low = math.floor(min([*known, 0.9]) * 20 - 1e-9) / 20
    high = max(low + 0.05, math.ceil(max(known) * 20 + 1e-9) / 20)
    low, high = max(0.0, low), min(1.0, high)
    if zero:
        low, high = min([0.0, *known]), max([1e-6, *(v for v in found if v is not None)])

    def at(value: float) -> float:
        place: float = EDGE + (value - low) / (high - low) * (100 - 2 * EDGE)
        return place

    lines = Markup("").join(
        Markup('<line x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%" class="grid"/>').format(at(tick))
        for tick in ticks(low, high)
    )
    out = [_forest_row(row, at, lines, measure) for row in rows]
    axis = Markup("").join(
        Markup('<text x="{:.2f}%" y="16" class="tick mid">{}</text>').format(at(tick), show(tick))
        for tick in ticks(low, high)
    )
    form = '<div class="row scale" aria-hidden="true"><svg class="track">{}</svg></div>'
    return Markup('<div class="forest">{}</div>').format(
        Markup("").join([*out, Markup(form).format(axis)])  # noqa: S704
    )


def _forest_row(
    row: tuple[str, Mapping[str, Any], bool], at: Any, lines: Markup, measure: str
) -> Markup:
    name, found, marked = row
    value, low, high = found.get("value"), found.get("low"), found.get("high")
    kind = "main" if marked else "other"
    marks = lines
    if low is not None and high is not None:
        form = '<line x1="{:.2f}%" x2="{:.2f}%" y1="50%" y2="50%" class="span {}"/>'
        marks += Markup(form).format(at(low), at(high), kind)  # noqa: S704
    if value is not None:
        form = '<circle cx="{:.2f}%" cy="50%" r="6" class="dot {}"/>'
        marks += Markup(form).format(at(value), kind)  # noqa: S704
    said, between = number(value), interval(found)
    title = f"{name}: {measure} {said}" + (f" ({between})" if between else "")
    form = (
        '<div class="row {}"><span class="name">{}</span>'
        '<svg class="track" role="img"><title>{}</title>{}</svg>'
        '<span class="value">{} <small>{}</small></span></div>'
    )
    return Markup(form).format("marked" if marked else "", name, title, marks, said, between)  # noqa: S704


def bars(rows: Sequence[tuple[str, float]]) -> Markup:
    """Named horizontal bars of shares."""
    most = max((value for _, value in rows), default=0) or 1
    form = (
        '<div class="row"><span class="name">{0}</span><svg class="track" role="img">'
        '<title>{0}: {1:.1%}</title><rect width="{2:.2f}%" y="20%" height="60%" rx="3"'
        ' class="bar"/></svg><span class="value">{1:.1%}</span></div>'
    )
    made = [Markup(form).format(name, value, 100 * value / most) for name, value in rows]  # noqa: S704
    return Markup('<div class="bars">{}</div>').format(Markup("").join(made))


def hundred(filled: int, *, title: str, kind: str) -> Markup:
    """A hundred people as dots, ten a row; the first ``filled`` of them stand out."""
    dots = Markup("").join(
        Markup('<circle cx="{}" cy="{}" r="7" class="{}"/>').format(
            10 + 20 * (n % 10), 10 + 20 * (n // 10), kind if n < filled else "empty"
        )
        for n in range(100)
    )
    form = '<svg class="hundred" viewBox="0 0 200 200" role="img"><title>{}</title>{}</svg>'
    return Markup(form).format(escape(title), dots)  # noqa: S704
