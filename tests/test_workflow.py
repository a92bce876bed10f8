"""The DAG from end to end: what runs, what does not run again, and what comes back after a loss."""

import csv
import json
import re
import subprocess

import pytest
from checkout import jobs_of

RERUN = ("train", "summarize", "theory", "figure", "publish")
FIGURES = 9  # five, and four of the supplement


def test_the_smoke_scale_gives_every_figure_and_its_numbers(finished):
    drawn_in = {"fig1": "abc", "fig2": "abcdef", "fig3": "abcdef", "fig4": "ab", "fig5": "abc"}
    for name, panels in drawn_in.items():
        assert (finished.path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (finished.path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        table = list(csv.DictReader((finished.path / "results" / "smoke" / f"{name}.csv").open()))
        drawn = {row["panel"] for row in table}
        assert set(panels) - {"a"} <= drawn <= set(panels)  # so short a run may have no t* to draw
        listed = {run for row in table for run in row["run_ids"].split()}  # a number made of others has no run
        assert listed <= set(finished.records())
        assert listed
    rows = list(csv.DictReader((finished.path / "results" / "smoke" / "fig2ab" / "summary.csv").open()))
    assert len(rows) == 6
    assert all(row["status"] in ("finished", "diverged") for row in rows)
    assert list((finished.path / "results" / "smoke" / "logs").glob("train-*.log"))
    assert list((finished.path / "results" / "smoke" / "benchmarks").glob("train-*.tsv"))


def test_the_supplement_is_drawn_too(finished):
    drawn_in = {"figS-constant": "abc", "figS-kernel": "ab", "figS-linear": "abc", "figS-spectrum": "ab"}
    for name, panels in drawn_in.items():
        assert (finished.path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        table = list(csv.DictReader((finished.path / "results" / "smoke" / f"{name}.csv").open()))
        assert {row["panel"] for row in table} == set(panels)
    (record, *_) = summary(finished, "figS-kernel-medium")
    assert record["status"] == "finished"


def test_fonts_are_embedded_as_truetype(finished):
    content = (finished.path / "figures" / "fig2.pdf").read_bytes()
    assert b"/Type3" not in content
    assert b"/FontFile2" in content


def test_a_second_call_does_nothing(smoke):
    before = smoke.records()
    done = smoke.snakemake("all")
    assert "Nothing to be done" in done.stdout + done.stderr
    assert smoke.records() == before


def test_runs_that_two_experiments_share_are_trained_once(finished):
    listed = [path.parent.name for path in (finished.path / "results" / "smoke").glob("*/summary.csv")]
    assert {"fig2ab", "fig2c", "fig2de", "fig3-plain", "fig5c"} <= set(listed)
    assert set(finished.records()) == {row["run_id"] for name in listed for row in summary(finished, name)}
    assert {r["run_id"] for r in summary(finished, "fig2c")} <= {r["run_id"] for r in summary(finished, "fig2ab")}


def test_each_scale_keeps_its_own_figure(smoke):
    """Smoke, quick (with stub horizons), smoke again: figures/ shows the configured one each time."""
    first = (smoke.path / "figures" / "fig2.png").read_bytes()

    def stub(values):
        for experiment in values["experiments"].values():
            experiment["horizon"] = {"epochs": 1 if "batch" in experiment else 12}
            experiment["lr"], experiment["seeds"] = experiment["lr"][:1], [0]
            if isinstance(experiment["l2"], list):
                experiment["l2"] = experiment["l2"][:3]

    smoke.edit_config("quick", stub)
    smoke.snakemake("figures/fig2.pdf", "--config", "scale=quick")
    second = (smoke.path / "figures" / "fig2.png").read_bytes()
    assert second == (smoke.path / "results" / "quick" / "fig2.png").read_bytes() != first
    done = smoke.snakemake("figures/fig2.pdf")
    assert (smoke.path / "figures" / "fig2.png").read_bytes() == first
    assert set(jobs_of(done)) <= {"publish"}
    smoke.snakemake("figures/fig2.pdf", "--config", "scale=quick")
    assert (smoke.path / "figures" / "fig2.png").read_bytes() == second


def test_one_more_l2_trains_only_the_new_runs(smoke):
    before = smoke.records()
    smoke.edit_config("smoke", lambda v: v["experiments"]["fig2ab"]["l2"].append(0.05))
    smoke.snakemake("all")
    after = smoke.records()
    assert {run: after[run] for run in before} == before
    new = set(after) - set(before)
    rows = [row for row in summary(smoke, "fig2ab") if row["run_id"] in new]
    assert sorted((float(r["lr"]), float(r["l2"])) for r in rows) == [(0.15, 0.05), (0.5, 0.05)]


def test_a_deleted_record_is_trained_again_by_the_next_call(smoke):
    before = smoke.records()
    lost = summary(smoke, "fig2c")[1]["run_id"]
    (smoke.path / "results" / "runs" / f"{lost}.parquet").unlink()
    smoke.snakemake("all")
    after = smoke.records()
    assert [run for run in before if after[run] != before[run]] == [lost]
    assert "Nothing to be done" in smoke.snakemake("all").stderr


def test_a_damaged_record_is_found_named_and_trained_by_the_call_after(smoke):
    before = smoke.records()
    hurt = summary(smoke, "fig5c")[0]["run_id"]
    path = smoke.path / "results" / "runs" / f"{hurt}.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    found = smoke.l2dyn("status", "--scale", "smoke", rc=1)
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("l2dyn: ")]
    assert hurt in line
    assert path.with_name(path.name + ".corrupt").exists()
    smoke.snakemake("all")
    after = smoke.records()
    assert [run for run in before if after[run] != before[run]] == [hurt]
    assert smoke.l2dyn("status", "--scale", "smoke").returncode == 0


def test_a_damaged_record_stops_the_job_that_loads_it_in_one_line(smoke):
    hurt = summary(smoke, "fig5c")[0]["run_id"]
    path = smoke.path / "results" / "runs" / f"{hurt}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    (smoke.path / "results" / "smoke" / "fig5c" / "summary.csv").unlink()
    done = smoke.snakemake("all", rc=1)
    assert sum(f"damaged record of run {hurt}" in line for line in done.stderr.splitlines()) == 1
    smoke.snakemake("all")
    assert hurt in smoke.records()


def test_a_restyled_figure_is_redrawn_and_nothing_trained(smoke):
    before = smoke.records()
    script = smoke.path / "figures" / "fig5.py"
    script.write_text(script.read_text().replace('"training loss"', '"loss on the training set"'))
    done = smoke.snakemake("all")
    assert {k: v for k, v in jobs_of(done).items() if k in RERUN} == {"figure": 1, "publish": 1}
    style = smoke.path / "src" / "l2dyn" / "plotting" / "style.py"
    style.write_text(style.read_text().replace("TEXT_WIDTH = 5.5", "TEXT_WIDTH = 5.0"))
    done = smoke.snakemake("all")
    assert {k: v for k, v in jobs_of(done).items() if k in RERUN} == {"figure": FIGURES, "publish": FIGURES}
    assert smoke.records() == before


def test_a_changed_numerics_version_trains_anew(smoke):
    before = smoke.records()
    spec = smoke.path / "src" / "l2dyn" / "runs" / "spec.py"
    text = spec.read_text()
    changed = re.sub(r"^NUMERICS_VERSION = \d+ ", "NUMERICS_VERSION = 999 ", text, flags=re.MULTILINE)
    assert changed != text
    spec.write_text(changed)
    smoke.snakemake("all")
    after = smoke.records()
    assert after.keys() == before.keys()
    assert all(after[run] != before[run] for run in before)


def test_train_false_draws_what_is_there(smoke):
    missing = summary(smoke, "fig2ab")[4]["run_id"]
    (smoke.path / "results" / "runs" / f"{missing}.parquet").unlink()
    recorded = smoke.path / "paper_results" / "theory" / "smoke"
    recorded.mkdir(parents=True)
    for curve in ("constant.csv", "kernel.csv", "spectrum.csv"):  # those that need data
        (smoke.path / "results" / "smoke" / "theory" / curve).rename(recorded / curve)
    done = smoke.snakemake("all", "--config", "scale=smoke", "train=false")
    assert "train" not in jobs_of(done)
    status = {row["run_id"]: row["status"] for row in summary(smoke, "fig2ab")}
    assert status[missing] == "missing"
    assert "missing" not in [s for run, s in status.items() if run != missing]
    again = smoke.snakemake("all", "--config", "scale=smoke", "train=false")
    assert "Nothing to be done" in again.stdout + again.stderr
    # a record that appears is seen, although no marker says so
    smoke.l2dyn("train", "--scale", "smoke", "--experiment", "fig2ab")
    smoke.snakemake("all", "--config", "scale=smoke", "train=false")
    assert {row["status"] for row in summary(smoke, "fig2ab")} <= {"finished", "diverged"}


def test_the_gpu_scale_draws_from_nothing_and_downloads_nothing(fresh):
    done = fresh.snakemake("all", "--config", "scale=gpu")
    assert not {"train", "data"} & set(jobs_of(done))
    assert (fresh.path / "figures" / "fig5.pdf").exists()
    assert {row["status"] for row in summary(fresh, "fig2ab", "gpu")} <= {"missing", "finished", "diverged", "short"}


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_the_large_scales_dry_run(fresh, scale):
    done = fresh.snakemake("all", "-n", "--config", f"scale={scale}", "train=true")
    jobs = jobs_of(done)
    assert jobs["train"] > 1
    assert jobs["figure"] == FIGURES


def test_shipped_runs_are_not_trained_and_reuse_false_ignores_them(smoke):
    for name in ("fig2ab", "fig2de"):
        smoke.l2dyn("ship", "--scale", "smoke", "--experiment", name)
    subprocess.run("rm -r results figures/*.p??", shell=True, cwd=smoke.path, check=True)
    jobs = jobs_of(smoke.snakemake("all", "-n"))
    waiting = {"fig1a-fixed", "fig1a-scaled", "fig4a", "fig1b-tuned", "fig1c-auto", "fig3-plain", "fig3-norm", "fig5c"}
    waiting |= {"fig5c-narrow", "figS-kernel-medium", "figS-kernel-wide", "figS-constant", "figS-constant-narrow"}
    assert jobs["train"] == len(waiting)  # and those whose λ are measured, once they are known
    smoke.snakemake("figures/fig2.pdf")
    assert smoke.records() == {}
    assert {row["shelf"] for row in summary(smoke, "fig2ab")} == {"shipped"}
    ignoring = jobs_of(smoke.snakemake("all", "-n", "--config", "scale=smoke", "reuse=false"))
    assert ignoring["train"] > len(waiting)
    shelf = smoke.path / "paper_results" / "runs" / "smoke-fig2ab.parquet"
    content = bytearray(shelf.read_bytes())
    content[len(content) // 2] ^= 1
    shelf.write_bytes(content)
    found = smoke.l2dyn("status", "--scale", "smoke", rc=1)
    assert "git checkout -- " in found.stderr
    assert shelf.exists()


def test_export_and_import_carry_runs_between_machines(smoke, fresh):
    bundle = smoke.path / "carried.parquet"
    smoke.l2dyn("export", "--scale", "smoke", str(bundle))
    count = len(smoke.records())
    assert f"{count} runs brought" in fresh.l2dyn("import", str(bundle)).stdout
    assert "0 runs brought" in fresh.l2dyn("import", str(bundle)).stdout
    written = fresh.records()
    assert written.keys() == smoke.records().keys()
    assert "trained" not in jobs_of(fresh.snakemake("all"))
    assert fresh.records() == written
    assert summary(fresh, "fig2ab") == summary(smoke, "fig2ab")
    damaged = bytearray(bundle.read_bytes())
    damaged[len(damaged) // 2] ^= 8
    bundle.write_bytes(damaged)
    refused = fresh.l2dyn("import", str(bundle), rc=1)
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_job_that_is_killed_loses_no_finished_run(fresh):
    """A slice whose second half cannot be stored: what was finished before is found by the next call."""
    fresh.l2dyn("train", "--scale", "smoke", "--experiment", "fig2ab", "--slice", "1/2")
    before = fresh.records()
    assert before
    fresh.snakemake("all")
    after = fresh.records()
    assert {run: after[run] for run in before} == before


def test_markers_are_json_that_lists_the_runs(finished):
    listed = set()
    for path in (finished.path / "results" / "smoke").glob("*/slices/*.done"):
        listed |= set(json.loads(path.read_text())["runs"])
    assert listed == set(finished.records())


def test_l2_is_predicted_from_what_was_measured_and_trained(finished):
    """λ = c/T to two digits, c of figure 4a's own runs; every one of them trained, at its own budget."""
    derived = json.loads((finished.path / "results" / "smoke" / "fig1b-predicted" / "l2.json").read_text())
    (coefficient,) = derived["evidence"]["coefficients"]
    assert set(coefficient["run_ids"]) == {row["run_id"] for row in summary(finished, "fig4a")}
    wanted = {row["epochs"]: float(f"{coefficient['c_argmax'] / row['epochs']:.1e}") for row in derived["l2"]}
    rows = summary(finished, "fig1b-predicted")
    assert {float(row["horizon_epochs"]): float(row["l2"]) for row in rows} == wanted
    assert {row["status"] for row in rows} <= {"finished", "diverged"}
    (scheduled,) = summary(finished, "fig1a-predicted")
    assert float(scheduled["l2"]) == float(f"{coefficient['c_argmax'] / (0.3 * 16):.1e}")  # T1 = 0.3·T
    best = max((r for r in summary(finished, "fig1b-tuned") if r["horizon_epochs"] == "32.0"), key=accuracy)
    tuned = summary(finished, "fig1c-tuned")
    assert {float(row["l2"]) for row in tuned} == {float(best["l2"])}
    assert best["run_id"] in [row["run_id"] for row in tuned]  # the same seed is the same run


def accuracy(row):
    return float(row["max_test_accuracy"])


def test_another_measurement_trains_the_new_predictions_only(smoke):
    before = smoke.records()
    path = smoke.path / "results" / "smoke" / "fig1b-predicted" / "l2.json"
    first = json.loads(path.read_text())["l2"]
    smoke.edit_config("smoke", lambda v: v["experiments"]["fig4a"].update(seeds=[0, 1, 2, 3]))
    smoke.snakemake("all")
    second = json.loads(path.read_text())
    assert second["evidence"]["coefficients"][0]["run_ids"] != first
    assert second["l2"] != first
    after = smoke.records()
    assert {run: after[run] for run in before} == before
    rows = [row for name in ("fig4a", "fig1b-predicted", "fig1a-predicted") for row in summary(smoke, name)]
    assert set(after) - set(before) <= {row["run_id"] for row in rows}
    assert {row["status"] for row in rows} <= {"finished", "diverged"}
    assert "Nothing to be done" in smoke.snakemake("all").stderr


def test_lost_predictions_come_back(smoke):
    """The λ themselves, or the record of a run at one of them."""
    before = smoke.records()
    path = smoke.path / "results" / "smoke" / "fig1b-predicted" / "l2.json"
    content = path.read_text()
    path.unlink()
    smoke.snakemake("all")
    assert path.read_text() == content
    assert smoke.records() == before
    lost = summary(smoke, "fig1b-predicted")[0]["run_id"]
    (smoke.path / "results" / "runs" / f"{lost}.parquet").unlink()
    smoke.snakemake("all")
    after = smoke.records()
    assert [run for run in before if after[run] != before[run]] == [lost]


def test_a_prediction_that_is_pending_is_shown_and_never_guessed(fresh):
    listed = fresh.l2dyn("plan", "--scale", "smoke").stdout
    assert "fig1b-predicted *" in listed
    assert "fig1b-predicted: pending, its l2 is measured on fig4a" in listed
    refused = fresh.l2dyn("train", "--scale", "smoke", "--experiment", "fig1b-predicted", rc=2)
    (line,) = refused.stderr.strip().splitlines()
    assert "l2dyn predict --scale smoke --experiment fig1b-predicted" in line
    fresh.snakemake("figures/fig4.pdf", "--config", "scale=smoke", "train=false")
    (row,) = summary(fresh, "fig1b-predicted")
    assert (row["status"], row["l2"], row["run_id"]) == ("missing", "", "")


def test_predictions_by_hand_without_snakemake(fresh):
    """As on a machine that has none: train, predict, train."""
    fresh.l2dyn("train", "--scale", "smoke", "--experiment", "fig4a")
    fresh.l2dyn("predict", "--scale", "smoke", "--experiment", "fig1b-predicted")
    fresh.l2dyn("train", "--scale", "smoke", "--experiment", "fig1b-predicted")
    fresh.l2dyn("summarize", "--scale", "smoke", "--experiment", "fig1b-predicted")
    assert [row["status"] for row in summary(fresh, "fig1b-predicted")] == ["finished"] * 3
    shown = fresh.l2dyn("predict", "--scale", "smoke", "--experiment", "fig4a", "--budget", "8").stdout
    derived = json.loads((fresh.path / "results" / "smoke" / "fig1b-predicted" / "l2.json").read_text())
    assert f"{derived['l2'][0]['l2']:g}" in shown.splitlines()[-1].split()


def test_the_report_holds_every_figure(smoke):
    smoke.snakemake("all", "--report=report.html")
    text = (smoke.path / "report.html").read_text()
    for name in ("fig1", "fig2", "fig3", "fig4", "fig5"):
        assert name in text


def summary(checkout, experiment, scale="smoke"):
    return list(csv.DictReader((checkout.path / "results" / scale / experiment / "summary.csv").open()))
