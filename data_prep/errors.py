"""The errors that the corpus tools raise on purpose."""


class PrepError(Exception):
    """A fault of the input, the settings or a corpus on disk, told in one line.

    The message says what is wrong, where (file and line, or record), and what would be
    right. The command prints it without a traceback and ends with exit code 2.
    """


class DamagedError(PrepError):
    """A file of a corpus is missing, or is not what was written."""


class MissingPackageError(PrepError):
    """What is asked for needs a package that is not installed."""
