"""Errors whose text is written for the person who runs the program."""


class UserError(Exception):
    """An error that the user can correct: in the configuration, in a file, or on the disk.

    Its text is one line: what is wrong, where, and what to do. The command line prints it without a traceback and
    exits with a non-zero code. Any other exception is a defect of the program and keeps its traceback.
    """


class StoppedError(UserError):
    """A signal asked the run to stop, and the run stopped in an orderly way, all of its processes together.

    Args:
        message: what was stopped, and how to resume it.
        signal: the signal's number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
