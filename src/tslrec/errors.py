"""The kinds of error that a person is meant to read."""


class UserError(Exception):
    """Something that a person can put right.

    Its text is one line: what is wrong, where, and what to do. The command line prints it without a traceback and
    exits with a code that is not 0; everything else that is raised is a defect and keeps its traceback.
    """


class StoppedError(UserError):
    """A signal asked a run to end, and it did so in good order.

    Args:
        message: what was stopped, and how it goes on.
        signal: its number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
