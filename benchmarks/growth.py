"""How the cost of a step grows with the members of the stack and with the width of the nets: growth.png.

python benchmarks/growth.py --output growth.json        # measures, draws growth.png beside the JSON file
"""

import fc_steps
import side_by_side as common


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], "about 2 minutes on a CPU core")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512, 1024])
    parser.add_argument("--samples", type=int, default=512)
    options = parser.parse_args()
    common.prepare(options)
    rows = []
    for width, members in [(64, m) for m in options.members] + [(w, 8) for w in options.widths if w != 64]:
        tasks = [fc_steps.task(width, options.samples, seed, "float32") for seed in range(members)]
        at_once = max(1, 256 // members)
        calls = fc_steps.stack_seconds(tasks, options.device, options.window / 2, at_once=at_once)
        ours = common.median(calls) / members
        rows.append({"width": width, "members": members, "ours, ms a model-step": 1e3 * ours})
    for width in options.widths:
        eager = common.median(fc_steps.eager_seconds(width, options.samples, options.device, options.window / 2))
        rows.append({"width": width, "members": "eager loop", "ours, ms a model-step": 1e3 * eager})
    common.finish("growth", options, rows)
    if options.output:
        draw(rows, options.output.with_suffix(".png"))


def draw(rows: list[dict], path) -> None:
    """Two panels: against members at width 64, and against width with 8 members and for the eager loop."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    value = "ours, ms a model-step"
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8), layout="constrained")
    eager = {row["width"]: row[value] for row in rows if row["members"] == "eager loop"}
    grown = sorted((r["members"], r[value]) for r in rows if r["width"] == 64 and r["members"] != "eager loop")
    left.plot(*zip(*grown, strict=True), "o-", label="stacked nets")
    if 64 in eager:
        left.axhline(eager[64], color="0.5", linestyle="--", label="eager loop over one net")
    left.set(xscale="log", xlabel="members, width 64", ylabel="ms a model-step", ylim=(0, None))
    left.legend()
    wide = sorted((r["width"], r[value]) for r in rows if r["members"] == 8)
    right.plot(*zip(*wide, strict=True), "o-", label="8 members")
    right.plot(*zip(*sorted(eager.items()), strict=True), "s--", color="0.5", label="eager loop")
    right.set(xscale="log", yscale="log", xlabel="width", ylabel="ms a model-step")
    right.legend()
    figure.savefig(path, dpi=110)
    print(f"{path} drawn")


if __name__ == "__main__":
    common.call(main)
