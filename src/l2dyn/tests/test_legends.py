"""A legend covers no data: it moves to a free corner, or the data make room."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from l2dyn.plotting import style
from l2dyn.plotting.legends import covers_data, make_room_for_legends


@pytest.fixture(autouse=True)
def without_a_screen():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def panel(x, y, draw, loc="lower left", scale="linear"):
    """A panel with a legend of three lines that covers something, and its legend."""
    figure, (ax,) = style.panels(1)
    draw(ax, x, y)
    for name in ("a net", "another net", "a third net"):
        ax.plot([], [], label=name)
    ax.set_yscale(scale)
    legend = ax.legend(loc=loc)
    figure.draw_without_rendering()
    assert covers_data(legend, [ax])
    return figure, ax, legend


GRID = np.linspace(1.0, 2.0, 30)
EVERYWHERE = np.meshgrid(GRID, GRID)


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax, x, y: ax.plot(x, y, "o"),
        lambda ax, x, y: ax.plot(x, y, "-"),
        lambda ax, x, y: ax.scatter(x, y),
        lambda ax, x, y: (ax.plot(x, y), ax.text(1.1, 1.8, "f = 0")),
        lambda ax, x, y: ax.vlines(x, y - 0.05, y + 0.05),
    ],
    ids=["points", "a line", "a scatter", "a word", "bars"],
)
def test_a_legend_moves_to_the_free_corner(draw):
    figure, ax, legend = panel(GRID, 3.0 - GRID, draw, "upper left")
    limits = ax.get_ylim()
    make_room_for_legends(figure)
    assert not covers_data(legend, [ax])
    assert ax.get_ylim() == limits


def test_room_that_is_there_is_used():
    x, y = (values.ravel() for values in EVERYWHERE)
    ends = []
    for high in (2.0, 2.4):
        figure, ax, legend = panel(x, y, draw=lambda ax, x, y, high=high: (ax.plot(x, y, "o"), ax.set_ylim(1.0, high)))
        make_room_for_legends(figure)
        assert not covers_data(legend, [ax])
        ends.append(ax.get_ylim()[1])
    assert ends[0] == pytest.approx(ends[1], rel=0.01)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_without_a_free_corner_the_data_make_room(scale):
    x, y = (values.ravel() for values in EVERYWHERE)
    figure, ax, legend = panel(x, y, scale=scale, draw=lambda ax, x, y: ax.plot(x, y, "o"))
    make_room_for_legends(figure)
    assert not covers_data(legend, [ax])
    low, high = ax.get_ylim()
    assert low <= 1.0
    assert high > 2.0


def test_the_data_of_a_second_axis_make_room_too():
    x, y = (values.ravel() for values in EVERYWHERE)
    figure, (ax,) = style.panels(1)
    second = ax.twinx()
    ax.plot(x, y, "o", label="a net")
    second.plot(x, 10.0 * y, "o")
    legend = ax.legend()
    make_room_for_legends(figure)
    assert not covers_data(legend, [ax, second])


def test_gaps_in_a_line_are_free_and_a_line_between_points_outside_is_not():
    figure, (ax,) = style.panels(1)
    ax.plot([0.0, 1.0], [0.0, 1.0], label="a net")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    legend = ax.legend(loc="center")
    figure.draw_without_rendering()
    assert covers_data(legend, [ax])
    ax.get_lines()[0].set_data([0.0, 0.1, 0.5, 0.9, 1.0], [0.0, 0.1, np.nan, 0.9, 1.0])
    assert not covers_data(legend, [ax])


@pytest.mark.parametrize("guide", [lambda ax: ax.axvline(0.9), lambda ax: ax.axhline(0.9, linestyle=":")])
def test_guides_move_nothing(guide):
    figure, (ax,) = style.panels(1)
    ax.plot([0.0, 0.1], [0.0, 0.1], label="a net")
    guide(ax)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="upper right")
    figure.draw_without_rendering()
    before = ax.get_legend().get_window_extent().bounds
    make_room_for_legends(figure)
    assert np.allclose(ax.get_legend().get_window_extent().bounds, before)
    assert ax.get_ylim() == (0, 1)


def test_a_level_line_of_data_moves_a_legend():
    figure, (ax,) = style.panels(1)
    ax.axhline(0.9, linestyle="--", label="a net")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    legend = ax.legend(loc="upper right")
    make_room_for_legends(figure)
    assert not covers_data(legend, [ax])


def test_a_legend_beside_its_panel_stays():
    figure, (ax,) = style.panels(1)
    ax.plot([0.0, 1.0], [0.0, 1.0], label="a net")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.draw_without_rendering()
    limits = ax.get_ylim()
    make_room_for_legends(figure)
    assert ax.get_ylim() == limits


def test_a_legend_as_tall_as_the_panel_stays():
    figure, (ax,) = style.panels(1)
    x, y = (values.ravel() for values in EVERYWHERE)
    ax.plot(x, y, "o")
    for number in range(12):
        ax.plot([], [], label=f"net {number}")
    ax.legend()
    limits = ax.get_ylim()
    make_room_for_legends(figure)
    assert ax.get_ylim() == limits


def test_a_word_alone_moves_a_legend():
    figure, (ax,) = style.panels(1)
    ax.bar([0.0], [1.0], label="a net")
    for x in np.linspace(-0.4, 0.4, 6):
        for y in np.linspace(0.0, 1.0, 12):
            ax.text(x, y, "word")
    legend = ax.legend()
    make_room_for_legends(figure)
    assert legend.get_window_extent().y1 <= ax.get_window_extent().y1


def test_a_legend_cuts_no_marker():
    """Its edge may come no nearer to a point than a marker is wide, though the point itself lies outside."""
    figure, (ax,) = style.panels(1)
    ax.plot([0.0, 1.0], [0.0, 1.0], "none", label="points")
    legend = ax.legend(loc="upper left")
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    for below, covered in ((1.0, True), (4.0, False)):
        point = ax.transData.inverted().transform(((box.x0 + box.x1) / 2, box.y0 - below * figure.dpi / 72))
        dots = ax.plot(*point, "o")
        assert covers_data(legend, [ax]) == covered
        dots[0].remove()
