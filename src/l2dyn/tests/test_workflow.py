"""What the Snakefile asks: a DAG that depends on configuration, shelf and code only, and loads little."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from l2dyn.errors import UserError
from l2dyn.files import ROOT
from l2dyn.runs import code_keys
from l2dyn.runs import plan as plan_module
from l2dyn.runs.code_keys import code_key
from l2dyn.runs.l2_selection import L2Selection, selection_path, write_l2_selection
from l2dyn.runs.records import write_records
from l2dyn.runs.shelf import write_manifest
from l2dyn.workflow import Workflow

TINY = {"scale": "tiny"}


class Made:
    """Snakemake's `checkpoints` where every checkpoint has run."""

    class select_l2:  # noqa: N801
        @staticmethod
        def get(experiment):
            return experiment


class NotMade(Exception):
    """What Snakemake raises for a checkpoint that has not run."""


class Pending:
    """Snakemake's `checkpoints` where none has run."""

    class select_l2:  # noqa: N801
        @staticmethod
        def get(experiment):
            raise NotMade(experiment)


def ship(workplace, *records):
    write_records(workplace / "paper_results" / "runs" / "bundle.parquet", records)
    write_manifest(workplace / "paper_results" / "runs")


def record_of(make_record, task, **options):
    return make_record(task.spec, **{"steps": task.steps, "at": [0, task.steps], **options})


def shape(flow):
    """Everything of the DAG but its resources."""
    names = list(flow.plan.experiments)
    return [
        {name: flow.bundles(name, Made) for name in names},
        {name: (flow.summary_key(name), flow.recorded_key(name)) for name in names},
        {name: (flow.theory_key(name), flow.arrays_of_curve(name)) for name in ("modes", "kernel")},
        {name: flow.figure_inputs(name, Made) for name in flow.config.figures},
        flow.targets(),
    ]


def wildcards(bundle):
    """A bundle's wildcards, as Snakemake hands them to the resources."""
    match = re.search(
        r"/(?P<experiment>[^/]+)/runs/(?P<slice>\d+)of(?P<slices>\d+)-(?P<key>[0-9a-f]+)\.parquet$", bundle
    )
    return match.groupdict()


PROBE = """
import json, sys
from l2dyn.workflow import Workflow
heavy = ("torch", "pandas", "matplotlib", "seaborn", "torchvision", "snakemake", "sklearn")
for train in (True, False):
    flow = Workflow({"scale": "tiny", "train": train})
    for name in flow.plan.experiments:
        flow.summary_key(name), flow.recorded_key(name), flow.bundles(name)
        for slice_ in flow.plan.slices(name):
            which = (name, slice_.index, slice_.count, slice_.key)
            flow.gpus(*which), flow.runtime_minutes(*which)
    flow.theory_key("kernel"), flow.targets(), flow.patterns(), flow.environment(), flow.results_key()
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


def test_the_snakefile_loads_little_and_changes_nothing(workplace, make_record):
    flow = Workflow(TINY)
    first, *_, last = flow.plan.tasks("first")
    ship(workplace, record_of(make_record, first))
    flow.cache.save(record_of(make_record, last))
    before = sorted(workplace.rglob("*"))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run([sys.executable, "-B", "-c", PROBE], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"scael": "tiny"}, "scael"),
        (TINY | {"reuse": "maybe"}, "reuse"),
        (TINY | {"threads": 0}, "threads"),
        ({"scale": "nope"}, "tiny"),
        ({"scale": 5}, "scale"),
    ],
)
def test_a_bad_config_option_is_one_line(workplace, config, part):
    with pytest.raises(UserError, match=part) as caught:
        Workflow(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["file/results", "with {braces}"])
def test_results_that_cannot_be_used_are_one_line(workplace, monkeypatch, where):
    (workplace / "file").write_text("x")
    monkeypatch.setenv("L2DYN_RESULTS", where)
    with pytest.raises(UserError, match="L2DYN_RESULTS"):
        Workflow(TINY)


def test_bundles_are_those_of_the_owners(workplace):
    flow = Workflow(TINY)
    own = {f"{flow.out}/first/runs/{slice_.name}.parquet" for slice_ in flow.plan.slices("first")}
    assert set(flow.bundles("first")) == own
    ids = {name: {point.run_id for point in flow.plan.experiments[name]} for name in ("first", "budget")}
    needed = {
        f"{flow.out}/{name}/runs/{slice_.name}.parquet"
        for name in ("first", "budget")
        for slice_ in flow.plan.slices(name)
        if name == "budget" or ids["first"] & ids["budget"] & {task.run_id for task in slice_.tasks}
    }
    assert set(flow.bundles("budget")) == needed
    assert needed & own
    assert all(re.fullmatch(flow.patterns()["key"], wildcards(path)["key"]) for path in needed)


def test_what_the_shelf_serves_whole_is_recorded_and_not_trained(workplace, make_record):
    slices = {slice_.name: slice_ for slice_ in Workflow(TINY).plan.slices("first")}
    name, whole = max(slices.items(), key=lambda item: len(item[1].tasks))
    assert len(whole.tasks) > 1

    def trained(**config):
        flow = Workflow(TINY | config)
        bundles = flow.bundles("first")
        assert (f"{flow.out}/first/runs/recorded.parquet" in bundles) == bool(flow.shelf.headers)
        return {Path(path).stem for path in bundles} - {"recorded"}

    assert trained() == set(slices)
    ship(workplace, *(record_of(make_record, task) for task in whole.tasks[1:]))
    assert trained() == set(slices)  # one of its runs is not there
    ship(workplace, *(record_of(make_record, task, numerics_version=0) for task in whole.tasks))
    assert trained() == set(slices) - {name}
    assert trained(reuse=False) == set(slices)
    ship(workplace, *(record_of(make_record, task, steps=task.steps - 1) for task in whole.tasks))
    assert trained() == set(slices)  # too short
    ship(workplace, *(record_of(make_record, task, steps=1, status="diverged") for task in whole.tasks))
    assert trained() == set(slices) - {name}


def test_a_figure_without_its_notebook_stops_only_those_who_ask_for_it(write_scale, tiny, caplog, monkeypatch):
    """Whoever writes the notebook wants to see the experiments first."""
    monkeypatch.setattr(logging.getLogger("l2dyn"), "propagate", True)
    Workflow(TINY)
    assert caplog.messages == []
    tiny["figures"]["figNew"] = {"experiments": ["first"]}
    write_scale(tiny)
    flow = Workflow(TINY)
    notebook = str(ROOT / "figures" / "figNew.py")
    (line,) = [message for message in caplog.messages if "figNew" in message]
    assert [part for part in ("config/tiny.yaml", "figures.figNew", notebook) if part not in line] == []
    inputs = {name: flow.figure_inputs(name, Made)["notebook"] for name in flow.config.figures}
    assert inputs == {"fig2": [], "fig5": [], "figNew": [notebook]}
    assert flow.bundles("first")
    assert f"{flow.out}/first/summary.csv" in flow.targets()


def test_a_wildcard_without_values_matches_nothing(write_scale, tiny):
    write_scale(tiny | {"figures": {}, "experiments": {}, "theory": {}})
    flow = Workflow(TINY)
    patterns = flow.patterns() | {"selected": flow.selected_pattern()}
    for name in ("figure", "experiment", "selected"):
        assert not any(re.fullmatch(patterns[name], text) for text in ("", "one/summary", "fig2"))
    assert re.fullmatch(patterns["curve"], "modes")


def test_without_training_there_are_recorded_runs_only(workplace):
    flow = Workflow(TINY | {"train": False})
    assert [flow.bundles(name) for name in ("first", "budget")] == [
        [f"{flow.out}/{name}/runs/recorded.parquet"] for name in ("first", "budget")
    ]
    assert [flow.arrays_of_curve(name) for name in ("modes", "kernel")] == [[], []]
    assert Workflow(TINY).arrays_of_curve("kernel") == Workflow(TINY).arrays_of_experiment("first")


@pytest.mark.parametrize("train", [True, False])
def test_what_is_done_changes_nothing_but_the_recorded_runs_of_a_scale_that_does_not_train(
    workplace, make_record, train
):
    config = TINY | {"train": train}
    before = shape(Workflow(config))
    flow = Workflow(config)
    flow.cache.save(record_of(make_record, flow.plan.tasks("first")[0]))
    (workplace / "results" / "tiny" / "first").mkdir(parents=True)
    after = shape(Workflow(config))
    assert after[0] == before[0]
    assert after[2:] == before[2:]
    changed = [name for name in before[1] if before[1][name] != after[1][name]]
    assert ("first" in changed) is not train


def test_where_a_job_runs_changes_nothing(workplace, monkeypatch):
    before = shape(Workflow(TINY))
    monkeypatch.setenv("L2DYN_DATA", "/elsewhere")
    monkeypatch.setenv("L2DYN_DEVICE", "cuda")
    assert shape(Workflow(TINY | {"threads": 5})) == before


def test_a_summarys_key_changes_with_its_runs(workplace, write_scale, tiny):
    before = {name: Workflow(TINY).summary_key(name) for name in ("first", "budget")}
    tiny["experiments"]["budget"]["horizon"] = {"epochs": 60}
    write_scale(tiny)
    after = {name: Workflow(TINY).summary_key(name) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["budget"]
    tiny["experiments"]["budget"]["evaluation"] = {"every_epochs": 3}
    write_scale(tiny)
    assert Workflow(TINY).summary_key("budget") != after["budget"]


def test_a_summarys_key_changes_with_its_units(workplace, write_scale, tiny):
    """Though the runs are the same ones: the authors' l2 is a twentieth of PyTorch's, their lr ten times as large."""
    tiny["experiments"]["first"] |= {"lr": [0.2], "l2": [0.01], "horizon": {"epochs": 50}}
    write_scale(tiny)
    before = Workflow(TINY)
    tiny["experiments"]["first"] |= {"units": "authors", "lr": [2.0], "l2": [0.0005]}
    write_scale(tiny)
    after = Workflow(TINY)
    assert after.plan.key("first") == before.plan.key("first")
    assert after.summary_key("first") != before.summary_key("first")


def test_a_shipped_curves_key_changes_with_the_curve(workplace, tmp_path, monkeypatch):
    monkeypatch.setattr("l2dyn.workflow.shipped_folder", lambda: tmp_path)
    path = tmp_path / "theory" / "tiny" / "kernel.csv"
    path.parent.mkdir(parents=True)
    path.write_text("t,loss\n1,2\n")
    before = [Workflow(TINY | {"train": train}).theory_key("kernel") for train in (False, True)]
    path.write_text("t,loss\n1,3\n")
    after = [Workflow(TINY | {"train": train}).theory_key("kernel") for train in (False, True)]
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_a_curves_key_changes_with_every_experiment_that_its_table_may_read(workplace, write_scale, tiny):
    """The kernel's table has columns for runs of other widths, too; the modes' has none."""
    keys = []
    for width in (8, 16):
        net = tiny["experiments"]["first"]["net"] | {"width": width}
        tiny["experiments"]["wider"] = tiny["experiments"]["first"] | {"net": net}
        write_scale(tiny)
        flow = Workflow(TINY)
        keys.append((flow.theory_key("kernel"), flow.theory_key("modes")))
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] == keys[1][1]


def test_the_results_pages_key_changes_with_what_is_said_of_the_scale(workplace, write_scale, tiny):
    before = Workflow(TINY).results_key()
    for said in (tiny | {"about": "another"}, tiny | {"experiments": tiny["experiments"]}):
        said["experiments"]["first"]["shows"] = said["about"]
        write_scale(said)
        assert Workflow(TINY).results_key() != before
        before = Workflow(TINY).results_key()


# --- l2 selections ---------------------------------------------------------------------------------


@pytest.fixture
def selecting(workplace, write_scale, tiny):
    """Two experiments whose λ are tuned on `budget`, shown in a figure."""
    for name in ("tuned", "again"):
        tiny["experiments"][name] = tiny["experiments"]["budget"] | {"l2": {"tuned_from": "budget"}, "slices": 1}
    tiny["figures"]["fig1"] = {"experiments": ["budget", "tuned", "again"]}
    write_scale(tiny)


def select(experiment, l2):
    write_l2_selection(selection_path("tiny", experiment), L2Selection({(0.1, 50.0): l2}))


def test_a_selection_that_is_not_made_is_waited_for(selecting):
    flow = Workflow(TINY)
    assert f"{flow.out}/tuned/l2.json" in flow.targets()
    assert flow.source_bundles("tuned", Pending) == flow.bundles("budget")
    for ask in (flow.bundles, flow.selection, flow.earlier_bundles):
        with pytest.raises(NotMade):
            ask("tuned", Pending)
    with pytest.raises(NotMade):
        flow.late_targets(Pending)
    assert flow.selection("budget", Pending) == []


def test_the_jobs_of_a_selection_wait_for_bundles_that_may_hold_its_runs(selecting):
    flow = Workflow(TINY)
    listed = {name: flow.bundles(name) for name in ("first", "budget")}
    select("tuned", 0.02)
    select("again", 0.02)
    assert flow.bundles("tuned", Made) == [p for p in flow.late_targets(Made) if "/tuned/" in p]
    assert {name: flow.bundles(name) for name in listed} == listed
    waits = {name: set(flow.earlier_bundles(name, Made)) for name in ("tuned", "again")}
    assert waits["tuned"] < waits["again"]
    assert set(flow.bundles("tuned", Made)) <= waits["again"]
    ids = {point.run_id for point in flow.plan.experiments["tuned"]}
    assert len(ids) == 2  # seeds; λ = 0.02 is listed, by `first` with seed 0 and by `budget` with both
    assert {path.split("/")[-3] for path in waits["tuned"]} == {"first", "budget"}
    select("tuned", 0.7)
    assert Workflow(TINY).earlier_bundles("tuned", Made) == []


def test_a_selections_key_changes_with_what_is_asked_for(selecting, write_scale, tiny):
    before = Workflow(TINY).selection_key("tuned")
    select("tuned", 0.02)
    assert Workflow(TINY).selection_key("tuned") == before
    for name in ("tuned", "again"):
        tiny["experiments"][name]["horizon"] = {"epochs": 40}
    write_scale(tiny)
    assert Workflow(TINY).selection_key("tuned") != before


# --- code counts -----------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in the place of this one."""
    files = {
        "measures/peaks.py": "TOLERANCE = 1\n",
        "tables/summary.py": "def rows():\n    from l2dyn.measures import peaks\n    from l2dyn.runs import records\n",
        "tables/other.py": "import os\n",
        "runs/plan.py": "from l2dyn.tables import other\n",
        "runs/records.py": "from l2dyn.specs import data_sets\n",
        "specs/data_sets.py": "CHANCE = 0.1\n",
    }
    for name, text in files.items():
        path = tmp_path / "src" / "l2dyn" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").write_text("")
        path.write_text(text)
    monkeypatch.setattr(code_keys, "ROOT", tmp_path)
    code_keys._imported.cache_clear()
    yield tmp_path / "src" / "l2dyn"
    code_keys._imported.cache_clear()


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ("measures/peaks.py", True),
        ("tables/summary.py", True),
        ("runs/records.py", True),
        ("tables/other.py", False),
        ("specs/data_sets.py", True),
        ("runs/plan.py", False),
    ],
)
def test_a_key_changes_with_the_analysis_code_behind_it_and_no_other(package, changed, counts):
    before = code_key("l2dyn.tables.summary")
    (package / changed).write_text((package / changed).read_text() + "# changed\n")
    code_keys._imported.cache_clear()
    assert (code_key("l2dyn.tables.summary") != before) is counts


def test_the_rules_keys_hold_the_code_that_they_should():
    """Of the real package: the censoring rule is behind summaries, selections and figures, the theory behind curves."""

    def behind(*roots):
        waiting, seen = [code_keys._source(r) if isinstance(r, str) else r for r in roots], set()
        while waiting:
            path = waiting.pop()
            if path not in seen:
                seen.add(path)
                waiting += code_keys._imported(path)
        return {f"{path.parent.name}/{path.name}" for path in seen}

    assert {"measures/peaks.py", "tables/csv_files.py"} <= behind("l2dyn.tables.summary")
    assert {"measures/coefficient.py", "measures/best_l2.py"} <= behind("l2dyn.tables.l2_selection")
    assert {"theory/modes.py", "data/samples.py"} <= behind("l2dyn.tables.theory_curves")
    assert {"theory/evolution.py", "nets/ntk.py"} <= behind("l2dyn.tables.theory_beside_runs")
    figure = behind(ROOT / "figures" / "fig2.py")
    assert {"plotting/style.py", "plotting/time_scales.py", "measures/power_laws.py"} <= figure
    assert not any(name.startswith("training/") for name in figure | behind("l2dyn.tables.summary"))


# --- resources -------------------------------------------------------------------------------------


@pytest.fixture
def lonely(workplace, write_scale, tiny):
    """A run that is the only one of the slices of `first`."""
    tiny["experiments"]["first"] |= {"lr": [0.5], "l2": [0.01], "slices": 1}
    write_scale(tiny)
    (task,) = Workflow(TINY).plan.tasks("first")
    return task


def gpus(**config):
    """How many GPUs the only job of `first` asks for."""
    flow = Workflow(TINY | {"device": "cuda"} | config)
    return flow.gpus(**wildcards(next(path for path in flow.bundles("first") if "recorded" not in path)))


def test_a_gpu_where_a_run_is_missing(workplace, make_record, lonely):
    assert gpus() == 1
    assert gpus(device="cpu") == 0
    cache = Workflow(TINY).cache
    for options in ({"steps": lonely.steps - 1}, {"numerics_version": plan_module.NUMERICS_VERSION - 1, "seed": 1}):
        cache.path(lonely.run_id).unlink(missing_ok=True)
        cache.save(record_of(make_record, lonely, **options))
        assert gpus() == 1
    ship(workplace, record_of(make_record, lonely, steps=lonely.steps - 1))
    assert gpus() == 1
    cache.path(lonely.run_id).unlink()
    cache.save(record_of(make_record, lonely))
    assert gpus() == 0
    cache.path(lonely.run_id).write_bytes(b"")  # whoever loads it says so; a parse does not fail
    assert gpus() == 1
    assert cache.path(lonely.run_id).exists()


def test_runtime(lonely):
    flow = Workflow(TINY)
    (bundle,) = flow.bundles("first")
    assert 5 <= flow.runtime_minutes(**wildcards(bundle)) <= flow.config.runtime_minutes
    assert flow.runtime_minutes("first", "9", "9", "abc") == 5  # a slice of another configuration


def test_what_jobs_inherit(workplace, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"/a{os.pathsep}{ROOT / 'src'}")
    found = Workflow(TINY | {"device": "cuda", "data_dir": "/data", "reuse": False}).environment()
    assert found["PYTHONPATH"].split(os.pathsep) == [str(ROOT / "src"), "/a"]
    assert (found["L2DYN_PYTHON"], found["L2DYN_ROOT"]) == (sys.executable, str(ROOT))
    assert (found["L2DYN_OPTIONS"], found["L2DYN_DEVICE"]) == ("--scale tiny --no-reuse", "cuda")
    assert found["L2DYN_DATA"] == "/data"
    assert "L2DYN_DEVICE" not in Workflow(TINY).environment()
