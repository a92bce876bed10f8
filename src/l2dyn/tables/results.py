"""results.md: the claims with their verdicts, the paper's numbers beside ours, and what the figures show by number."""

from pathlib import Path

import pandas as pd

from l2dyn.claims.verdicts import NOT_RUN
from l2dyn.config.experiment import ExperimentConfig
from l2dyn.files import write_atomically
from l2dyn.runs.plan import Plan
from l2dyn.tables.claims import PaperNumber, read_claims, verdict_in_words, with_interval
from l2dyn.tables.markdown import significant, table
from l2dyn.tables.remarks import remarks_on
from l2dyn.tables.units import WHOSE, units_in_words

VERDICTS = (
    "*Reproduced*: the intervals of all that a claim says lie inside what it allows; *not reproduced*: one lies"
    " outside; *inconclusive*: too few runs, or an interval across a border. A scale is *too small to confirm* (to"
    " contradict, to decide) where its seeds, λ or budgets cannot lead there, whatever its runs show: there the verdict"
    " says little of the paper."
)


def write_results(plan: Plan, folder: Path, path: Path) -> None:
    """Write the page of a scale whose claims, figures' CSV files and summaries lie in `folder`, results/<scale>.

    Raises:
        UserError: for a bad paper_results/remarks.yaml.
    """
    figures = plan.scale.figures
    shown = dict.fromkeys(name for figure in figures.values() for name in figure.experiments)
    runs = {name: _runs(name, plan.scale.experiments[name], folder / name / "summary.csv") for name in shown}
    sections = []
    for name, figure in figures.items():
        plotted = pd.read_csv(folder / f"{name}.csv", dtype={"series": str})
        empty = figure.experiments and not any(_ended(runs[of]) for of in figure.experiments)
        units = units_in_words({of: plan.scale.experiments[of] for of in figure.experiments})
        empty = empty and not figure.theory
        sections.append(f"## {name}\n\nNone of its runs is there yet." if empty else _figure(name, plotted, units))
    head = (
        "experiment",
        "shows",
        "net",
        "units",
        "runs",
        "seeds",
        "finished",
        "diverged",
        "missing or short",
        "device",
    )
    text = [
        f"# Results of the scale {plan.name}",
        f"{plan.scale.about[:1].upper()}{plan.scale.about[1:]}. Written by `rule results`; every plotted number, with"
        " run ids, stands in the figures' CSV files. Accuracies and their differences are fractions; l2 is λ, lr is η,"
        " both in PyTorch's units or the authors' (docs/concepts.md). A number that is too uncertain for a value has"
        " its interval alone. Intervals are of 90 %, where nothing else is said.",
        *_claims(plan, folder),
        *sections,
        "## Runs",
        table(head, list(runs.values())),
    ]
    write_atomically(path, ("\n\n".join(text) + "\n").encode())


def _claims(plan: Plan, folder: Path) -> list[str]:
    """The table of verdicts, the paper's numbers beside ours, and the remarks."""
    whole = pd.read_csv(folder / "claims.csv", dtype=str).fillna("").set_index("claim")
    texts = dict.fromkeys(("claim", "part", "what", "interval", "wanted"), str)
    parts = pd.read_csv(folder / "claim_parts.csv", dtype=texts)
    claims, remarks, of_scale = read_claims(), remarks_on(plan.name), remarks_on(plan.name, everywhere=False)
    rows = []
    for claim in claims:
        verdict, seeds = whole.loc[claim.id, ["verdict", "seeds"]]
        said = verdict_in_words(claim, verdict, plan.name)
        remark = (of_scale if verdict == NOT_RUN else remarks).get(claim.id, "")
        rows.append((claim.id, claim.claim, said, seeds, remark))
    beside = []
    for claim in claims:
        for number in claim.numbers:
            ours = parts[(parts["claim"] == claim.id) & parts["part"].fillna("").str.match(number.part)]
            ours = ours[ours["verdict"] != NOT_RUN]
            values = "; ".join(f"{row.part}: {with_interval(row) or 'not judged'}" for row in ours.itertuples())
            what = set(ours["what"].dropna()) if len(ours) else ()
            values = f"{what.pop()}: {values}" if len(what) == 1 else values
            beside.append((claim.id, number.paper, values or _read_off(number, plan, folder)))
    return [
        "## Claims",
        VERDICTS,
        table(("claim", "the paper says", "verdict", "seeds", "remarks"), rows),
        f"`results/{plan.name}/claims.md` has the rule, the estimates and the runs behind each.",
        "## The paper's numbers and ours",
        table(("claim", "paper, in the authors' units", "ours [interval]"), beside),
    ]


def _read_off(number: PaperNumber, plan: Plan, folder: Path) -> str:
    """What a figure shows beside a number of the paper where no claim judges it at this scale."""
    path = folder / f"{number.figure}.csv"
    if number.figure and path.exists():
        plotted = pd.read_csv(path, dtype={"series": str})
        for row in plotted[(plotted["kind"] == "number") & (plotted["series"] == number.number)].itertuples():
            if row.y == row.y:
                figure = plan.scale.figures.get(number.figure)
                of = {plan.scale.experiments[name].units for name in (figure.experiments if figure else ())}
                units = "" if number.dimensionless else f" in {' or '.join(WHOSE[one] for one in sorted(of))} units"
                ends = f" [{significant(row.low)}, {significant(row.high)}]" if row.low < row.high else ""
                said = f"{number.number} in {number.figure}: {significant(row.y)}{ends}{units}"
                return f"not judged at this scale; {said}"
    return "not measured at this scale"


def _figure(name: str, plotted: pd.DataFrame, units: str) -> str:
    """The picture of one figure, and the numbers that are read off it."""
    numbers = plotted[plotted["kind"] == "number"]
    section = f"## {name}\n\n![{name}]({name}.png)"
    if not len(numbers):
        return section
    rows = [
        (
            row.panel,
            row.series,
            significant(row.y),
            f"{significant(row.low)} to {significant(row.high)}" if row.low == row.low else "",
        )
        for row in numbers.itertuples()
    ]
    return "\n\n".join(filter(None, (section, units, table(("panel", "number", "value", "interval"), rows))))


def _ended(row: tuple) -> int:
    """Of a row of _runs: how many are finished or diverged."""
    return row[6] + row[7]


def _runs(name: str, config: ExperimentConfig, path: Path) -> tuple:
    summary = pd.read_csv(path, dtype={"device": str, "run_id": str})
    unknown = summary["run_id"].isna()  # λ is not measured yet
    summary.loc[unknown, "run_id"] = [f"unknown {i}" for i in range(int(unknown.sum()))]
    # a run has a row for each of its horizons: what any of them lacks counts
    said = summary.groupby("run_id")["status"].agg(set)
    lacking = sum(bool({"missing", "short"} & statuses) for statuses in said)
    diverged = sum("diverged" in statuses for statuses in said)
    finished = sum(statuses == {"finished"} for statuses in said)
    devices = ", ".join(sorted(set(summary["device"].dropna())))
    runs = "pending" if unknown.all() else int(summary["run_id"].nunique())
    counted = (runs, len(config.seeds), finished, diverged, "" if unknown.all() else lacking)
    return name, config.shows, config.net.describe(), WHOSE[config.units], *counted, devices
