"""greenasr: makes speech recognisers small without losing a word."""

__version__ = "0.1.0"
