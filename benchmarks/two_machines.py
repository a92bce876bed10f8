r"""Do the figures' numbers depend on the machine? Two results of one scale, made with different arithmetic, compared.

    snakemake --cores 2 figures
    L2DYN_RESULTS=other ATEN_CPU_CAPABILITY=default MKL_CBWR=AVX snakemake --cores 2 figures
    python benchmarks/two_machines.py results/quick other/quick --output two_machines.json

The second call takes other kernels for all but convolutions, as an older CPU would (ONEDNN_MAX_CPU_ISA=AVX for these,
too, takes several times as long): sums are added in another order, and rounding grows as it does between any two
machines. Every number of the figures' CSV files stands beside itself, with a margin that was fixed before either was
made: exponents 0.15, constants C and c a factor 1.35, accuracies and their differences 0.015, decades between two λ
0.2. Where a number has an interval, it is said whether the two overlap; a wide interval is no agreement. A number that
one of the two tells, while the other gives an interval only, has moved beyond its margin.
"""

import math

import pandas as pd
import side_by_side as common

from l2dyn.errors import UserError

MARGINS = (  # words in the number's name, how it is compared, the margin
    (("exponent",), "difference", 0.15),
    (("tuned (centre)",), "ratio", 1.6),
    (("accuracy", "gain"), "difference", 0.015),
    (("C ", "c_", "C_", "slope", "measured over theory", "time of AutoL2"), "ratio", 1.35),
)


def rule(name: str) -> tuple[str, float]:
    """How a number is compared, and by how much it may move."""
    return next(((how, margin) for words, how, margin in MARGINS if any(w in name for w in words)), ("ratio", 1.35))


def distance(a: float, b: float, how: str) -> float:
    """By how much a number has moved: a difference, or a ratio of 1 and more, infinite where the sign changes."""
    if how == "difference":
        return abs(a - b)
    return math.exp(abs(math.log(a / b))) if a * b > 0 else math.inf


def main() -> None:
    """Compare the numbers of two results folders and print those that moved beyond their margin, and all others."""
    parser = common.parser(__doc__.splitlines()[0], "seconds")
    parser.add_argument("first", type=common.Path, help="results/<scale> of one machine")
    parser.add_argument("second", type=common.Path, help="the same of another")
    options = parser.parse_args()
    common.prepare(options)
    rows = []
    for path in sorted(options.first.glob("fig*.csv")):
        other = options.second / path.name
        if not other.exists():
            continue
        one, two = (pd.read_csv(p, dtype={"series": str, "panel": str}) for p in (path, other))
        one, two = (table[table["kind"] == "number"].set_index(["panel", "series"]) for table in (one, two))
        for key in one.index.intersection(two.index):
            a, b = one.loc[key], two.loc[key]
            told = math.isfinite(a["y"]), math.isfinite(b["y"])
            if not any(told):
                continue  # an interval alone on both
            how, margin = rule(key[1])
            moved = min(distance(a["y"], b["y"], how) if all(told) else math.inf, 1e9)
            overlap = "" if a["low"] != a["low"] else str(bool(a["low"] <= b["high"] and b["low"] <= a["high"]))
            rows.append(
                {"number": f"{path.stem} {key[0]}: {key[1]}", "first": float(a["y"]), "second": float(b["y"])}
                | {"moved": float(moved), "margin": margin, "compared by": how}
                | {"within": str(bool(moved <= margin * (1 + 1e-9))), "intervals overlap": overlap}
            )
    if not rows:
        raise UserError(f"{options.first}, {options.second}: no figure's CSV file stands in both")
    inside = sum(row["within"] == "True" for row in rows)
    common.finish("two_machines", options, rows, inside=inside, numbers=len(rows))
    print(f"{inside} of {len(rows)} numbers within their margin")


if __name__ == "__main__":
    common.call(main)
