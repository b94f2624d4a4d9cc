"""Optional packages: imported where they are used, with one message that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import ``module`` or say which extra brings it.

    Args:
        module: the module to import, such as ``"dgl"``.
        extra: the extra of graphrec that installs it, such as ``"dgl"``.

    Raises:
        ImportError: the module is not installed or cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is needed here but could not be imported ({error}); "
            f"install it with: pip install 'graphrec[{extra}]'"
        ) from error
