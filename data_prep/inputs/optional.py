"""Optional packages, which only some inputs and outputs need."""

import sys
from importlib import import_module
from types import ModuleType

from data_prep.errors import MissingPackageError


def load_optional(module: str, extra: str, needed_by: str) -> ModuleType:
    """Import a package of one of megapt's extras.

    Args:
        module: name of the module to import.
        extra: the extra of megapt that installs it.
        needed_by: the file or setting that needs it, for the error message.

    Raises:
        MissingPackageError: the package is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise MissingPackageError(
            f"{needed_by}: needs {module}; install it with: pip install 'megapt[{extra}]'"
        ) from None


def load_zstd(needed_by: str) -> ModuleType:
    """Import the zstd module of Python 3.14's standard library (PEP 784), or its backport.

    Unlike other bindings, it distinguishes truncated data from the regular end of the data.

    Raises:
        MissingPackageError: the backport is needed and not installed.
    """
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return load_optional(module, "zstd", needed_by)
