"""The packed file, and networks that run from it without torch.

>>> import greenasr.runtime
>>> greenasr.runtime.load("nowhere.packed")  # doctest: +ELLIPSIS
Traceback (most recent call last):
FileNotFoundError: ...
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from greenasr.runtime.activations import Activations
    from greenasr.runtime.engine import Loaded


def load(path: "str | Path", activations: "Activations | None" = None) -> "Loaded":
    """Read a packed file and make its network ready to run; see `engine.load`."""
    from greenasr.runtime import engine  # here: whoever reads tables alone needs no network

    return engine.load(path, activations)
