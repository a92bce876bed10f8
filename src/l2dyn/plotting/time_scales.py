"""The three panels of figures 2 and 3 against λ: time to the peak, best accuracy, accuracy within a fixed budget."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from l2dyn.measures.peaks import FITTED_ERROR
from l2dyn.measures.power_laws import PowerLaw, fit_power_law
from l2dyn.measures.regression import mean_interval
from l2dyn.plotting import style
from l2dyn.plotting.notebook import FigureNotebook

TOLD = 0.45  # an exponent whose interval is wider is not told: three times what another machine may change of it


def draw_rows(notebook: FigureNotebook, *rows: tuple[str, str]) -> Figure:
    """A row of the three panels for each (grid experiment, fixed-budget experiment) that the scale draws.

    Below them stands the small print.
    """
    rows = [row for row in rows if set(row) <= set(notebook.config.figures[notebook.name].experiments)]
    figure, axes = style.panels(3, rows=len(rows))
    summaries = []
    for number, (grid_name, fixed_name) in enumerate(rows):
        grid, fixed = notebook.summary(grid_name), notebook.summary(fixed_name)
        row, letters = axes[3 * number : 3 * number + 3], "abcdef"[3 * number : 3 * number + 3]
        draw_time(notebook, row[0], letters[0], grid)
        draw_best(notebook, row[1], letters[1], grid)
        draw_budget(notebook, row[2], letters[2], fixed, grid)
        row[1].set_title(notebook.net(grid_name), loc="right", fontsize=style.SMALL)
        summaries += [grid, fixed]
    models = ", ".join(f"{notebook.net(grid)} (seeds: {notebook.seeds(grid, fixed)})" for grid, fixed in rows)
    note = f"{models}; bars of $t^*$: 90 % intervals, others: range over seeds; hollow: censored"
    note += ", for accuracies also: seeds are missing"
    note += "; ×: diverged, +: does not fit its training set, ▾: below the axis; dotted: the fit at the middle η"
    style.small_print(figure, notebook.small_print(*summaries, note=note))
    return figure


def draw_time(notebook: FigureNotebook, ax: Axes, panel: str, grid: pd.DataFrame) -> None:
    """t* against λ for each η, the fit, crosses where runs diverged, plus signs where runs never fit their data.

    Several seeds are one point at their geometric mean; its bar is a 90 % t interval whose variance is pooled over the
    points of the line. The fit is a regression of log t* on log λ (and log η) over all runs that reach a training error
    of FITTED_ERROR, those that are censored as lower bounds (measures.power_laws): the law is one of overparameterized
    nets, and a λ that keeps a net from fitting has left its range. The CSV has the number of decades fitted, too.
    """
    colors = style.learning_rate_colors(grid["lr"])
    with_l2 = grid[grid["l2"] > 0]
    timed = with_l2.dropna(subset="t_star").assign(bound=lambda runs: runs["censored"])
    unfit = timed[timed["min_train_error"] > FITTED_ERROR]
    timed = timed.drop(unfit.index)
    for lr, runs in unfit.groupby("lr"):
        ax.plot(runs["l2"], runs["t_star"], "+", color=colors[lr], zorder=5)
        notebook.plot(panel, f"lr={lr:g} not fitting", runs["l2"], runs["t_star"], runs["run_id"].to_numpy())
    for lr, runs in timed.groupby("lr"):
        draw_times(notebook, ax, panel, f"lr={lr:g}", runs, colors[lr])
    for lr, runs in with_l2[with_l2["status"] == "diverged"].groupby("lr"):
        style.draw_diverged(ax, runs["l2"], colors[lr])
        notebook.plot(panel, f"lr={lr:g} diverged", runs["l2"], np.nan, runs["run_id"].to_numpy())
    style.log_axis_of_l2(ax, grid["units"].iloc[0])
    ax.set(yscale="log", ylabel="epochs to peak $t^*$")
    style.make_room(ax, below=0.45 if timed["lr"].nunique() > 1 else 0.3)  # for one or two exponents in words
    style.label_short_log_axis(ax.yaxis)
    fitted = timed[timed["t_star"] > 0]
    _draw_fit(notebook, ax, panel, fitted)
    for lr, runs in fitted.groupby("lr"):
        one = fit_power_law(runs["t_star"], runs["l2"], censored=runs["censored"])
        if one is not None:
            ids = " ".join(runs["run_id"])
            what = f"exponent of l2 at lr={lr:g}"
            more = {"decades": one.decades[0], "runs": one.points, "bounds": one.bounds}
            notebook.number(panel, what, one.slopes[0], one.low[0], one.high[0], ids, told(one), **more)


def draw_best(notebook: FigureNotebook, ax: Axes, panel: str, grid: pd.DataFrame) -> None:
    """Maximum test accuracy against λ for each η; the dashed line is the best λ = 0 run over η. Holds the legend."""
    colors = style.learning_rate_colors(grid["lr"])
    best = grid[(grid["l2"] > 0) & (grid["status"] != "diverged")].dropna(subset="max_test_accuracy")
    best = best.assign(bound=lambda runs: runs["censored"] | (runs["status"] == "short"))
    for lr, runs in best.groupby("lr"):
        label = rf"$\eta = {style.number(lr)}$"
        draw_points(notebook, ax, panel, f"lr={lr:g}", runs, "max_test_accuracy", colors[lr], label)
    _draw_without_l2(notebook, ax, panel, grid)
    style.log_axis_of_l2(ax, grid["units"].iloc[0])
    ax.set(ylabel="max test accuracy")
    style.cut_low(ax)
    ax.legend(loc="best")


def draw_budget(notebook: FigureNotebook, ax: Axes, panel: str, fixed: pd.DataFrame, grid: pd.DataFrame) -> None:
    """Maximum test accuracy within a fixed budget against λ; `grid` gives the colours of the learning rates."""
    colors = style.learning_rate_colors(grid["lr"])
    within = fixed[(fixed["l2"] > 0) & (fixed["status"] != "diverged")].dropna(subset="max_test_accuracy")
    within = within.assign(bound=lambda runs: runs["status"] == "short")
    for lr, runs in within.groupby("lr"):
        draw_points(notebook, ax, panel, f"lr={lr:g}", runs, "max_test_accuracy", colors.get(lr, style.BLUE))
    _draw_without_l2(notebook, ax, panel, fixed)
    rates = ", ".join(f"{lr:g}" for lr in sorted(set(fixed["lr"])))
    style.log_axis_of_l2(ax, fixed["units"].iloc[0])
    ax.set(ylabel="max test accuracy")
    style.cut_low(ax)
    ax.legend(title=rf"{fixed['horizon_epochs'].max():g} epochs, $\eta = {rates}$", loc="best")


def draw_times(notebook, ax, panel, series, runs, color, label=None, column="t_star") -> None:
    """One point per λ: the geometric mean over seeds with its interval, see draw_time.

    runs: summary rows with a further column `bound`; times of 0 have no logarithm and are left out.
    """
    runs = runs[runs[column] > 0]
    points = runs.groupby("l2").agg(
        hollow=("bound", "any"),
        run_ids=("run_id", " ".join),
        seeds=("run_id", "size"),
        l2_torch=("l2_torch", "first"),
    )
    means = mean_interval([np.log(group) for _, group in runs.groupby("l2")[column]])
    points[["y", "low", "high"]] = np.exp(means)
    _draw_with_bars(notebook, ax, panel, series, points, color, label)


def draw_points(notebook, ax, panel, series, runs, column, color, label=None, mean="mean") -> None:
    """One point per λ: the mean over seeds and their range, hollow where any seed's value is a bound, or missing.

    runs: summary rows of one experiment and learning rate, with a further column `bound`.
    """
    if runs.empty:
        return
    points = runs.groupby("l2").agg(
        y=(column, mean),
        low=(column, "min"),
        high=(column, "max"),
        hollow=("bound", "any"),
        run_ids=("run_id", " ".join),
        seeds=("run_id", "size"),
        l2_torch=("l2_torch", "first"),
    )
    points["hollow"] |= points["seeds"] < len(notebook.config.experiments[runs["experiment"].iloc[0]].seeds)
    _draw_with_bars(notebook, ax, panel, series, points, color, label)


def _draw_with_bars(notebook, ax, panel, series, points, color, label) -> None:
    """Points (index λ; y, low, high, hollow, run_ids, seeds, l2_torch), drawn and noted."""
    spread = (points["low"], points["high"])
    style.draw_series(ax, points.index, points["y"], color, points["hollow"], label, spread)
    extra = {key: points[key].to_numpy() for key in ("low", "high", "hollow", "seeds", "l2_torch")}
    notebook.plot(panel, series, points.index, points["y"], points["run_ids"].to_numpy(), **extra)


def _draw_without_l2(notebook, ax, panel, runs) -> None:
    """The dashed line of λ = 0: seeds averaged, then the best learning rate."""
    runs = runs[(runs["l2"] == 0) & (runs["status"] != "diverged")].dropna(subset="max_test_accuracy")
    if len(runs) == 0:
        return
    means = runs.groupby("lr")["max_test_accuracy"].mean()
    ids = " ".join(runs.loc[runs["lr"] == means.idxmax(), "run_id"])
    ax.axhline(means.max(), color=style.NEUTRAL, linestyle="--", linewidth=1.0, label=r"$\lambda = 0$", zorder=1)
    notebook.plot(panel, "l2=0", [0.0], [means.max()], ids)


def told(law: PowerLaw, variable: int = 0) -> bool:
    """Whether the runs tell an exponent: that of λ, or of η (variable 1)."""
    return law.high[variable] - law.low[variable] <= TOLD


def law_in_words(what: str, law: PowerLaw, variable: int = 0) -> str:
    """The law in words: `what` (mathematics) and λ, or η (variable 1), with its exponent and interval.

    Where the runs do not tell the exponent its interval stands alone.
    """
    name, low, high = (r"\lambda", r"\eta")[variable], law.low[variable], law.high[variable]
    interval = f"[{low:.2f}, {high:.2f}]".replace("-", "−")
    if not told(law, variable):
        return f"exponent of ${name}$ in {interval}"
    return f"${what}{name}^{{{law.slopes[variable]:.2f}}}$ {interval}"


def _draw_fit(notebook, ax, panel, fitted) -> None:
    """The fitted law as a dotted line at the middle η, its exponents in words and in the CSV.

    A law that the runs at hand do not tell has no line.
    """
    rates = sorted(set(fitted["lr"]))
    variables = [fitted["l2"], *([fitted["lr"]] if len(rates) > 1 else [])]
    law = fit_power_law(fitted["t_star"], *variables, censored=fitted["censored"])
    if law is None:
        return
    ids = " ".join(fitted["run_id"])
    text = "\n".join(law_in_words("t^* \\propto ", law, variable) for variable in range(len(variables)))
    if told(law):
        l2 = np.geomspace(fitted["l2"].min(), fitted["l2"].max(), 50)
        line = np.exp(law.intercept) * l2 ** law.slopes[0]
        if len(rates) > 1:
            line = line * rates[len(rates) // 2] ** law.slopes[1]
        ax.plot(l2, line, ":", color=style.NEUTRAL, linewidth=1.0, zorder=1)
        notebook.plot(panel, "fit", l2, line, ids)
    ax.text(0.04, 0.03, text, transform=ax.transAxes, fontsize=style.SMALL, va="bottom")
    for i, name in enumerate(("l2", "lr")[: len(variables)]):
        more = {"decades": law.decades[i], "runs": law.points, "bounds": law.bounds}
        slope = law.slopes[i], law.low[i], law.high[i]
        notebook.number(panel, f"exponent of {name}", *slope, ids, told(law, i), **more)
