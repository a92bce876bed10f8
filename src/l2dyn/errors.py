"""The error that a user can mend: one line that names the file and the key, value or run."""


class UserError(Exception):
    """Bad input or a broken surrounding (file, network, disk); its text is one line, shown as it is."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


EXIT_DONE = 0
EXIT_OTHER = 1
EXIT_BAD_INPUT = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped at the time limit, with a checkpoint
