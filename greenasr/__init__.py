"""greenasr: makes speech recognisers small without losing a word."""

__version__ = "0.1.0"
PUBLIC = {
    "shrink": "shrinking.shrink",
    "load_into": "shrinking.package",
}  # name -> its file, read when asked for


def __getattr__(name: str) -> object:
    import importlib

    if name not in PUBLIC:
        raise AttributeError(f"module 'greenasr' has no attribute '{name}'")
    return getattr(importlib.import_module(f"greenasr.{PUBLIC[name]}"), name)
