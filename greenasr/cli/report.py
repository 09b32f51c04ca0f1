"""`greenasr report`: a finished search as a page and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from greenasr.cli.progress import out, show
from greenasr.data.files import read_json
from greenasr.report import shrunk


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished `greenasr shrink`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write report.html anew, which opens offline in any browser, and print the table of models.

    Example: greenasr report runs/small
    """
    shrunk.write(run)
    if as_json:
        show(shrunk.read(run), True, "")
    else:
        print_table(run)


def print_table(run: Path) -> None:
    """The answer and every model, for a terminal."""
    value = shrunk.read(run)
    out.print(value["sentence"], markup=False, highlight=False)
    out.print()
    width = max(len("full precision"), *(len(shrunk.label(row)) for row in value["models"])) + 2
    out.print(
        f"{'model':<{width}} {'file':>10} {'smaller':>8} {'activations':>12} {'dev':>6} {'test':>6}  verdict",
        highlight=False,
        soft_wrap=True,
    )
    full = value["full"]
    rows = [("full precision", full["bytes"], 1.0, "float32", full["dev"], full["test"], "")]
    for row in sorted(value["models"], key=lambda row: -row["bytes"]):
        name = shrunk.label(row) + (" *" if row["name"] == value["smallest"] else "")
        verdict = row.get("verdict") or ("" if row["passes_dev"] else "loses words on dev")
        kind = shrunk.KINDS[row["activations"]]
        rows.append((name, row["bytes"], row["ratio"], kind, row["dev"], row.get("test"), verdict))
    for name, size, ratio, kind, dev, test, verdict in rows:
        heard = f"{test['wer']:.2f}" if test else "–"
        line = (
            f"{name:<{width}} {shrunk.size(size):>10} {ratio:>7.1f}x {kind:>12} {dev['wer']:>6.2f} "
            f"{heard:>6}  {verdict}"
        )
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if (run / "system" / "answer.json").exists():
        out.print("\nwith a language model, in one budget of bytes:")
        system = read_json(run / "system" / "answer.json")
        out.print(system["sentence"], markup=False, highlight=False)
        for row in sorted(system["pairs"], key=lambda row: -row["bytes"]):
            heard = f", test {row['test']['wer']:.2f}" if row.get("test") else ""
            verdict = row.get("verdict") or ("" if row["passes_dev"] else "loses words on dev")
            star = " *" if row["name"] == system["smallest"] else ""
            line = (
                f"{row['recogniser']} + {row['lm']}{star}: {shrunk.size(row['bytes'])}, {row['ratio']:.1f}x, "
            )
            line += f"dev {row['dev']['wer']:.2f}{heard}  {verdict}"
            out.print(line, markup=False, highlight=False, soft_wrap=True)
    if value["effort"]:
        out.print(f"\n{shrunk.effort_of(value['effort'])}", highlight=False, soft_wrap=True)
    out.print(f"\nthe page of it: {run / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
