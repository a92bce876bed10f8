"""Legends that cover no data: moved to a free corner, or the y-axis made longer for them."""

from collections.abc import Iterable, Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.path import Path

from l2dyn.plotting.style import make_room

PAD = 0.03  # of a panel's height
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
        legend.set_loc("best")
        figure.draw_without_rendering()
        if not covers_data(legend, panel):
            continue
        height = legend.get_window_extent().height / ax.get_window_extent().height + PAD
        if height < MOST_ROOM:
            legend.set_loc("upper left")
            for other in panel:
                make_room(other, above=height / (1 - height))
            figure.draw_without_rendering()


def covers_data(legend: Legend, panel: Iterable[Axes]) -> bool:
    """Whether a point, line or bar of these axes, which share their place, lies below the legend, once drawn."""
    box = legend.get_window_extent()
    for ax in panel:
        for line in ax.get_lines():
            path = line.get_transform().transform_path(line.get_path())
            if line.get_marker() not in ("None", "none", None, "", " ") and box.count_contains(path.vertices):
                return True
            if line.get_linestyle() != "None" and not _guides(line, ax) and _crosses(path, box):
                return True
        for collection in ax.collections:
            if isinstance(collection, PathCollection) and box.count_contains(
                collection.get_offset_transform().transform(collection.get_offsets())
            ):
                return True
            if isinstance(collection, LineCollection):
                transform = collection.get_transform()
                if any(_crosses(transform.transform_path(path), box) for path in collection.get_paths()):
                    return True
    return False


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
