"""The DAG from end to end: what runs, and what does not run again."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest
from checkout import Checkout, damage, jobs_of, lines_of_users, made, needs, nothing_to_do

SLOW = pytest.mark.slow  # the whole of what the others show in part


def test_everything_is_a_declared_output(finished_tiny):
    """Below results/<scale> lie outputs, logs and benchmarks; beside it the data and the cache, nothing else."""
    top = {path.name for path in (finished_tiny.path / "results").iterdir()}
    assert top == {"cache", "data", "tiny"}
    names = {str(path.relative_to(finished_tiny.out)) for path in finished_tiny.out.rglob("*") if path.is_file()}
    expected = r"(fig\w+\.(pdf|png|csv)|results\.md|claims\.(csv|html|md)|claim_parts\.csv|theory/\w+\.csv"
    expected += r"|logs/[\w-]+\.log|benchmarks/[\w-]+\.tsv"
    expected += r"|[\w-]+/(summary\.(csv|html)|l2\.json|runs/\d+of\d+-[0-9a-f]{10}\.parquet))"
    assert [name for name in names if not re.fullmatch(expected, name)] == []


def test_a_second_call_does_nothing(tiny):
    before = tiny.tree()
    assert nothing_to_do(tiny.snakemake("all"))
    assert tiny.tree() == before


@pytest.mark.parametrize("scale", ["smoke", "quick", "desktop", "gpu", "paper"])
def test_parsing_changes_nothing_on_disk(fresh, scale):
    before = fresh.tree()
    fresh.snakemake("all", "-n", "--config", f"scale={scale}")
    assert fresh.tree() == before


@pytest.mark.parametrize("scale", ["desktop", "gpu", "paper"])
def test_the_large_scales_dry_run(fresh, scale):
    """The shelf left aside, which may hold every run of a scale."""
    jobs = jobs_of(fresh.snakemake("all", "-n", "--config", f"scale={scale}", "train=true", "reuse=false"))
    assert jobs["train"] > 1
    assert jobs["figure"] == jobs["publish"] > 5


def test_runs_that_several_experiments_list_are_trained_once(finished_tiny):
    ids = {name: {row["run_id"] for row in finished_tiny.summary(name)} for name in ("fig2ab", "fig2c", "fig1b-tuned")}
    assert len(ids["fig2ab"] & ids["fig2c"]) == 3
    tuned = {row["run_id"] for row in finished_tiny.summary("fig1c-tuned")}
    assert len(tuned) == 2
    assert len(tuned & ids["fig1b-tuned"]) == 1  # the grid's seed
    assert len(tuned & {row["run_id"] for row in finished_tiny.summary("fig1c-seeds")}) == 1  # two selections, one λ
    logs = finished_tiny.train_logs(since=0)
    trained = [run for log in logs for run in re.findall(r" run ([0-9a-f]{12}) finished", log.read_text())]
    assert len(trained) == len(set(trained)) == len(finished_tiny.records())


# --- changes ---------------------------------------------------------------------------------------


def test_one_more_l2_trains_only_the_new_runs(tiny):
    before = tiny.records()
    tiny.edit_config(lambda v: v["experiments"]["fig2ab"]["l2"].append(0.05))
    done = tiny.snakemake("all")
    new = tiny.records() - before
    rows = [row for row in tiny.summary("fig2ab") if row["run_id"] in new]
    assert sorted((float(r["lr"]), float(r["l2"])) for r in rows) == [(0.15, 0.05), (0.5, 0.05)]
    assert done.trained == 2


@pytest.mark.parametrize(
    ("name", "old", "new", "redone"),
    [
        ("src/l2dyn/measures/peaks.py", "TOLERANCE = 0.005", "TOLERANCE = 0.05", {"summarize", "select_l2", "figure"}),
        pytest.param("src/l2dyn/measures/power_laws.py", "float = 0.90", "float = 0.80", {"figure"}, marks=SLOW),
        pytest.param("src/l2dyn/plotting/style.py", "TEXT_WIDTH = 5.5", "TEXT_WIDTH = 5.0", {"figure"}, marks=SLOW),
        ("src/l2dyn/theory/modes.py", '"""', '"""  ', {"theory"}),
        ("src/l2dyn/tables/markdown.py", "SHOWN = 4", "SHOWN = 3", {"claims", "results"}),
        pytest.param("src/l2dyn/claims/laws.py", '"""', '"""  ', {"claims"}, marks=SLOW),
    ],
)
def test_a_changed_analysis_module_redoes_what_rests_on_it_and_trains_nothing(tiny, name, old, new, redone):
    tiny.edit(name, old, new)
    done = tiny.snakemake("all")
    assert redone <= set(made(done))
    assert "figure" in redone or "theory" in redone or "figure" not in made(done)
    # a wider tolerance may predict another λ: its runs are new ones, and no other is trained
    listed = {row["run_id"] for row in tiny.summary("fig1b-predicted")}
    assert done.trained == 0 or (name.endswith("peaks.py") and done.trained <= len(listed))
    assert nothing_to_do(tiny.snakemake("all"))


@SLOW
def test_a_changed_numerics_version_trains_anew(tiny):
    text = (tiny.path / "src/l2dyn/specs/run.py").read_text()
    version = int(re.search(r"^NUMERICS_VERSION = (\d+)", text, re.MULTILINE)[1])
    tiny.edit("src/l2dyn/specs/run.py", f"NUMERICS_VERSION = {version} ", f"NUMERICS_VERSION = {version + 1} ")
    assert tiny.snakemake("all").trained == len(tiny.records())


def test_another_measurement_trains_the_new_predictions_only(tiny):
    before, path = tiny.records(), tiny.out / "fig1b-predicted" / "l2.json"
    first = json.loads(path.read_text())["l2"]
    tiny.edit_config(lambda v: v["experiments"]["fig4a"].update(l2=[1.4]))
    done = tiny.snakemake("all")
    assert json.loads(path.read_text())["l2"] != first
    new = tiny.records() - before
    assert done.trained == len(new)
    assert new <= {row["run_id"] for name in ("fig4a", "fig1b-predicted") for row in tiny.summary(name)}
    assert nothing_to_do(tiny.snakemake("all"))


@SLOW
def test_each_scale_keeps_its_own_figure(tiny):
    """Tiny, another scale, tiny again: figures/ shows the configured one each time, and only `publish` runs."""
    first = (tiny.path / "figures" / "fig2.png").read_bytes()
    shutil.copy(tiny.path / "config" / "tiny.yaml", tiny.path / "config" / "other.yaml")
    tiny.edit_config(lambda v: v["experiments"]["fig2c"].update(horizon={"epochs": 50}), scale="other")
    for _ in range(2):
        done = tiny.snakemake("figures/fig2.pdf", "--config", "scale=other")
        assert done.trained == 0  # shorter horizons are prefixes
        second = (tiny.path / "figures" / "fig2.png").read_bytes()
        assert second == (tiny.path / "results" / "other" / "fig2.png").read_bytes() != first
        assert set(jobs_of(tiny.snakemake("figures/fig2.pdf"))) <= {"publish"}
        assert (tiny.path / "figures" / "fig2.png").read_bytes() == first


# --- Snakemake's own ways --------------------------------------------------------------------------


@SLOW
def test_a_copy_without_file_times_trains_nothing(tiny, tmp_path):
    """`cp -r`, not `cp -a`: tables and figures may be made anew, no run is."""
    subprocess.run(["cp", "-r", str(tiny.path), str(tmp_path / "copied")], check=True)
    copied = Checkout(tmp_path / "copied", tiny.scale, dict(tiny.env))
    assert "train" not in jobs_of(copied.run(*copied.command("all", "--dry-run")))


def test_a_read_only_checkout_is_used_from_another_folder(pristine, tmp_path):
    """On a file system mounted read-only, in the checkout one line says what to do, and what it says works."""
    needs(os.geteuid() == 0, "mounting needs root")
    checkout, work = pristine.copy_to(tmp_path / "readonly"), tmp_path / "work"
    work.mkdir()
    subprocess.run(["mount", "--bind", str(checkout.path), str(checkout.path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(checkout.path)], check=True)

        def call(cwd, *arguments):
            command = [sys.executable, "-B", "-m", "snakemake", "--cores", "2", *arguments, "--config", "scale=tiny"]
            return subprocess.run(command, cwd=cwd, env=checkout.environment(), capture_output=True, text=True)

        here = call(checkout.path, "figures/fig2.pdf")
        assert here.returncode != 0
        told = [line for line in here.stderr.splitlines() if "cannot be written; call from a folder that can" in line]
        assert len(told) == 1
        assert "Traceback" not in here.stderr
        there = call(work, "results/tiny/theory/modes.csv", "--snakefile", str(checkout.path / "Snakefile"))
        assert there.returncode == 0, there.stderr
        assert (work / "results" / "tiny" / "theory" / "modes.csv").exists()
    finally:
        subprocess.run(["umount", str(checkout.path)], check=True)


def test_touch_and_rerun_triggers_and_report(tiny):
    tiny.snakemake("all", "--touch")
    assert nothing_to_do(tiny.snakemake("all"))
    tiny.edit("src/l2dyn/measures/peaks.py", "TOLERANCE = 0.005", "TOLERANCE = 0.006")
    assert nothing_to_do(tiny.snakemake("all", "--rerun-triggers", "mtime"))
    tiny.snakemake("all", "--rerun-triggers", "mtime", "--report=report.html")
    assert "fig4" in (tiny.path / "report.html").read_text()


@SLOW
def test_delete_all_output_deletes_what_is_declared_and_the_cache_brings_it_back(tiny):
    ids = tiny.records()
    tiny.snakemake("all", "--delete-all-output")
    assert tiny.bundles() == []
    assert not (tiny.path / "figures" / "fig2.pdf").exists()
    assert tiny.snakemake("all").trained == 0
    assert tiny.records() == ids


def test_a_failing_forced_rerun_keeps_the_bundles(tiny):
    before = {path: path.read_bytes() for path in tiny.bundles()}
    tiny.edit(
        "src/l2dyn/cli/training.py",
        "    slice_ = plan.slice(",
        '    raise UserError("no luck")\n    slice_ = plan.slice(',
    )
    done = tiny.snakemake("all", "--forcerun", "train", "--keep-going", rc=1)
    assert "l2dyn: no luck" in lines_of_users(done)
    assert {path: path.read_bytes() for path in tiny.bundles()} == before


def test_a_forced_selection_trains_nothing(tiny):
    before = tiny.records()
    done = tiny.snakemake("all", "--forcerun", "select_l2")
    assert jobs_of(done)["select_l2"] == 3
    assert done.trained == 0
    assert tiny.records() == before
    assert nothing_to_do(tiny.snakemake("all"))


@SLOW
def test_keep_going_finishes_what_it_can(fresh):
    fresh.edit_config(
        lambda v: v["experiments"]["fig4a"].update(data=v["experiments"]["fig4a"]["data"] | {"name": "mnist"})
    )
    fresh.edit_config(lambda v: v["experiments"]["fig1b-predicted"].update(l2=[0.1]))
    done = fresh.snakemake("all", "--keep-going", rc=1, L2DYN_DATA=str(fresh.path / "nowhere"))
    (line,) = [line for line in lines_of_users(done) if "mnist" in line.lower()]
    assert "nowhere" in line
    assert (fresh.path / "figures" / "fig2.pdf").exists()


# --- the shelf, and other folders --------------------------------------------------------------------


def test_train_false_draws_what_is_there_and_sees_what_comes(tiny):
    missing = tiny.summary("fig2ab")[4]["run_id"]
    for bundle in tiny.bundles("fig2ab"):
        bundle.unlink()
    (tiny.path / "results" / "cache" / "runs" / f"{missing}.parquet").unlink()
    off = ("all", "--config", "scale=tiny", "train=false")
    done = tiny.snakemake(*off)
    assert not {"train", "data"} & set(jobs_of(done))
    status = {row["run_id"]: row["status"] for row in tiny.summary("fig2ab")}
    assert {run for run, said in status.items() if said == "missing"} == {missing}
    assert nothing_to_do(tiny.snakemake(*off))
    tiny.l2dyn("train", "--scale", "tiny", "--experiment", "fig2ab")
    tiny.snakemake(*off)
    assert "missing" not in {row["status"] for row in tiny.summary("fig2ab")}
    shutil.rmtree(tiny.path / "results" / "cache")
    tiny.snakemake(*off)
    assert {row["status"] for row in tiny.summary("fig1c-tuned")} == {"finished"}  # bundles are looked at, too


@SLOW
def test_the_gpu_scale_draws_from_nothing_and_downloads_nothing(fresh):
    done = fresh.snakemake("figures/fig2.pdf", "figures/fig5.pdf", "--config", "scale=gpu")
    assert not {"train", "data"} & set(jobs_of(done))
    assert (fresh.path / "figures" / "fig5.pdf").exists()
    rows = fresh.path / "results" / "gpu" / "fig2ab" / "summary.csv"
    assert "finished" in rows.read_text() or "missing" in rows.read_text()


def test_shipped_runs_are_recorded_and_not_trained_and_reuse_false_ignores_them(tiny):
    for name in ("fig2ab", "fig2c"):
        tiny.l2dyn("ship", "--scale", "tiny", "--experiment", name)
    shutil.rmtree(tiny.path / "results")
    done = tiny.snakemake("figures/fig2.pdf")
    assert "train" not in jobs_of(done)
    assert jobs_of(done)["recorded"] == 2
    assert {row["source"] for row in tiny.summary("fig2ab")} == {"recorded"}
    assert jobs_of(tiny.snakemake("figures/fig2.pdf", "-n", "--config", "scale=tiny", "reuse=false"))["train"] > 1
    shelf = tiny.path / "paper_results" / "runs" / "tiny-fig2ab.parquet"
    shelf.touch()
    assert nothing_to_do(tiny.snakemake("figures/fig2.pdf"))
    damage(shelf)
    found = tiny.l2dyn("status", "--scale", "tiny", rc=1)
    assert "git checkout -- " in found.stderr
    assert shelf.exists()


def test_a_prediction_that_is_pending_is_shown_and_never_guessed(fresh):
    listed = fresh.l2dyn("plan", "--scale", "tiny").stdout
    assert "fig1b-predicted *" in listed
    assert "fig1b-predicted: pending, its l2 is measured on fig4a" in listed
    refused = fresh.l2dyn("train", "--scale", "tiny", "--experiment", "fig1b-predicted", rc=2)
    (line,) = lines_of_users(refused)
    assert "l2dyn predict --scale tiny --experiment fig1b-predicted" in line
    fresh.snakemake("figures/fig4.pdf", "--config", "scale=tiny", "train=false")
    (row,) = fresh.summary("fig1b-predicted")
    assert (row["status"], row["l2"], row["run_id"]) == ("missing", "", "")


@pytest.mark.parametrize("name", [pytest.param("ü & $HOME;", marks=SLOW), pytest.param("[a]", marks=SLOW)])
def test_a_folder_of_any_name(pristine, tmp_path, name):
    checkout = pristine.copy_to(tmp_path / name)
    checkout.scale = "tiny"
    checkout.snakemake("figures/fig4.pdf")
    assert (checkout.path / "figures" / "fig4.pdf").exists()


def test_make_in_a_folder_of_an_odd_name_with_its_environment_there(pristine, tmp_path):
    """`make figures`, its interpreter below that folder too. Its packages are those of this environment."""
    checkout = pristine.copy_to(tmp_path / "my project (1)" / "it's {new}")
    venv.create(checkout.path / ".venv", symlinks=True)
    (packages,) = (checkout.path / ".venv").glob("lib/python*/site-packages")
    (packages / "these.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (checkout.path / ".venv" / "installed").touch()
    checkout.run("make", "figures", "SCALE=tiny", "CORES=2")
    for name in ("fig2", "fig4"):
        assert (checkout.path / "figures" / f"{name}.pdf").exists()
