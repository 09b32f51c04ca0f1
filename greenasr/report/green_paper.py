"""The figures of GREEN's Tables 1–3 as printed: Xu et al. 2022, "Towards Green ASR", 300-hour Switchboard.

WER in percent of Hub5'00, RT03 and RT02, average over all words, MB of the file, ratio, RTF in thousandths
(of one V100, network alone).  Systems are numbered as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from greenasr.report.language_models import FLOATS

SETS = ("swbd", "callhm", "rt03 fsh.", "rt03 swbd", "rt02 swbd1", "rt02 swbd2", "rt02 swbd3")
ETA = 0.1
DIMS = (25, 50, 80, 100, 120, 160, 200, 240)  # what a digit of `INDEX` stands for
INDEX = {"float": "5555555555555", "compact": "23202221210355"}
PARAMETERS = {"float": 18.6e6, "compact": 12.4e6}


@dataclass(frozen=True)
class Quoted:
    """A row of Table 2; ``marks`` as in the paper: no significant difference to system 1 (*), 0 (†)."""

    system: int
    wer: tuple[float, ...]
    average: float
    marks: str
    mb: float
    ratio: float
    rtf: float


# (plan, estimation, bits) -> row; "float" and "compact" are the two full-precision systems.
TABLE2: dict[tuple[str, str, float], Quoted] = {
    ("float", "", 32): Quoted(0, (9.7, 18.0, 12.6, 19.5, 11.5, 15.3, 20.0), 15.5, "", 74.4, 1.0, 0.223),
    ("compact", "", 32): Quoted(1, (9.2, 17.4, 11.9, 19.2, 10.9, 14.4, 19.5), 15.0, "", 49.6, 1.5, 0.187),
    ("uniform", "bp", 1): Quoted(2, (16.4, 25.0, 18.3, 27.2, 17.6, 20.9, 27.7), 22.3, "", 1.9, 39.2, 0.065),
    ("uniform", "bp", 2): Quoted(3, (15.4, 23.9, 17.2, 26.5, 16.8, 20.1, 26.9), 21.7, "", 3.7, 20.1, 0.103),
    ("uniform", "bp", 4): Quoted(4, (11.0, 20.1, 13.6, 22.5, 13.0, 16.2, 22.7), 16.9, "", 6.4, 11.6, 0.105),
    ("uniform", "bp", 8): Quoted(5, (10.3, 18.7, 12.6, 20.4, 11.8, 15.2, 20.6), 15.8, "†", 12.6, 5.9, 0.097),
    ("uniform", "bp", 16): Quoted(6, (9.0, 17.2, 11.6, 19.1, 10.8, 14.2, 19.2), 14.8, "", 25.1, 3.0, 0.111),
    ("uniform", "acosr", 1): Quoted(
        7, (15.0, 23.1, 16.2, 25.0, 15.5, 18.8, 25.1), 19.7, "", 1.9, 39.2, 0.057
    ),
    ("uniform", "acosr", 4): Quoted(
        8, (10.6, 19.1, 13.0, 21.7, 12.4, 15.6, 21.5), 16.1, "", 6.4, 11.6, 0.090
    ),
    ("uniform", "acosr", 8): Quoted(
        9, (9.7, 18.0, 12.2, 19.8, 11.2, 14.9, 19.9), 15.4, "†", 12.6, 5.9, 0.096
    ),
    ("uniform", "acosr", 16): Quoted(
        10, (9.2, 17.5, 11.8, 19.3, 11.0, 14.3, 19.6), 15.0, "", 25.1, 3.0, 0.120
    ),
    ("hessian", "bp", 4): Quoted(11, (10.2, 18.6, 12.4, 19.8, 11.5, 14.9, 20.0), 15.6, "†", 6.3, 11.8, 0.073),
    ("hessian", "bp", 8): Quoted(12, (9.5, 17.5, 12.1, 19.5, 11.1, 14.8, 19.6), 15.2, "*", 12.6, 5.9, 0.077),
    ("hessian", "acosr", 4): Quoted(
        13, (9.7, 17.7, 12.3, 19.8, 11.3, 15.0, 19.7), 15.5, "†", 6.4, 11.6, 0.071
    ),
    ("hessian", "acosr", 8): Quoted(
        14, (9.3, 17.5, 12.1, 19.5, 11.2, 14.7, 19.5), 15.2, "*", 12.5, 6.0, 0.080
    ),
    ("kl", "bp", 4): Quoted(15, (10.3, 18.5, 12.4, 19.9, 11.4, 15.0, 20.1), 15.6, "†", 6.3, 11.7, 0.074),
    ("kl", "bp", 8): Quoted(16, (9.4, 17.6, 12.1, 19.4, 11.0, 14.8, 19.7), 15.2, "*", 12.6, 5.9, 0.079),
    ("kl", "acosr", 4): Quoted(17, (9.8, 17.8, 12.2, 19.7, 11.2, 14.9, 19.8), 15.4, "†", 6.4, 11.6, 0.069),
    ("kl", "acosr", 8): Quoted(18, (9.3, 17.6, 12.0, 19.4, 11.0, 14.6, 19.6), 15.1, "*", 12.5, 5.9, 0.081),
    ("search", "bp", 4): Quoted(19, (10.5, 18.8, 12.8, 20.6, 11.9, 15.5, 21.0), 16.0, "", 6.3, 11.8, 0.072),
    ("search", "bp", 8): Quoted(20, (9.8, 18.0, 12.2, 19.7, 11.1, 14.7, 19.9), 15.4, "†", 12.6, 5.9, 0.078),
}
# acoustic model, LHUC -> system, WER in the order of `SETS`, MB of recogniser and language model; the
# full-precision ones have the full-precision language model, the low-bit ones one of 2 bits.
TABLE3: dict[tuple[str, bool], tuple[int, tuple[float, ...], float]] = {
    ("float", False): (1, (9.6, 17.8, 12.4, 19.3, 11.3, 15.1, 19.9), 180.4),
    ("compact", False): (2, (9.0, 17.3, 11.7, 19.1, 10.8, 14.2, 19.3), 155.6),
    ("float", True): (3, (7.7, 15.1, 9.8, 16.0, 9.4, 12.2, 15.8), 180.4),
    ("compact", True): (4, (7.5, 14.4, 9.6, 15.6, 9.0, 11.8, 15.6), 155.6),
    ("4 bits", False): (5, (10.0, 18.3, 12.2, 19.5, 11.4, 14.8, 19.6), 13.3),
    ("8 bits", False): (6, (9.2, 17.3, 11.7, 19.2, 10.8, 14.4, 19.4), 19.5),
    ("4 bits", True): (7, (8.5, 15.6, 10.3, 16.9, 10.0, 12.8, 17.1), 13.3),
    ("8 bits", True): (8, (7.7, 14.8, 9.9, 16.0, 9.4, 12.3, 16.0), 19.5),
}


def parsed(name: str) -> tuple[str, str, float]:
    """Plan, estimation and bits of a row's folder: the key of `TABLE2`.

    >>> parsed("hessian-4-acosr"), parsed("bp-2"), parsed("float")
    (('hessian', 'acosr', 4.0), ('uniform', 'bp', 2.0), ('float', '', 32))
    >>> parsed("kl-4-float32")
    ('kl', 'bp', 4.0)
    """
    method, *more = name.removesuffix(f"-{FLOATS}").split("-")
    if method in ("float", "compact"):
        return method, "", 32
    bits = float(more[0])
    if method in ("hessian", "kl", "search"):
        return method, more[1] if len(more) > 1 else "bp", bits
    return "uniform", method, bits


def quoted(row: str) -> Quoted | None:
    """The paper's row like ours of that folder, None where it has none.

    >>> quoted("kl-8-acosr").average, quoted("none-4")
    (15.1, None)
    """
    return TABLE2.get(parsed(row))


def quoted_system(system: Mapping[str, Any]) -> tuple[int, tuple[float, ...], float] | None:
    """Number, WER and MB of the paper's system like ours, by ``row``, ``lm`` ("float", "low"), ``lhuc``."""
    plan, _, bits = parsed(str(system.get("row", "float")))
    full = plan in ("float", "compact")
    if system.get("lm") != ("float" if full else "low") or not full and plan == "uniform":
        return None
    return TABLE3.get((plan if full else f"{bits:g} bits", bool(system.get("lhuc"))))
