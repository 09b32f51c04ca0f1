"""What a person sees of GREEN's tables: Markdown with WER, marks, sizes and speeds; the JSON beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from greenasr.data.files import write_atomic, write_json
from greenasr.report.language_models import DASH, MB, bits_label, number
from greenasr.score.table import markdown

FOOT = """WER in percent, mean ± standard deviation over seeds. "all" pools {words:,} words: the test sets,
and every fold of training speakers, recognised by models that never heard them. MB (1e6 bytes) of the packed
file; RTF of one core, network + search. `*` significantly worse, `†` significantly better than the row named, by
MAPSSWE at 0.05 on the pooled words for most seeds; "increase" is the pooled difference to the full-precision
row of the same network, with its 95 % interval over speakers.
"""


def write(value: Mapping[str, Any], run: Path) -> None:
    """``table.json`` and ``table.md`` in the run folder."""
    write_json(run / "table.json", dict(value))
    write_atomic(run / "table.md", to_markdown(value))


def to_markdown(value: Mapping[str, Any]) -> str:
    """The rows as a Markdown table with its foot."""
    if not value["rows"]:
        return f"# {value['title']}\n\nNo row is finished yet.\n"
    sets = list(dict.fromkeys(name for row in value["rows"] for name in row["wer"]))
    rows = [_cells(row, sets) for row in value["rows"]]
    words = max(row["words"] for row in value["rows"])
    return f"# {value['title']}\n\n{markdown(rows)}\n\n{FOOT.format(words=words)}"


def _cells(row: Mapping[str, Any], sets: list[str]) -> dict[str, object]:
    against = {name: found for name, found in row["against"].items() if found}
    marks = " ".join(f"{found['mark']}{name}" for name, found in against.items() if found["mark"])
    nearest = against.get("compact") or against.get("float")
    increase = DASH
    if nearest:
        low, high = nearest["ci95"]
        increase = f"{nearest['difference']:+.2f} ({low:+.2f} to {high:+.2f})"
    cells: dict[str, object] = {
        "system": row["method"] if not row["fit"] else f"{row['method']}, {row['fit']}",
        "bits": bits_label(row["bits"]),
    }
    for name in sets:
        cells[name] = _spread(row["wer"].get(name))
    return cells | {
        "all": _spread(row["pooled"]),
        "marks": marks or DASH,
        "increase": increase,
        "params M": number(row["parameters"] / 1e6, 2),
        "MB": number(row["bytes"] / MB, 3),
        "ratio": number(row["ratio"], 1, "x"),
        "RTF": f"{row['rtf_network']:.4f} + {row['rtf_search']:.4f}",
    }


def _spread(found: list[float] | None) -> str:
    """Mean ± deviation, the latter where there is more than one seed."""
    if not found:
        return DASH
    mean, deviation, n = found
    return f"{mean:.2f} ± {deviation:.2f}" if n > 1 else f"{mean:.2f}"
