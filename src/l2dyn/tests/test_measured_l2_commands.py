"""The commands around measured λ, by hand and under the workflow: predict, and what the others say of its outcome."""

import dataclasses
import logging
import re
import shutil

import numpy as np
import pytest

from l2dyn.claims.evidence import Evidence
from l2dyn.cli.main import main
from l2dyn.config.loading import load_scale
from l2dyn.files import ROOT
from l2dyn.runs.cache import Cache
from l2dyn.runs.l2_selection import L2Selection, read_l2_selection, selection_path, write_l2_selection
from l2dyn.runs.plan import planned
from l2dyn.runs.records import write_records
from l2dyn.runs.shelf import write_manifest
from l2dyn.specs.run import NUMERICS_VERSION
from l2dyn.training import checkpoint

SETUP = {
    "shows": "x",
    "net": {"kind": "fc", "hidden_layers": 1, "width": 4},
    "data": {"name": "digits", "train_samples": 64, "test_samples": 100},
    "lr": [0.1],
    "evaluation": {"every_epochs": 1},
}
GRID = SETUP | {"l2": [0.01, 0.02, 0.04], "seeds": [0, 1], "horizon": {"epochs": 50}, "slices": 3}
EXPERIMENTS = {
    "source": SETUP | {"l2": [0.01], "horizon": {"epochs": 100}},
    "guess": SETUP | {"l2": {"predicted_from": "source"}, "horizon": {"budgets": [10, 40]}},
    "grid": GRID,
    "several": SETUP | {"lr": [0.2], "l2": [0.08, 0.02, 0], "horizon": {"epochs": 100}},
    "open": SETUP | {"lr": [0.3], "l2": [0.08, 0.02], "horizon": {"epochs": 100}},
    "changing": SETUP | {"l2": [0.01], "horizon": {"epochs": 100}, "auto_l2": {}},
    "scheduled": SETUP | {"l2": [0.01], "horizon": {"epochs": 100}, "lr_schedule": {"at": [0.5]}},
}
OF_SEVERAL = {"predicted_from": "several", "at": 0.02, "reading": "within"}
FOUND = {(0.1, 10.0): 0.04, (0.1, 40.0): 0.01}


@pytest.fixture
def records(write_scale, make_record):
    """records(name, peak): of an experiment's runs, each measured after every step."""
    write_scale({"about": "x", "device": "cpu", "figures": {}, "experiments": EXPERIMENTS})

    def make(name, peak):
        tasks = planned("tiny", load_scale("tiny")).tasks(name)
        curves = [np.maximum(0.9 - 0.01 * np.abs(np.arange(task.steps + 1) - peak), 0.0) for task in tasks]
        return [make_record(t.spec, t.steps, test_accuracy=curve) for t, curve in zip(tasks, curves, strict=True)]

    return make


@pytest.fixture
def finished(records):
    """finished(name, peak): the experiment's runs are in the cache."""

    def save(name, peak):
        for record in records(name, peak):
            Cache().save(record)

    return save


@pytest.fixture
def l2dyn(records, capsys):
    """l2dyn(*arguments) runs a command at scale tiny: exit code, standard output, lines of standard error."""
    log = logging.getLogger("l2dyn")  # the command line sets it up; leave it as it was
    before = (list(log.handlers), log.level, log.propagate)

    def run(command, *arguments):
        capsys.readouterr()
        code = main([command, "--scale", "tiny", *map(str, arguments)])
        seen = capsys.readouterr()
        return code, seen.out, seen.err.splitlines()

    yield run
    for handler in log.handlers:
        if handler not in before[0]:
            handler.close()
    log.handlers[:], log.level, log.propagate = before


def test_predict_by_hand(l2dyn, finished):
    """From what is finished; it may be called again."""
    finished("source", peak=40)
    for _ in range(2):
        code, out, err = l2dyn("predict", "--experiment", "guess")
        path = selection_path("tiny", "guess")
        assert code == 0
        assert str(path) in "".join(err)
        assert [line.split() for line in out.splitlines()[1:]] == [
            ["0.1", "10", "0.04", "1", "250"],  # a step an epoch, and 1/(0.1·0.04) of them
            ["0.1", "40", "0.01", "1", "1e+03"],
        ]
        assert read_l2_selection(path).values == FOUND
    code, _, err = l2dyn("summarize", "--experiment", "guess")
    assert (code, "1 finished, 1 missing" in err[-1]) == (0, True)  # λ = 0.01 is the source's own run


def test_predict_under_the_workflow(l2dyn, records, tmp_path):
    """From the bundles that it is handed, to the file that it is told; the table goes into the log."""
    bundle, log, path = tmp_path / "1of1-0.parquet", tmp_path / "logs" / "predict.log", tmp_path / "there" / "l2.json"
    write_records(bundle, records("source", peak=40))
    options = ["--bundles", bundle, "--output", path, "--log", log]
    assert l2dyn("predict", "--experiment", "guess", *options) == (0, "", [])
    assert read_l2_selection(path).values == FOUND
    assert not selection_path("tiny", "guess").exists()
    assert "0.04" in log.read_text()


@pytest.mark.parametrize("logged", [False, True])
def test_what_cannot_be_measured_is_said_wherever_it_matters(l2dyn, tmp_path, logged):
    """The workflow goes on; there is nothing to train, and one missing row."""
    log = ["--log", tmp_path / "log"] if logged else []
    code, _, err = l2dyn("predict", "--experiment", "guess", *log)
    reason = "1 of 1 runs of source are missing"
    assert code == 0
    assert len([line for line in err if "guess" in line and reason in line]) == 1
    assert read_l2_selection(selection_path("tiny", "guess")) == L2Selection({}, reason, {})
    for command in ("plan", "status"):
        code, out, _ = l2dyn(command)
        assert code == 0
        assert out.count(f"guess: its l2 could not be measured: {reason}") == 1
        assert "pending" not in out
    code, _, err = l2dyn("train", "--experiment", "guess", *log)
    assert code == 0
    assert any(reason in line and "l2dyn predict" in line for line in err)
    code, _, err = l2dyn("summarize", "--experiment", "guess")
    assert (code, "1 missing" in err[-1]) == (0, True)


@pytest.mark.parametrize("half_known", [False, True])
def test_training_what_is_pending(l2dyn, half_known):
    """Also where some of its λ are known: no exit with "done" for the others."""
    if half_known:
        write_l2_selection(selection_path("tiny", "guess"), L2Selection({(0.1, 10.0): 0.04}))
    code, out, (line,) = l2dyn("train", "--experiment", "guess")
    assert (code, out) == (2, "")
    assert "l2dyn predict --scale tiny --experiment guess" in line
    assert "source" in line


BAD = [
    ("--experiment guess --budget 5", "--budget: guess"),
    ("--experiment guess --first-decay 0", "--first-decay: guess"),
    ("--experiment guess --l2 0.01", "--l2: guess"),
    ("--experiment source --l2 0.02", "--l2 0.02: source lists 0.01"),
    ("--experiment several --l2 0", "--l2 0: several lists 0.08, 0.02"),
    ("--experiment open --budget 5", "--l2: choose the l2 of open to predict from (0.08, 0.02)"),
    ("--experiment several", "--experiment several: 2 of its runs"),  # that at λ = 0 has no c
    ("--experiment source --first-decay 5", "--first-decay: needs the --budget"),
    ("--experiment source --output x.json", "--output: source"),
    ("--experiment nobody", "--experiment nobody"),
    ("--experiment grid", "--experiment grid: 5 of its runs"),  # all but the one that the source lists, too
    ("--experiment changing", "--experiment changing: it has auto_l2"),
    ("--experiment scheduled", "--experiment scheduled: it has lr_schedule"),
    ("--experiment source --budget 0", "--budget, --first-decay: budget must be positive"),
    ("--experiment source --budget nan", "--budget, --first-decay: budget must be positive"),
    ("--experiment source --budget 5 --first-decay 6", "first_decay must not exceed"),
    ("--experiment source --budget 5 --first-decay 0", "first_decay must be positive"),
]


@pytest.mark.parametrize(("arguments", "part"), BAD, ids=[arguments for arguments, _ in BAD])
def test_bad_predictions(l2dyn, finished, workplace, arguments, part):
    finished("source", peak=40)
    code, out, (line,) = l2dyn("predict", *arguments.split())
    assert (code, out) == (2, "")
    assert part in line
    assert not (workplace / "x.json").exists()
    assert not selection_path("tiny", "guess").exists()


def test_c_of_a_listed_experiment(l2dyn, finished):
    """c of either reading with its resolution, the dimensionless C, and λ of every budget that is asked for."""
    finished("source", peak=30)
    code, out, err = l2dyn("predict", "--experiment", "source", "--budget", "7", "--budget", "300")
    assert (code, err) == (0, [])
    head, row, _, of, _, *budgets = out.splitlines()
    assert "c_0.5pp" in head
    assert of == "predicted from c_argmax at l2 0.01:"
    # c = 0.01·30 both ways, half a point before the peak being less than one evaluation; C = 0.1·1·c
    assert row.split() == ["0.1", "0.01", "1", "0.3", "(0.29–0.31)", "0.3", "(0.29–0.31)", "0.03"]
    assert [line.split() for line in budgets] == [
        ["0.1", "7", "0.043", "1", "233"],
        ["0.1", "300", "0.001", "1", "1e+04"],
    ]
    code, out, _ = l2dyn("predict", "--experiment", "source", "--budget", "7", "--first-decay", "3")
    assert (code, out.split()[-3:]) == (0, ["0.1", "1", "100"])
    assert not selection_path("tiny", "source").exists()


@pytest.fixture
def of_several(records, write_scale):
    """The scale has an experiment that is predicted from one λ of "several"."""
    experiment = SETUP | {"lr": [0.2], "l2": OF_SEVERAL, "horizon": {"budgets": [10]}}
    experiments = EXPERIMENTS | {"of-several": experiment}
    write_scale({"about": "x", "device": "cpu", "figures": {}, "experiments": experiments})


@pytest.fixture
def several(records, of_several):
    """The runs of "several" are in the cache; accuracy at λ = 0.02 comes within half a point one step earlier."""
    made = {record.spec.l2: record for record in records("several", peak=20)}
    for l2, peak in ((0.08, 40), (0.02, 20)):
        curve = np.maximum(0.9 - 0.004 * np.abs(np.arange(101) - peak), 0.0)
        columns = made[l2].columns | {"test_accuracy": curve}
        Cache().save(dataclasses.replace(made[l2], columns=columns))


def test_c_of_an_experiment_at_several_l2(l2dyn, several):
    """A row for each: c may depend on λ, so they are not pooled."""
    code, out, _ = l2dyn("predict", "--experiment", "several")
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["0.2", "0.08", "1", "3.2"],
        ["0.2", "0.02", "1", "0.4"],
    ]
    code, out, _ = l2dyn("predict", "--experiment", "several", "--l2", "0.08")
    assert (code, [line.split()[1] for line in out.splitlines()[1:]]) == (0, ["0.08"])


def test_budgets_are_predicted_from_the_l2_and_reading_of_the_scale(l2dyn, several):
    """As the workflow's own rule does; --l2 chooses another λ."""
    assert l2dyn("predict", "--experiment", "of-several")[0] == 0
    of_scale = read_l2_selection(selection_path("tiny", "of-several")).values[0.2, 10.0]
    assert of_scale == 0.02 * 19 / 10
    _, out, _ = l2dyn("predict", "--experiment", "several", "--budget", "10")
    assert "predicted from c_0.5pp at l2 0.02:" in out
    assert out.splitlines()[-1].split()[:3] == ["0.2", "10", f"{of_scale:g}"]
    _, out, _ = l2dyn("predict", "--experiment", "several", "--budget", "10", "--l2", "0.08")
    assert out.splitlines()[-1].split()[:3] == ["0.2", "10", f"{0.08 * 39 / 10:.2g}"]


def test_a_choice_of_l2_is_enough_where_the_scale_names_none(l2dyn, finished):
    finished("open", peak=40)
    code, out, _ = l2dyn("predict", "--experiment", "open", "--budget", "10", "--l2", "0.02")
    assert (code, out.splitlines()[-1].split()[:3]) == (0, ["0.3", "10", "0.08"])


def test_a_l2_without_a_peak_has_a_row_that_says_so(l2dyn, records, of_several):
    """Nothing is predicted from it."""
    slow, early = sorted(records("several", peak=20), key=lambda record: record.spec.l2)[1:]
    rising = slow.columns | {"test_accuracy": np.linspace(0.2, 0.9, 101)}
    for record in (dataclasses.replace(slow, columns=rising), early):
        Cache().save(record)
    code, out, _ = l2dyn("predict", "--experiment", "several")
    assert code == 0
    assert out.splitlines()[2].split() == ["0.2", "0.02", "0", "no", "uncensored", "peak"]
    code, out, (line,) = l2dyn("predict", "--experiment", "several", "--budget", "10")
    assert (code, out) == (2, "")
    assert "no run at lr 0.2, l2 0.02 has an uncensored peak" in line


def test_c_of_a_listed_experiment_without_a_peak(l2dyn, finished):
    finished("source", peak=100)
    code, out, (line,) = l2dyn("predict", "--experiment", "source")
    assert (code, out) == (2, "")
    assert "source" in line


def test_a_damaged_bundle_stops_a_prediction(l2dyn, tmp_path):
    bundle = tmp_path / "1of1-0.parquet"
    bundle.write_bytes(b"PAR1")
    code, _, (line,) = l2dyn("predict", "--experiment", "guess", "--bundles", bundle)
    assert code == 1
    assert f"delete {bundle}" in line
    assert not selection_path("tiny", "guess").exists()


def cells(out, name) -> list[str]:
    """The numbers that a table has of an experiment."""
    (line,) = [line for line in out.splitlines() if line.split()[:1] == [name] and re.search(r" \d", line)]
    return line.removeprefix(name).split()


def test_status_counts_what_training_would_go_on_with(l2dyn, records, monkeypatch):
    """A checkpoint whose runs are the plan's, at their horizons, of this numerics version; another is no damage."""
    grid = [(task.run_id, task.steps) for task in planned("tiny", load_scale("tiny")).tasks("grid")]

    def write(name, *runs, version=NUMERICS_VERSION):
        monkeypatch.setattr(checkpoint, "NUMERICS_VERSION", version)
        checkpoint.write_checkpoint(Cache().checkpoints / name, *map(list, zip(*runs, strict=True)), {"step": 1})

    write("two.ckpt", *grid[:2])
    write("with another's.ckpt", grid[2], ("0123456789ab", 50))
    write("longer.ckpt", (grid[3][0], 60))
    write("older.ckpt", grid[4], version=NUMERICS_VERSION - 1)
    (Cache().checkpoints / "damaged.ckpt").write_bytes(b"?")
    (Cache().checkpoints / "unreadable.ckpt").mkdir()
    code, out, lines = l2dyn("status")
    assert code == 0
    assert cells(out, "grid")[4:] == ["2", "4"]  # checkpointed, missing
    assert [re.sub(r".*/", "", line) for line in sorted(lines)] == [
        "damaged.ckpt: damaged checkpoint; training sets it aside",
        "unreadable.ckpt: cannot be read now (Is a directory); it is kept, call again",
    ]
    assert len(list(Cache().checkpoints.iterdir())) == 6


def test_plan_and_status_of_what_is_pending(l2dyn, finished):
    """Runs count once, whatever the number of their budgets."""
    finished("source", peak=30)

    code, out, _ = l2dyn("plan")
    assert code == 0
    assert cells(out, "guess")[:6] == ["*", "2", "2", "0", "40", "50"]  # runs, own, capped, longest run, steps
    assert cells(out, "grid")[:3] == ["6", "5", "0"]  # the source and the grid share a run
    assert re.search(r"^\* guess: pending.* source", out, re.MULTILINE)
    code, out, _ = l2dyn("status")
    assert code == 0
    assert re.search(r"^guess: pending.* source", out, re.MULTILINE)
    assert cells(out, "grid") == ["6", "1", "0", "0", "0", "5"]  # runs, done, shipped, diverged, checkpointed, missing
    write_l2_selection(selection_path("tiny", "guess"), L2Selection(FOUND))
    for command in ("plan", "status"):
        code, out, _ = l2dyn(command)
        assert (code, "pending" in out) == (0, False)
    assert cells(out, "guess")[:2] == ["2", "1"]


def test_claims_by_hand_are_judged_on_whatever_is_finished(l2dyn, records, finished, workplace, monkeypatch):
    """In the cache, on the shelf, in a bundle of one's own: as summarize has it. The rule hands over its bundles."""
    shelf, seen, read = workplace / "paper_results" / "runs", [], Evidence.read
    monkeypatch.setattr(Evidence, "read", lambda *given: seen.append(given[-1]) or read(*given))
    shutil.copy(ROOT / "paper_results" / "claims.yaml", shelf.parent)
    finished("source", peak=40)
    write_records(shelf / "tiny.parquet", records("grid", peak=20))
    write_manifest(shelf)
    bundle = selection_path("tiny", "changing").parent / "runs" / "1of1-0123456789.parquet"
    write_records(bundle, records("changing", peak=30))
    assert l2dyn("claims")[0] == l2dyn("claims", "--inputs", bundle, "summary.csv")[0] == 0
    everything = {record.run_id: record for name in ("source", "grid", "changing") for record in records(name, peak=1)}
    assert set(seen[0]) == set(everything)
    assert all(record.run_id == run_id for run_id, record in seen[0].items())
    assert set(seen[1]) == {record.run_id for record in records("changing", peak=1)}


# --- files that cannot be opened ------------------------------------------------------------------------


def test_a_selection_that_is_a_folder_is_named(l2dyn, finished):
    path = selection_path("tiny", "guess")
    path.mkdir(parents=True)
    assert l2dyn("status") == (2, "", [f"l2dyn: {path}: Is a directory"])


def test_a_log_that_cannot_be_written_is_named(l2dyn, workplace):
    """There is a file where its folder should be."""
    (workplace / "file").write_text("")
    code, out, err = l2dyn("status", "--log", workplace / "file" / "x.log")
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith(f"l2dyn: {workplace / 'file'}: ")


def test_an_error_without_a_file_is_not_hidden(l2dyn, monkeypatch):
    """A fault of ours keeps its traceback."""

    def broken(arguments):
        raise OSError("no file to blame")

    monkeypatch.setattr("l2dyn.cli.planning._made", broken)
    with pytest.raises(OSError, match="no file to blame"):
        l2dyn("made")
