"""The DAG after losses: what comes back, what is trained again, what a damaged file says."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from checkout import damage, flip_in_columns, jobs_of, lines_of_users, made, nothing_to_do

SLOW = pytest.mark.slow  # the whole of what the others show in part

LOST = (
    "fig2ab/summary.csv",
    "fig1b-predicted/l2.json",
    "theory/modes.csv",
    "fig1b-predicted/summary.csv",
    "fig1c-tuned/l2.json",
    "fig4.csv",
    "fig2.png",
    "results.md",
    "claim_parts.csv",
)


@pytest.mark.parametrize("name", [name if i < 3 else pytest.param(name, marks=SLOW) for i, name in enumerate(LOST)])
def test_a_lost_file_is_made_again_and_nothing_trained(tiny, name):
    content = (tiny.out / name).read_bytes()
    (tiny.out / name).unlink()
    done = tiny.snakemake("all" if name != "fig4.csv" else "results/tiny/fig4.csv")
    assert (tiny.out / name).read_bytes() == content
    assert done.trained == 0


@pytest.mark.parametrize("with_cache", [True, False], ids=["from the cache", "without it"])
def test_a_lost_bundle_is_put_together_again_to_the_byte(tiny, with_cache):
    """Without the cache its runs are lost, but no other one's: 'fig2ab' has two slices."""
    (bundle, other) = tiny.bundles("fig2ab")
    content, kept, runs = bundle.read_bytes(), other.read_bytes(), bundle_runs(bundle)
    bundle.unlink()
    if not with_cache:
        shutil.rmtree(tiny.path / "results" / "cache")
    done = tiny.snakemake("all")
    assert (bundle.read_bytes() == content) or not with_cache  # trained again it holds other times
    assert other.read_bytes() == kept
    assert done.trained == (0 if with_cache else len(runs))
    assert nothing_to_do(tiny.snakemake("all"))


def bundle_runs(bundle: Path) -> list[str]:
    """The ids of a bundle's runs, from its metadata."""
    return list(json.loads(pq.read_metadata(bundle).metadata[b"l2dyn"])["runs"])


def test_without_the_cache_there_is_nothing_to_do_and_figures_are_restyled(tiny):
    shutil.rmtree(tiny.path / "results" / "cache")
    assert nothing_to_do(tiny.snakemake("all"))
    tiny.edit("figures/fig4.py", 'ylabel="test accuracy"', 'ylabel="accuracy on the test set"')
    done = tiny.snakemake("all")
    assert made(done) == {"figure": 1, "publish": 1, "results": 1}
    assert "train" not in jobs_of(done)


@SLOW
def test_without_results_of_the_scale_everything_comes_back_from_the_cache(tiny):
    ids = tiny.records()
    shutil.rmtree(tiny.out)
    done = tiny.snakemake("all")
    assert done.trained == 0
    assert tiny.records() == ids
    assert (tiny.path / "figures" / "fig2.pdf").exists()


@SLOW
def test_without_cache_and_data_one_lost_bundle_trains_its_own_runs_only(tiny):
    for name in ("cache", "data"):
        shutil.rmtree(tiny.path / "results" / name)
    (bundle,) = tiny.bundles("fig4a")
    bundle.unlink()
    assert tiny.snakemake("all").trained == 1


def test_a_damaged_bundle_is_one_line_that_says_what_to_delete(tiny):
    (bundle,) = tiny.bundles("fig4a")
    damage(bundle)
    (tiny.out / "fig4a" / "summary.csv").unlink()
    done = tiny.snakemake("results/tiny/fig4a/summary.csv", rc=1)
    (line,) = lines_of_users(done)
    assert f"delete {bundle.relative_to(tiny.path)} and call again" in line
    bundle.unlink()
    assert tiny.snakemake("all").trained == 0


@pytest.mark.parametrize("harm", [damage, flip_in_columns])
def test_a_damaged_cache_record_is_one_line_and_trained_again_only_where_it_is_needed(tiny, harm):
    hurt = tiny.summary("fig4a")[0]["run_id"]
    harm(tiny.path / "results" / "cache" / "runs" / f"{hurt}.parquet")
    assert nothing_to_do(tiny.snakemake("all"))  # the bundle has it
    (bundle,) = tiny.bundles("fig4a")
    bundle.unlink()
    done = tiny.snakemake("all")
    assert done.trained == 1
    (line,) = lines_of_users(done)
    assert hurt in line
    assert (tiny.path / "results" / "cache" / "runs" / f"{hurt}.parquet.corrupt").exists()


@SLOW
def test_two_killed_jobs_a_damaged_bundle_and_a_damaged_record_at_once(tiny):
    """Each fault is one line; what the bundle's line says is done, and the next call completes."""
    killed = [bundle_runs(bundle)[0] for bundle in tiny.bundles("fig2ab")]  # a run of each slice
    records = tiny.path / "results" / "cache" / "runs"
    for run_id, bundle in zip(killed, tiny.bundles("fig2ab"), strict=True):
        bundle.unlink()
        (records / f"{run_id}.parquet").unlink()
    call = subprocess.Popen(
        tiny.command("all", "--keep-going"), cwd=tiny.path, env=tiny.environment(), stderr=subprocess.DEVNULL
    )
    slices = set()
    while len(slices) < 2 and call.poll() is None:
        for pid, command in trainings(tiny.path):
            os.kill(pid, signal.SIGKILL)
            slices.add(command[command.index("--slice") + 1])
        time.sleep(0.02)
    assert call.wait(timeout=300) == 1
    assert slices == {"1/2", "2/2"}
    (hurt,) = tiny.bundles("fig4a")
    damage(hurt)
    lost = next(row["run_id"] for row in tiny.summary("fig2ab") if row["run_id"] not in killed)
    damage(records / f"{lost}.parquet")
    for name in ("fig4a", "fig2c"):
        (tiny.out / name / "summary.csv").unlink()

    done = tiny.snakemake("all", "--keep-going", rc=1)
    lines = lines_of_users(done)
    (of_bundle,) = {line for line in lines if hurt.name in line}
    (of_record,) = {line for line in lines if lost in line}
    assert set(lines) == {of_bundle, of_record}
    assert f"delete {hurt.relative_to(tiny.path)} and call again" in of_bundle
    assert done.trained == 3
    hurt.unlink()
    assert tiny.snakemake("all").trained == 0
    assert nothing_to_do(tiny.snakemake("all"))


def trainings(folder: Path) -> list[tuple[int, list[str]]]:
    """Process ids and commands of what trains figure 2's grid in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().split("\0")
            here = (process / "cwd").resolve() == folder
        except OSError:  # it has ended
            continue
        if here and command[1:4] == ["-m", "l2dyn", "train"] and "fig2ab" in command:
            found.append((int(process.name), command))
    return found
