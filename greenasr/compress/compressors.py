"""The ways of training towards a bit map, by the names that recipes and commands use."""

from __future__ import annotations

from collections.abc import Callable

from greenasr.compress.acosr import Acosr
from greenasr.compress.admm import Admm
from greenasr.compress.bp import BackPropagation
from greenasr.compress.none import NoCompression
from greenasr.compress.ttq import TrainedTernary
from greenasr.roles import BitMap, Compressor

COMPRESSORS: dict[str, Callable[[BitMap], Compressor]] = {
    "none": NoCompression,
    "bp": BackPropagation,
    "admm": Admm,
    "acosr": Acosr,
    "ttq": TrainedTernary,
}
