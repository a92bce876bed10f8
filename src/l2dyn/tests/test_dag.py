"""What the Snakefile asks: a DAG that depends on the configuration and the shipped shelf only, and loads little."""

import json
import os
import re
import subprocess
import sys

import pytest
from l2dyn.runs.dag import Dag, set_environment
from l2dyn.runs.files import ROOT
from l2dyn.runs.store import write_manifest

from l2dyn.errors import UserError
from l2dyn.runs import plan as plan_module
from l2dyn.runs.records import write_records

TINY = {"scale": "tiny"}


def ship(workplace, *records):
    write_records(workplace / "paper_results" / "runs" / "bundle.parquet", records)
    write_manifest(workplace / "paper_results" / "runs")


def record_of(make_record, task, **options):
    return make_record(task.spec, **{"steps": task.steps, "at": [0, task.steps], **options})


def shape(dag):
    """Everything of the DAG but its resources."""
    experiments = list(dag.plan.experiments)
    return (
        {name: dag.markers(name) for name in experiments},
        {name: dag.summary_key(name) for name in experiments},
        {name: dag.theory_key(name) for name in ("modes", "kernel")},
        dag.targets(),
        dag.options,
        [dag.arrays_of_curve(name) for name in ("modes", "kernel")],
    )


def wildcards(marker):
    """A marker's wildcards, as Snakemake hands them to the resources."""
    match = re.search(r"/(?P<experiment>[^/]+)/slices/(?P<part>\d+)of(?P<parts>\d+)-(?P<key>[0-9a-f]+)\.done$", marker)
    return match.groupdict()


PROBE = """
import json, sys
from l2dyn.runs.dag import Dag, set_environment
heavy = ("torch", "pandas", "matplotlib", "seaborn", "torchvision", "snakemake", "sklearn")
seen = {}
for train in (True, False):
    dag = Dag({"scale": "tiny", "train": train}, main_process=True)
    set_environment(dag)
    for name in dag.plan.experiments:
        dag.summary_key(name)
        for marker in dag.markers(name):
            part = marker.rsplit("/", 1)[1]
            index, rest = part.split("of")
            count, key = rest.removesuffix(".done").split("-")
            dag.gpus(name, index, count, key), dag.runtime_minutes(name, index, count, key)
    dag.theory_key("kernel"), dag.style_key(), dag.targets(), dag.patterns()
    seen[str(train)] = [name for name in heavy if name in sys.modules]
print(json.dumps(seen))
"""


def test_the_snakefile_loads_little(workplace, make_record):
    dag = Dag(TINY)
    first, *_, last = dag.plan.tasks("first")
    ship(workplace, record_of(make_record, first))
    dag.store.save(record_of(make_record, last))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {"True": [], "False": []}


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"scael": "tiny"}, "scael"),
        (TINY | {"reuse": "maybe"}, "reuse"),
        (TINY | {"threads": 0}, "threads"),
        (TINY | {"device": "tpu"}, "device"),
        ({"scale": "nope"}, "tiny"),
        ({"scale": 5}, "scale"),
    ],
)
def test_a_bad_config_option_is_one_line(workplace, config, part):
    with pytest.raises(UserError) as caught:
        Dag(config)
    assert "\n" not in str(caught.value)
    assert part in str(caught.value)
    assert ("--config" in str(caught.value)) == (config != {"scale": "nope"})


def test_markers_of_the_owners(workplace):
    dag = Dag(TINY)
    own = {f"{dag.out}/first/slices/{s.name}.done" for s in dag.plan.slices("first")}
    assert set(dag.markers("first")) == own
    shared = {r.run_id for r in dag.plan.experiments["budget"]} & {r.run_id for r in dag.plan.experiments["first"]}
    needed = {
        f"{dag.out}/{name}/slices/{s.name}.done"
        for name in ("first", "budget")
        for s in dag.plan.slices(name)
        if name == "budget" or shared & {t.run_id for t in s.tasks}
    }
    assert set(dag.markers("budget")) == needed
    assert needed & own
    assert all(re.search(dag.patterns()["key"], wildcards(m)["key"]) for m in needed)


def test_slices_wholly_on_the_shipped_shelf_are_left_out(workplace, make_record):
    slices = {s.name: s for s in Dag(TINY).plan.slices("first")}
    assert len(slices) > 1
    name, whole = max(slices.items(), key=lambda item: len(item[1].tasks))
    assert len(whole.tasks) > 1
    ship(workplace, *(record_of(make_record, t) for t in whole.tasks[1:]))
    assert set(Dag(TINY)._slices["first"]) == set(slices)  # one of its runs is not there
    ship(workplace, *(record_of(make_record, t, numerics_version=0) for t in whole.tasks))
    assert set(Dag(TINY)._slices["first"]) == set(slices) - {name}
    assert not any(name in marker for marker in Dag(TINY).markers("first"))
    assert set(Dag(TINY | {"reuse": False})._slices["first"]) == set(slices)
    ship(workplace, *(record_of(make_record, t, steps=t.steps - 1) for t in whole.tasks))
    assert set(Dag(TINY)._slices["first"]) == set(slices)  # too short
    ship(workplace, *(record_of(make_record, t, steps=1, status="diverged") for t in whole.tasks))
    assert set(Dag(TINY)._slices["first"]) == set(slices) - {name}


def test_without_training_there_are_no_slices(workplace):
    dag = Dag(TINY | {"train": False})
    assert [dag.markers(name) for name in dag.plan.experiments] == [[], []]
    assert [dag.arrays_of_curve(name) for name in ("modes", "kernel")] == [[], []]
    assert Dag(TINY).arrays_of_curve("kernel") == [Dag(TINY).arrays_of_experiment("first")]


@pytest.mark.parametrize("train", [True, False])
def test_the_shape_does_not_depend_on_what_is_done(workplace, make_record, write_marker, train):
    config = TINY | {"train": train}
    before = shape(Dag(config))
    dag = Dag(config)
    for task in dag.plan.tasks("first"):
        dag.store.save(record_of(make_record, task))
    for marker in before[0]["first"]:
        write_marker(dag.results, marker.rsplit("/", 1)[1].removesuffix(".done"), [dag.plan.tasks("first")[0].run_id])
    after = shape(Dag(config))
    keys, rest = (before[1], after[1]), (before[:1] + before[2:], after[:1] + after[2:])
    assert rest[0] == rest[1]
    assert (keys[0] == keys[1]) is train  # with train=false nothing else says that records came


def test_the_summarys_key_without_training(workplace, make_record):
    """A hash of (id, steps, content) of the runs found on both shelves."""
    config = TINY | {"train": False}
    dag = Dag(config)
    task = dag.plan.tasks("first")[0]
    keys = [dag.summary_key("first")]
    for options in ({"seed": 0}, {"seed": 1}, {"seed": 1, "steps": task.steps + 1, "at": [0, task.steps]}):
        dag.store.save(record_of(make_record, task, **options))
        keys.append(Dag(config).summary_key("first"))
    dag.store.path(task.run_id).write_bytes(b"")
    keys.append(Dag(config).summary_key("first"))
    ship(workplace, record_of(make_record, dag.plan.tasks("first")[1]))
    keys.append(Dag(config).summary_key("first"))
    assert len(set(keys)) == len(keys)
    assert Dag(config).summary_key("first") == keys[-1]
    others = Dag(config).summary_key("budget")
    dag.store.save(record_of(make_record, dag.plan.tasks("first")[-1]))
    assert Dag(config).summary_key("budget") == others


def test_the_summarys_key_without_training_changes_with_the_numerics_version(workplace, make_record, monkeypatch):
    """A bump makes the record missing: a summary that still lists it would be out of date."""
    from l2dyn.runs import store as store_module

    config = TINY | {"train": False}
    dag = Dag(config)
    dag.store.save(record_of(make_record, dag.plan.tasks("first")[0]))
    before = dag.summary_key("first")
    for module in (plan_module, store_module):
        monkeypatch.setattr(module, "NUMERICS_VERSION", module.NUMERICS_VERSION + 1)
    assert Dag(config).store.load(dag.plan.tasks("first")[0].run_id) is None
    assert Dag(config).summary_key("first") != before


def test_the_summarys_key_with_training(workplace, make_record, write_scale, tiny):
    before = {name: Dag(TINY).summary_key(name) for name in ("first", "budget")}
    dag = Dag(TINY)
    dag.store.save(record_of(make_record, dag.plan.tasks("first")[0]))
    assert {name: Dag(TINY).summary_key(name) for name in before} == before
    tiny["experiments"]["budget"]["horizon"] = {"epochs": 60}
    write_scale(tiny)
    after = {name: Dag(TINY).summary_key(name) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["budget"]


def test_where_a_job_runs_changes_nothing(workplace, monkeypatch):
    before = shape(Dag(TINY))
    monkeypatch.setenv("L2DYN_DATA", "/elsewhere")
    monkeypatch.setenv("L2DYN_DEVICE", "cuda")
    assert shape(Dag(TINY | {"threads": 5})) == before


def test_only_the_main_process_removes_stale_markers(workplace, write_marker):
    stale = write_marker(workplace / "results", "1of3-aa", ["0" * 12])
    Dag(TINY)
    assert stale.exists()
    Dag(TINY, main_process=True)
    assert not stale.exists()


def test_markers_of_shipped_runs_are_stale_without_reuse(workplace, make_record, write_marker):
    task = Dag(TINY).plan.tasks("first")[0]
    ship(workplace, record_of(make_record, task))
    marker = write_marker(workplace / "results", "1of3-aa", [task.run_id])
    Dag(TINY, main_process=True)
    assert marker.exists()
    Dag(TINY | {"reuse": False}, main_process=True)
    assert not marker.exists()


@pytest.mark.parametrize("where", ["below a file", "/sys"])
def test_results_that_cannot_be_written(workplace, monkeypatch, where):
    (workplace / "file").write_text("x")
    results = workplace / "file" / "results" if where == "below a file" else "/sys/l2dyn-results"
    monkeypatch.setenv("L2DYN_RESULTS", str(results))
    with pytest.raises(UserError) as caught:
        Dag(TINY, main_process=True)
    line = str(caught.value)
    assert "\n" not in line
    assert str(results) in line
    assert "L2DYN_RESULTS" in line


def test_a_main_process_leaves_no_probe_behind(workplace):
    Dag(TINY, main_process=True)
    assert list((workplace / "results").iterdir()) == []


# --- resources ------------------------------------------------------------------------------------


def gpus(task, **config):
    """How many GPUs the job asks for that trains this run."""
    dag = Dag(TINY | {"device": "cuda"} | config)
    (marker,) = [
        f"{dag.out}/first/slices/{name}.done"
        for name, batch in dag._slices["first"].items()
        if task.run_id in {t.run_id for t in batch.tasks}
    ]
    return dag.gpus(**wildcards(marker))


@pytest.fixture
def lonely(workplace, write_scale, tiny):
    """A run that is the only one of the slices of `first`."""
    tiny["experiments"]["first"] |= {"lr": [0.5], "l2": [0.01], "slices": 1}
    write_scale(tiny)
    (task,) = Dag(TINY).plan.tasks("first")
    return task


def test_a_gpu_where_a_run_is_missing(workplace, make_record, lonely):
    assert gpus(lonely) == 1
    assert gpus(lonely, device="cpu") == 0
    Dag(TINY).store.save(record_of(make_record, lonely))
    assert gpus(lonely) == 0


def test_a_gpu_where_the_record_is_shorter_than_asked_for(workplace, make_record, lonely):
    """The job trains it, on the GPU that it was not given."""
    Dag(TINY).store.save(record_of(make_record, lonely, steps=lonely.steps - 1))
    assert not Dag(TINY).store.has(lonely.run_id, lonely.steps)
    assert gpus(lonely) == 1


def test_a_gpu_where_the_record_is_of_an_older_numerics_version(workplace, make_record, lonely):
    Dag(TINY).store.save(record_of(make_record, lonely, numerics_version=plan_module.NUMERICS_VERSION - 1))
    assert not Dag(TINY).store.has(lonely.run_id, lonely.steps)
    assert gpus(lonely) == 1


def test_a_gpu_where_the_shipped_record_is_shorter_than_asked_for(workplace, make_record, lonely):
    ship(workplace, record_of(make_record, lonely, steps=lonely.steps - 1))
    assert gpus(lonely) == 1


def test_resources_survive_a_damaged_record(workplace, lonely):
    """Whoever loads it says so; a parse does not fail."""
    path = Dag(TINY).store.path(lonely.run_id)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert gpus(lonely) in (0, 1)
    assert path.exists()


def test_runtime(workplace, make_record, lonely):
    dag = Dag(TINY)
    (marker,) = dag.markers("first")
    assert 5 <= dag.runtime_minutes(**wildcards(marker)) <= dag.config.runtime_minutes
    assert dag.runtime_minutes("first", "9", "9", "abc") == 5  # a slice of another configuration


# --- what jobs inherit ----------------------------------------------------------------------------


def test_set_environment(workplace, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"/a{os.pathsep}{ROOT / 'src'}")
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("L2DYN_DATA", "")  # so that monkeypatch restores them
    monkeypatch.setenv("L2DYN_DEVICE", "")
    dag = Dag(TINY | {"device": "cuda", "data_dir": "/data"})
    for _ in range(2):
        set_environment(dag)
        assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(ROOT / "src"), "/a"]
        assert os.environ["PATH"].split(os.pathsep) == [os.path.dirname(sys.executable), "/usr/bin"]
        assert (os.environ["L2DYN_DEVICE"], os.environ["L2DYN_DATA"]) == ("cuda", "/data")
    assert Dag(TINY).config.device == "cuda"
    assert Dag(TINY).config.data_dir == "/data"


def test_options_repeat_the_configuration(workplace):
    assert Dag(TINY).options == "--scale tiny"
    assert Dag(TINY | {"reuse": False}).options == "--scale tiny --no-reuse"
