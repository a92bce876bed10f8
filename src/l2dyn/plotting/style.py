"""The shared style: NeurIPS text width, embedded fonts, colours that the colour-blind can tell apart."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from l2dyn.files import write_atomically
from l2dyn.specs.units import LABELS

TEXT_WIDTH = 5.5  # inches, NeurIPS
SMALL, TINY = 7, 5.5  # points
COLORS = sns.color_palette("colorblind")
BLUE, ORANGE, GREEN = COLORS[0], COLORS[1], COLORS[2]
NEUTRAL = "0.35"
MOST_CUT = 0.5  # of the points of a panel


def use_style() -> None:
    """Set the style for every figure drawn after this, whatever the user's matplotlibrc says."""
    backend = matplotlib.get_backend()
    matplotlib.rcdefaults()
    plt.switch_backend(backend)
    sns.set_theme(
        context="paper",
        style="ticks",
        rc={
            "font.family": "STIXGeneral",
            "mathtext.fontset": "stix",
            "font.size": 8,
            "axes.labelsize": 8,
            "axes.titlesize": 8,
            "xtick.labelsize": SMALL,
            "ytick.labelsize": SMALL,
            "legend.fontsize": SMALL,
            "legend.title_fontsize": SMALL,
            "legend.frameon": False,
            "legend.handlelength": 1.4,
            "legend.labelspacing": 0.25,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.minor.width": 0.4,
            "ytick.minor.width": 0.4,
            "xtick.major.size": 3,
            "ytick.major.size": 3,
            "xtick.minor.size": 1.8,
            "ytick.minor.size": 1.8,
            "lines.linewidth": 1.1,
            "lines.markersize": 3.5,
            "pdf.fonttype": 42,
            "ps.fonttype": 42,
            "savefig.dpi": 200,
            "figure.dpi": 120,
        },
    )


def panels(columns: int, rows: int = 1, height: float = 1.95, letters: bool = True) -> tuple[Figure, list[Axes]]:
    """Panels over the text width, row by row, lettered (a), (b), … above their top left corners; height of a row."""
    figure, axes = plt.subplots(rows, columns, figsize=(TEXT_WIDTH, rows * height), layout="constrained", squeeze=False)
    for number, ax in enumerate(axes.flat):
        if letters:
            ax.set_title(f"({chr(ord('a') + number)})", loc="left", fontweight="bold", pad=3)
        sns.despine(ax=ax)
    return figure, list(axes.flat)


def learning_rate_colors(rates: Sequence[float]) -> dict[float, tuple]:
    """One colour per learning rate, ordered from dark (small η) to light."""
    ordered = sorted(set(rates))
    palette = plt.get_cmap("viridis")(np.linspace(0.0, 0.82, len(ordered)))
    return {rate: tuple(color) for rate, color in zip(ordered, palette, strict=True)}


def number(value: float) -> str:
    r"""A number as mathematics: 0.15, 2, 10⁻⁵.

    >>> number(0.15), number(1e-05), number(2.5e-05)
    ('0.15', '10^{-5}', '2.5 \\cdot 10^{-5}')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:g}"
    mantissa, exponent = f"{value:e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    mantissa = f"{float(mantissa):g}"
    return power if mantissa == "1" else f"{mantissa} \\cdot {power}"


def draw_series(
    ax: Axes,
    x: Sequence[float],
    y: Sequence[float],
    color,
    hollow: Sequence[bool] = (),
    label: str | None = None,
    spread: tuple[Sequence[float], Sequence[float]] | None = None,
) -> None:
    """A line through points, hollow where a value is only a bound; `spread` draws (low, high) as error bars."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    hollow = np.asarray(hollow, dtype=bool) if len(hollow) else np.zeros(len(x), dtype=bool)
    ax.plot(x, y, "-", color=color, linewidth=0.9, zorder=2)
    if spread is not None:
        ax.vlines(x, spread[0], spread[1], color=color, linewidth=0.8, zorder=2)
    ax.plot(x[~hollow], y[~hollow], "o", color=color, zorder=3)
    ax.plot(x[hollow], y[hollow], "o", color=color, markerfacecolor="white", zorder=3)
    if label is not None:
        ax.plot([], [], "-o", color=color, linewidth=0.9, label=label)  # a point alone in a legend looks like data


def with_units(label: str, units: str) -> str:
    """An axis label that holds λ or η, with the units where they are not PyTorch's (l2dyn.specs.units)."""
    return f"{label} ({LABELS[units]})" if LABELS[units] else label


def log_axis_of_l2(ax: Axes, units: str = "torch") -> None:
    """λ on a logarithmic x-axis, labelled at powers of ten where there are two of them, else at 1, 2 and 5."""
    ax.set(xscale="log", xlabel=with_units(r"L2 coefficient $\lambda$", units))
    ax.xaxis.set_minor_formatter(NullFormatter())
    low, high = (np.log10(value) for value in ax.get_xlim())
    if np.floor(high) - np.ceil(low) < 1:
        label_short_log_axis(ax.xaxis)


def label_short_log_axis(axis: Axis) -> None:
    """On a logarithmic axis of less than two decades label 1, 2 and 5 of each, or 1 and 3 where these would be many.

    Call it when the limits stand.
    """
    low, high = axis.get_view_interval()
    if high / low < 100:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 16 else (1.0, 3.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"${number(float(f'{value:.6g}'))}$"))
    axis.set_minor_formatter(NullFormatter())


def budget_axis(ax: Axes, budgets: Sequence[float]) -> None:
    """Training budgets on a logarithmic x-axis, each labelled."""
    ax.set(xscale="log", xlabel="training budget $T$ (epochs)")
    ax.xaxis.set_major_locator(FixedLocator(list(budgets)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def make_room(ax: Axes, below: float = 0.0, above: float = 0.0) -> None:
    """Widen the y-range by these fractions of it, so that a legend covers no data."""
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(np.array(ax.get_ylim()))
    span = high - low
    ax.set_ylim(*scale.inverted().transform(np.array([low - below * span, high + above * span])))


def mark_time(ax: Axes, t: float, label: str) -> None:
    """A dotted vertical line at t, named above the panel."""
    ax.axvline(t, color=NEUTRAL, linewidth=0.6, linestyle=":", zorder=0)
    ax.annotate(
        label,
        (t, 1.01),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
        fontsize=SMALL,
        color=NEUTRAL,
    )


def plural(count: float, noun: str) -> str:
    """A count and its noun.

    >>> plural(1, "run"), plural(3, "seed")
    ('1 run', '3 seeds')
    """
    return f"{count:g} {noun}" if count == 1 else f"{count:g} {noun}s"


def cut_low(ax: Axes, depth: float = 0.12) -> None:
    """Let the y-axis reach no further than `depth` below its best point; triangles stand for the points below.

    Nothing is cut where more than MOST_CUT of the points would be. Call it when everything is drawn. Lines end at the
    last point above.
    """
    lines = [line for line in ax.get_lines() if line.get_marker() == "o" and len(line.get_ydata())]
    highest = max((np.nanmax(line.get_ydata()) for line in lines), default=np.nan)
    below = [(line, np.asarray(line.get_ydata()) < highest - depth) for line in lines]
    count = sum(int(low.sum()) for _, low in below)
    if not 0 < count <= MOST_CUT * sum(len(low) for _, low in below):
        return
    top = max(highest, ax.dataLim.y1)  # bars reach above the points
    ax.set_ylim(highest - depth, top + 0.1 * depth)
    stacked: dict[float, int] = {}
    for line, low in below:
        for x in np.asarray(line.get_xdata())[low]:
            height = 0.025 + 0.04 * stacked.setdefault(x, 0)
            stacked[x] += 1
            ax.plot(x, height, "v", color=line.get_color(), markersize=3, transform=ax.get_xaxis_transform())
    for line in ax.get_lines():
        y = np.asarray(line.get_ydata(), dtype=float)
        if line.get_marker() == "o" or (line.get_linestyle() == "-" and len(y) > 1):
            line.set_ydata(np.where(y < highest - depth, np.nan, y))


def cut_early(ax: Axes, depth: float = 0.15) -> None:
    """Leave out the steep rise of accuracy over time: let the y-axis begin `depth` below the best value drawn.

    Every line keeps its upper part: the axis reaches a third of `depth` below the lowest of the lines' best values.
    """
    tops = [np.nanmax(line.get_ydata()) for line in ax.get_lines() if len(line.get_ydata()) > 2]
    if tops:
        ax.set_ylim(min(max(tops) - depth, min(tops) - depth / 3), max(tops) + 0.1 * depth)


def draw_diverged(ax: Axes, x: Sequence[float], color) -> None:
    """Crosses along the lower edge, where runs diverged."""
    if len(x) == 0:
        return  # an empty artist would still take part in the layout, at the figure's corner
    heights = np.full(len(x), 0.03)
    ax.plot(x, heights, "x", color=color, markersize=3.5, transform=ax.get_xaxis_transform(), clip_on=False, zorder=4)


def mark_empty(figure: Figure) -> None:
    """Say so in every panel that shows no data, in place of ticks and a legend; call it when everything is drawn."""
    shown = [ax for ax in figure.axes if _shows_data(ax)]
    for ax in figure.axes:
        if ax in shown:
            continue
        ax.set(xticks=[], yticks=[])
        ax.minorticks_off()
        if ax.get_legend():
            ax.get_legend().remove()
        # a panel that says why it is empty has said it; a second axis lies at the place of the first
        if not ax.texts and not any(
            np.allclose(ax.get_position().bounds, other.get_position().bounds) for other in shown
        ):
            ax.text(0.5, 0.5, "no runs yet", transform=ax.transAxes, ha="center", va="center", color=NEUTRAL)
            shown.append(ax)


def _shows_data(ax: Axes) -> bool:
    """Whether there is a line, a point, a band or an image in a panel; what is empty, or a legend's only, is none."""
    lines = any(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in ax.get_lines())
    return bool(lines or ax.images or ax.patches or any(len(one.get_paths()) for one in ax.collections))


def small_print(figure: Figure, text: str) -> None:
    """Provenance along the lower edge, in as many lines as it takes."""
    lines = textwrap.wrap(text, width=145)
    strip = 0.11 * len(lines) / figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, strip, 1, 1 - strip))
    figure.text(0.005, 0.008, "\n".join(lines), fontsize=TINY, color=NEUTRAL, ha="left", va="bottom")


def save(figure: Figure, *paths: str) -> None:
    """Write the figure under every name, whole or not at all, without dates, so that equal figures are equal files.

    Raises:
        UserError: when the disk is full.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # laid out once, not anew for each file; "none" would still go through the motions
    for path in paths:
        metadata = {"CreationDate": None, "ModDate": None} if str(path).endswith(".pdf") else {"Software": None}
        stream = io.BytesIO()
        figure.savefig(stream, format=Path(path).suffix[1:], metadata=metadata)
        write_atomically(Path(path), stream.getvalue())
