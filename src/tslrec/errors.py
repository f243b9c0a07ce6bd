"""The one kind of error that a person is meant to read."""


class UserError(Exception):
    """Something that a person can put right.

    Its text is one line: what is wrong, where, and what to do. The command line prints it without a traceback and
    exits with a code that is not 0; everything else that is raised is a defect and keeps its traceback.
    """
