"""What the workflow itself costs: idle cores, parsing, redrawing, and finding that nothing is to be done.

    python benchmarks/dag.py --output dag.json

Trains a scale from nothing in a temporary copy of the checkout, as it is, and then repeats the small calls.
Overhead is cores × wall time of the training call minus the time of its training jobs, as Snakemake's benchmark files
have it, and, more strictly, minus the time in training steps and evaluations, as the records have it.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import side_by_side as common

ROOT = Path(__file__).resolve().parents[1]


def seconds(command: list[str], folder: Path, environment: dict) -> float:
    """Wall time of a call that must succeed."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started


def job_seconds(folder: Path) -> list[tuple[str, float]]:
    """Each training job and its wall time, from Snakemake's benchmark files."""
    found = []
    for path in sorted(folder.glob("train-*.tsv")):
        with open(path) as stream:
            found += [(path.stem, float(row["s"])) for row in csv.DictReader(stream, delimiter="\t")]
    return found


def in_training(results: Path) -> float:
    """Seconds in steps and evaluations, summed over all records."""
    from l2dyn.runs.records import read_records

    paths = (results / "cache" / "runs").glob("*.parquet")
    return sum(record.provenance["wall_s"] for path in paths for record in read_records(path))


def copy_of_checkout(folder: Path) -> None:
    """The files that git tracks or would track, as they are."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], "about 10 minutes on 2 cores for the quick scale, 1 for smoke")
    parser.add_argument("--scale", default="quick")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--targets", nargs="+", default=["figures"])
    parser.add_argument("--keep", type=Path, help="a folder that gets the results and figures of the training call")
    parser.add_argument("--repeats", type=int, default=5, help="of the small calls")
    options = parser.parse_args()
    common.prepare(options)
    snakemake = [sys.executable, "-m", "snakemake", "--quiet", "all", "--cores", str(options.cores)]
    scale = ["--config", f"scale={options.scale}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("L2DYN_")} | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="l2dyn-dag-") as temporary:
        folder = Path(temporary)
        copy_of_checkout(folder)
        environment["PYTHONPATH"] = str(folder / "src")
        wall = seconds([*snakemake, *options.targets, *scale], folder, environment)
        results = folder / "results"
        if options.keep:
            shutil.copytree(results, options.keep / "results")
            shutil.copytree(folder / "figures", options.keep / "figures")
        jobs = job_seconds(results / options.scale / "benchmarks")
        spent, trained = options.cores * wall, in_training(results)

        def often(command: list[str]) -> list[float]:
            return [seconds(command, folder, environment) for _ in range(options.repeats)]

        redraw = [f"results/{options.scale}/fig5.pdf", "--forcerun", "figure"]
        small = {
            "nothing to do, s": often([*snakemake, *options.targets, *scale]),
            "redraw one figure, s": often([*snakemake, *redraw, *scale]),
            "dry run of the paper scale, s": often([*snakemake, "-n", "--config", "scale=paper"]),
        }
    row = {
        "scale": options.scale,
        "wall, s": wall,
        "cores x wall, s": spent,
        "training jobs, s": sum(s for _, s in jobs),
        "overhead": 1 - sum(s for _, s in jobs) / spent,
        "in training, s": trained,
        "overhead, strictly": 1 - trained / spent,
        **{name: common.median(values) for name, values in small.items()},
    }
    common.finish("dag", options, [row], jobs=jobs, calls=small)


if __name__ == "__main__":
    common.call(main)
