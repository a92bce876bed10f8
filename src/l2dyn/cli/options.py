"""What the commands share: options, their types, the plan that they name, how they print and log."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from l2dyn.config.loading import load_scale
from l2dyn.errors import UserError
from l2dyn.runs.bundles import Bundles, Finished, earlier_bundles
from l2dyn.runs.cache import Cache
from l2dyn.runs.plan import Plan, planned
from l2dyn.runs.shelf import Shelf


class Commands:
    """Adds commands to a parser."""

    def __init__(self, parser: argparse.ArgumentParser):
        self._commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, run: Callable[[argparse.Namespace], int], about: str, scale: bool = True):
        """A command's parser. scale: whether it takes the options that name a scale's configuration."""
        command = self._commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        command.add_argument("--log", type=Path, help="write a log file; only warnings and errors go to the terminal")
        if scale:
            command.add_argument("--scale", default="quick", help="config/SCALE.yaml (default: quick)")
            command.add_argument("--no-reuse", action="store_true", help="ignore the runs that ship in paper_results/")
            command.add_argument("--data-dir", help="folder with real data (default: the scale's, L2DYN_DATA)")
            command.add_argument("--device", choices=["cpu", "cuda", "auto"], help="override the scale's device")
        return command


def add_bundles(command: argparse.ArgumentParser, about: str) -> None:
    """The option --bundles, by which a rule hands over its inputs."""
    command.add_argument("--bundles", nargs="*", type=Path, metavar="FILE", help=about)


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The plan of the scale that the options name."""
    given = {"reuse": False if arguments.no_reuse else None, "data_dir": arguments.data_dir, "device": arguments.device}
    return planned(arguments.scale, load_scale(arguments.scale, **given))


def finished_of(plan: Plan, experiment: str = "*", bundles: Iterable[Path] = (), shelf: bool = True) -> Finished:
    """What is finished of a scale: in the cache, on the shelf, in an experiment's bundles (or all) and those given."""
    return Finished(
        Cache(), Shelf(reuse=shelf and plan.scale.reuse), [*earlier_bundles(plan.name, experiment), *bundles]
    )


def records_of(plan: Plan, bundles: list[Path] | None) -> Bundles | Finished:
    """The records that a table is made from: of the bundles that a rule hands over, else whatever is finished."""
    return finished_of(plan) if bundles is None else Bundles(bundles)


def threads_of(arguments: argparse.Namespace, plan: Plan) -> int:
    """CPU threads: the option's, else the scale's."""
    threads = plan.scale.threads if arguments.threads is None else arguments.threads
    if threads < 1:
        raise UserError(f"--threads {threads}: at least 1")
    return threads


def slice_of(text: str) -> tuple[int, int]:
    """I/N as numbers."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N")
    return int(match[1]), int(match[2])


def duration(text: str) -> float:
    """Seconds of a duration such as 90s, 9m or 2h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text)
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 9m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def print_table(head: list[str], rows: list[list], show: Callable[[str], object] = print) -> None:
    """A table, first column to the left, the others to the right."""
    cells = [head, *([f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        show("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))


def set_up_logging(path: Path | None) -> None:
    """Messages to the terminal; with a log file everything goes there, and only warnings to the terminal."""
    root = logging.getLogger("l2dyn")
    root.handlers.clear()
    root.setLevel(logging.INFO)
    root.propagate = False
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING if path else logging.INFO)
    root.addHandler(terminal)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        logging.raiseExceptions = False  # a log that does not fit on the disk is no reason to say more than one line
        to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        root.addHandler(to_file)
