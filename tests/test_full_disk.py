"""A disk that is full at any write: one line, whatever was stored stays readable, and a later call completes."""

import json
import shutil
import subprocess
import sys

import pytest
from checkout import needs

pytestmark = pytest.mark.slow

# Runs each command in a child, so that torch is loaded once. Checkpoints are written at every look at the clock.
DRIVER = """
import json, os, runpy, sys
sys.dont_write_bytecode = True
import l2dyn.training.job, l2dyn.plotting.notebook
from l2dyn.cli.main import main
from l2dyn.training.checkpoint import CheckpointTimer
CheckpointTimer.due = lambda self: True
for line in sys.stdin:
    argv, heard = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(heard, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(2, 1)
        if argv[0].endswith(".py"):
            sys.argv = argv
            sys.path.insert(0, "figures")
            code = 0
            try:
                runpy.run_path(argv[0], run_name="__main__")
            except SystemExit as leaving:
                code = leaving.code
            except BaseException as error:
                sys.excepthook(type(error), error, error.__traceback__)
                code = 1
        else:
            code = main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

FIG2 = ("fig2.pdf", "fig2.png", "fig2.csv")
# command: (what it is called with, {R} being the results folder; what it writes there)
COMMANDS = {
    "train": (
        "train --scale tiny --experiment fig2c --output {R}/tiny/fig2c/runs/new.parquet",
        ["tiny/fig2c/runs/new.parquet"],
    ),
    "train and keep checkpoints": ("train --scale tiny --experiment fig1b-tuned", []),
    "predict": ("predict --scale tiny --experiment fig1b-predicted", ["tiny/fig1b-predicted/l2.json"]),
    "summarize": ("summarize --scale tiny --experiment fig2ab", ["tiny/fig2ab/summary.csv"]),
    "theory": ("theory modes --scale tiny", ["tiny/theory/modes.csv"]),
    "claims": ("claims --scale tiny", ["tiny/claims.csv", "tiny/claim_parts.csv", "tiny/claims.md"]),
    "results": ("results --scale tiny", ["tiny/results.md"]),
    "export": ("export {R}/carried.parquet --scale tiny", ["carried.parquet"]),
    "data": ("data digits", []),
    "figure": (
        "figures/fig2.py --scale tiny --pdf {R}/tiny/fig2.pdf --png {R}/tiny/fig2.png --csv {R}/tiny/fig2.csv",
        [f"tiny/{name}" for name in FIG2],
    ),
}


@pytest.fixture
def disk(tmp_path, tiny):
    """A small file system of its own, with the results of the tiny scale."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True)
    needs(mounted.returncode == 0, "a tmpfs cannot be mounted here (that takes root)")
    shutil.copytree(tiny.path / "results", folder, dirs_exist_ok=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def tree(folder) -> dict[str, bytes]:
    """The content of every file, but for logs and what fills the disk."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".log" and p.name != "filler")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_a_full_disk_is_one_line_and_loses_nothing(tiny, disk, tmp_path):
    heard, filler = tmp_path / "heard", disk / "filler"
    env = tiny.environment(L2DYN_RESULTS=str(disk), PYTHONPATH=str(tiny.path / "src"))
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], cwd=tiny.path, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(words) -> tuple[int, list[str]]:
        argv = [*words.replace("{R}", str(disk)).split(), "--log", str(disk / "a.log")]
        print(json.dumps([argv, str(heard)]), file=driver.stdin, flush=True)
        code = int(driver.stdout.readline())
        return code, heard.read_text().splitlines()

    for name, (words, written) in COMMANDS.items():
        if name.startswith("train"):  # something to train, with an earlier checkpoint lying about
            shutil.rmtree(disk / "cache")
            shutil.rmtree(disk / "tiny" / words.split()[4] / "runs")
        for path in written:
            (disk / path).unlink(missing_ok=True)
        before = tree(disk)
        for room in (0, 1, 6, 20):  # pages of 4 KiB
            (disk / "a.log").unlink(missing_ok=True)
            filler.write_bytes(b"x" * (shutil.disk_usage(disk).free - 4096 * room))
            code, lines = run(words)
            filler.unlink()
            after = tree(disk)
            assert not [path for path in after if path.endswith(".tmp")], name
            # whatever was there is as it was, but for checkpoints, which give way to newer ones and to finished runs
            kept = {path: content for path, content in before.items() if not path.endswith(".ckpt")}
            assert kept.items() <= after.items(), name
            if code == 0:
                break  # it fits
            assert code in (1, 2), (name, lines)
            (line,) = lines
            assert line.startswith("l2dyn: "), (name, line)
            assert "no disk space left" in line, (name, line)
            before = after
        assert room > 0, name  # without any room nothing can be written
        if code != 0:
            code, lines = run(words)
        assert code == 0, (name, lines)
        assert all((disk / path).stat().st_size for path in written), name
    driver.stdin.close()
    assert driver.wait() == 0
    tiny.snakemake("all", L2DYN_RESULTS=str(disk))
    assert "damaged" not in tiny.l2dyn("status", "--scale", "tiny", env={"L2DYN_RESULTS": str(disk)}).stdout
