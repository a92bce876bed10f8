"""`l2dyn COMMAND`.

Exit codes: 0 done, 75 stopped with a checkpoint (call again to go on), 2 bad input, 1 anything else.
"""

import argparse
import errno
import logging
import os
import sys

from l2dyn import __version__
from l2dyn.cli import carrying, measuring, planning, training
from l2dyn.cli.options import Commands, set_up_logging
from l2dyn.errors import EXIT_BAD_INPUT, EXIT_OTHER, UserError
from l2dyn.files import results_folder
from l2dyn.runs.records import DamagedRecord

log = logging.getLogger("l2dyn")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = parser().parse_args(argv)
    try:
        set_up_logging(arguments.log)
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except DamagedRecord as error:
        log.error("l2dyn: %s", error)
        return EXIT_OTHER
    except UserError as error:
        log.error("l2dyn: %s", error)
        return EXIT_BAD_INPUT
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OTHER
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            log.error("l2dyn: %s: no disk space left; free some and call again", error.filename or results_folder())
        elif error.filename is not None:  # a file that is missing, a folder, unreadable
            log.error("l2dyn: %s: %s", error.filename, error.strerror)
        else:
            raise
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        log.error("l2dyn: interrupted; runs that were finished are stored")
        return 130


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(prog="l2dyn", description="Training dynamics with L2 regularization.")
    top.add_argument("--version", action="version", version=f"l2dyn {__version__}")
    commands = Commands(top)
    for group in (training, measuring, planning, carrying):
        group.add_to(commands)
    return top
