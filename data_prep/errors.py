"""The errors that the corpus tools raise for faults that a user can fix."""


class PrepError(Exception):
    """A fault of the input, the settings or a corpus on disk, described in one line.

    The message says what is wrong, where (file and line, or record), and what would be
    right. The command prints it without a traceback and exits with code 2.
    """


class DamagedError(PrepError):
    """A file of a corpus is missing, or its content is not what was written."""


class MissingPackageError(PrepError):
    """An optional feature needs a package that is not installed."""
