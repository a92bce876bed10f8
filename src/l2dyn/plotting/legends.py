"""Legends that cover no data: moved to a free corner, or the y-axis made longer for them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.path import Path

from l2dyn.plotting.style import make_room

PAD = 0.03  # of a panel's height
MARKER = 2.5  # radius of a marker, in points: a legend's edge must not cut one in two
MOST_ROOM = 0.6  # of a panel's height: a legend as tall as this stays where it is


def make_room_for_legends(figure: Figure) -> None:
    """Move each legend that covers data to a free corner; where there is none, to the top, and the data down.

    Legends beside their panel stay as they are. Bands, vertical lines and dotted level ones through a whole panel may
    lie below a legend. Call it when everything is drawn.
    """
    figure.draw_without_rendering()
    for ax in figure.axes:
        legend = ax.get_legend()
        if legend is None or not _inside(legend, ax):
            continue
        panel = [other for other in figure.axes if np.allclose(other.get_position().bounds, ax.get_position().bounds)]
        if not covers_data(legend, panel):
            continue
        legend.set_loc("best")  # its place is looked up anew whenever it is asked for: no drawing needed
        if not covers_data(legend, panel):
            continue
        legend.set_loc("upper left")
        outer = ax.get_window_extent()
        free = (legend.get_window_extent().y0 - outer.y0) / outer.height - PAD
        if free > 1 - MOST_ROOM:
            for other, top in [(other, _top_of_data(panel)) for other in panel]:
                make_room(other, above=max(top / free - 1, 0.0))


def covers_data(legend: Legend, panel: Iterable[Axes]) -> bool:
    """Whether a point, line, bar or word of these axes, which share their place, lies below the legend, once drawn."""
    box = legend.get_window_extent()
    near = box.padded(MARKER * legend.figure.dpi / 72)
    if any(text.get_text() and box.overlaps(text.get_window_extent()) for ax in panel for text in ax.texts):
        return True
    return any(near.count_contains(path.vertices) or (joined and _crosses(path, box)) for path, joined in _data(panel))


def _data(panel: Iterable[Axes]) -> Iterator[tuple[Path, bool]]:
    """(what is drawn, in pixels; whether its points are joined) of lines, bars and scattered points."""
    for ax in panel:
        for line in ax.get_lines():
            joined = line.get_linestyle() != "None"
            if not (joined and _guides(line, ax)):
                yield line.get_transform().transform_path(line.get_path()), joined
        for collection in ax.collections:
            if isinstance(collection, PathCollection):
                offsets = np.ma.filled(np.ma.asarray(collection.get_offsets(), dtype=float), np.nan)
                yield Path(collection.get_offset_transform().transform(offsets)), False
            elif isinstance(collection, LineCollection):
                yield from ((collection.get_transform().transform_path(one), True) for one in collection.get_paths())


def _top_of_data(panel: Sequence[Axes]) -> float:
    """How high in the panel its highest point lies, from 0 to 1."""
    outer = panel[0].get_window_extent()
    heights = np.concatenate([np.empty(0), *(path.vertices[:, 1] for path, _ in _data(panel))])
    heights = (heights[np.isfinite(heights)] - outer.y0) / outer.height
    return float(np.clip(heights, 0.0, 1.0).max(initial=0.0))


def _guides(line: Line2D, ax: Axes) -> bool:
    """Whether a line marks a place and is no data: vertical through the whole panel, or dotted and level."""
    along_x, along_y = line.get_transform().contains_branch_seperately(ax.transData)
    return not along_y or (not along_x and line.get_linestyle() == ":")


def _inside(legend: Legend, ax: Axes) -> bool:
    outer, box = ax.get_window_extent(), legend.get_window_extent()
    return bool(outer.count_contains([((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)]))


def _crosses(path: Path, box) -> bool:
    return any(Path(piece).intersects_bbox(box, filled=False) for piece in _finite_pieces(path.vertices))


def _finite_pieces(vertices: np.ndarray) -> Iterator[np.ndarray]:
    """The stretches of two and more vertices without a gap."""
    finite = np.isfinite(vertices).all(axis=1)
    for piece in np.split(np.arange(len(vertices)), np.flatnonzero(np.diff(finite)) + 1):
        if len(piece) > 1 and finite[piece[0]]:
            yield vertices[piece]
