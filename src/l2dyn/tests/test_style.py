"""What the shared style does to panels: empty ones say so, low points become triangles, short axes have few labels."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from l2dyn.plotting import style


@pytest.fixture(autouse=True)
def without_a_screen():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def said(ax):
    return [text.get_text() for text in ax.texts]


def test_a_panel_without_data_says_so_and_has_neither_ticks_nor_legend():
    figure, (empty, legend_only, full) = style.panels(3)
    empty.plot([1.0, 2.0], [np.nan, np.nan])
    legend_only.plot([], [], label="a net")
    legend_only.legend()
    full.plot([1.0], [2.0], "o", label="a net")
    full.legend()
    style.mark_empty(figure)
    assert [said(ax) for ax in (empty, legend_only, full)] == [["no runs yet"], ["no runs yet"], []]
    assert legend_only.get_legend() is None
    assert full.get_legend() is not None
    assert [len(ax.get_xticks()) > 0 for ax in (empty, legend_only, full)] == [False, False, True]


def test_a_panel_that_says_why_it_is_empty_has_said_it():
    figure, (ax,) = style.panels(1)
    ax.text(0.5, 0.5, "none fits")
    style.mark_empty(figure)
    assert said(ax) == ["none fits"]
    assert len(ax.get_xticks()) == 0


@pytest.mark.parametrize("draw", [lambda ax: ax.axhline(1.0), lambda ax: ax.vlines([1.0], 0.0, 1.0)])
def test_lines_of_any_kind_are_data(draw):
    figure, (ax,) = style.panels(1)
    draw(ax)
    style.mark_empty(figure)
    assert said(ax) == []


def test_a_second_axis_at_the_same_place_is_one_panel():
    figure, (ax,) = style.panels(1)
    second = ax.twinx()
    style.mark_empty(figure)
    assert said(ax) + said(second) == ["no runs yet"]
    figure, (ax,) = style.panels(1)
    ax.plot([1.0], [1.0])
    second = ax.twinx()
    style.mark_empty(figure)
    assert said(ax) + said(second) == []


def heights(low):
    """(lower end of the y-axis, number of triangles) of a panel with so many of six points far below the best."""
    _, (ax,) = style.panels(1)
    y = np.where(np.arange(6) < low, 0.2, 0.9)
    style.draw_series(ax, np.arange(6.0), y, "k")
    style.cut_low(ax)
    triangles = [line for line in ax.get_lines() if line.get_marker() == "v"]
    shown = [y for line in ax.get_lines() if line.get_marker() == "o" for y in line.get_ydata() if np.isfinite(y)]
    assert len(shown) == 6 - len(triangles)  # none twice, were the axis widened
    return ax.get_ylim()[0], len(triangles)


def test_few_low_points_become_triangles_many_are_shown_where_they_are():
    bottom, triangles = heights(2)
    assert bottom == pytest.approx(0.9 - 0.12)
    assert triangles == 2
    bottom, triangles = heights(4)
    assert bottom < 0.2
    assert triangles == 0
    assert heights(0)[1] == 0


@pytest.mark.parametrize(
    ("limits", "labelled"), [((0.01, 0.1), [0.01, 0.02, 0.05, 0.1]), ((1e-4, 5e-3), [1e-4, 3e-4, 1e-3, 3e-3])]
)
def test_a_short_axis_has_few_labels(limits, labelled):
    _, (ax,) = style.panels(1)
    ax.set(xscale="log", xlim=limits)
    style.label_short_log_axis(ax.xaxis)
    inside = [tick for tick in ax.xaxis.get_majorticklocs() if limits[0] * 0.999 <= tick <= limits[1] * 1.001]
    assert inside == pytest.approx(labelled)


@pytest.mark.parametrize(("worse", "low"), [(0.88, 0.75), (0.5, 0.45)])
def test_the_rise_is_left_out_and_every_line_keeps_its_upper_part(worse, low):
    _, (ax,) = style.panels(1)
    ax.plot([0, 1, 2], [0.1, 0.5, 0.9])
    ax.plot([0, 1, 2], [0.1, 0.3, worse])
    style.cut_early(ax)
    assert ax.get_ylim() == pytest.approx((low, 0.915))
