"""What the benchmarks share: the machine, its matmul rates, timing on a CPU or a GPU, tables and JSON files."""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import torch

import l2dyn
from l2dyn.errors import UserError
from l2dyn.files import explained_os_errors, git_revision, write_atomically
from l2dyn.training.precision import products_in

WINDOWS = 5  # timed windows; the best counts for a ceiling, the median for a rate
LOAD_BEFORE = os.getloadavg()  # well above 0: others were at work, measure again


def parser(about: str, minutes: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes; --help says how long it takes."""
    made = argparse.ArgumentParser(description=about, epilog=f"Takes {minutes}.")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    made.add_argument("--window", type=float, default=1.0, help="seconds of a timed window; of several one is taken")
    made.add_argument("--output", type=Path, help="a JSON file with every timing, the machine and versions")
    return made


def prepare(options: argparse.Namespace) -> None:
    """One CPU thread; say now, not after the measurement, if there is no GPU or no place for the output."""
    torch.set_num_threads(1)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU is visible here")
    if options.output:
        options.output = options.output.resolve()
        with explained_os_errors(options.output):
            options.output.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(options.output.parent, os.W_OK):
            raise UserError(f"--output {options.output}: its folder cannot be written")


def call(main: Callable[[], None]) -> None:
    """Run a script; what a user has to put right is one line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)


def synchronize(device: str) -> None:
    """Wait for a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_a_call(call: Callable[[], None], device: str, window_s: float) -> list[float]:
    """Seconds of one call in each of WINDOWS windows, after one that warms up."""
    found = []
    for _ in range(WINDOWS + 1):
        calls, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < window_s or not calls:
            call()
            synchronize(device)
            calls += 1
        found.append(elapsed / calls)
    return found[1:]


def matmul_rate(device: str, precision: str, window_s: float) -> float:
    """FLOP/s of torch.mm of square matrices: `float32`, `tf32` or `bfloat16` products."""
    size = 8192 if device == "cuda" else 512
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    calls = 1 if device == "cpu" else 8

    def several():
        for _ in range(calls):
            torch.mm(left, right, out=out)

    with products_in(precision):
        return 2.0 * size**3 * calls / min(seconds_a_call(several, device, window_s / 5))


def machine(device: str) -> dict:
    """Where and with what it was measured."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "l2dyn": l2dyn.__version__}
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": {"cpu": model, "cores": os.cpu_count(), "load_average_before": LOAD_BEFORE}
        | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}),
        "versions": versions | {"git": git_revision()},
    }


def show(rows: list[dict]) -> None:
    """A table of rows that have the same keys; numbers to four digits."""
    cells = [list(rows[0]), *([f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
        )


def finish(name: str, options: argparse.Namespace, rows: list[dict], **more) -> None:
    """Print the table and write everything."""
    show(rows)
    arguments = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    whole = {"benchmark": name, "arguments": arguments, **machine(options.device), "rows": rows, **more}
    if options.output:
        write_atomically(options.output, (json.dumps(whole, indent=1) + "\n").encode())
        print(f"{options.output} written")


median = statistics.median
