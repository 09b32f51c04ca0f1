"""Our scoring beside NIST's on SCTK's own test cases, one row a case.

    python benchmarks/sctk.py --data DIR [--json]

DIR holds SCTK's test inputs with NIST's reports: sclite/input, sclite/expected, hubscr, mapsswe and
rover_demo.  A row compares, as far as the case has the report,

    counts    C, S, D, I of every utterance (.pra), of every speaker (.raw), or percentages (.sys, .lur)
    pairs     the word pairs of every utterance's alignment (.pra)
    tests     MAPSSWE, signed pairs, Wilcoxon and McNemar of two systems' alignments (sc_stats)

Cases that our formats do not cover are listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenasr.score.align import Pair
from greenasr.score.errors import count_ops, wer, wer_by_speaker
from greenasr.score.formats import Aligned, Settings, align_all, read_pair, with_speakers
from greenasr.score.markup import characters
from greenasr.score.network import Rules, align_tokens
from greenasr.score.sgml import Alignment, read_sgml
from greenasr.score.significance import mapsswe_of_ops, mcnemar, signed_pairs, two_sided, wilcoxon
from greenasr.score.table import markdown

Counts = tuple[int, int, int, int]  # C, S, D, I
FRAGMENTS, BOTH = Rules(fragments=True), Rules(optional=True, fragments=True)

NOT_COVERED = {
    "1c": "words weighted by a table (-w): our WER counts every word once",
    "13, 13_D": "ctm against ctm, cut at silences by times: our ctm needs an stm as reference",
    "13_a, 13_aD": "ctm against ctm aligned by time (-T)",
    "1, 1d, 1e: .nl.sgml": "the same alignments with one field a line; .sgml is read",
    "1, 1e: .snt, .spk, .dtl, .prf": "other layouts of the alignments that are compared in .pra",
}


@dataclass(frozen=True)
class Case:
    """One run of sclite: its files, its options and where NIST's reports are."""

    name: str
    ref: str
    hyp: str
    report: str
    format: str | None = "trn"
    speakers: str = "auto"
    settings: Settings = field(default_factory=Settings)


def cases() -> list[Case]:
    """Every case of sclite and hubscr that our formats cover."""
    reduced = {
        "14_a": ("lvc_refr.stm", "lvc_hypr.ctm", ("ref", "hyp")),
        "14_b": ("lvc_ref.stm", "lvc_hypr.ctm", ("ref", "hyp")),
        "14_c": ("lvc_refr.stm", "lvc_hyp.ctm", ("ref", "hyp")),
        "14_d": ("lvc_refr.stm", "lvc_hypr.ctm", ("hyp",)),
        "14_e": ("lvc_refr.stm", "lvc_hypr.ctm", ("ref",)),
    }
    missing = [
        "missall",
        "missfile1",
        "missfile1chanA",
        "missfile1chanb",
        "missfile2",
        "missfile2chanA",
        "missfile2chanB",
    ]

    def sclite(name: str, ref: str, hyp: str, **more: Any) -> Case:
        return Case(name, f"sclite/input/{ref}", f"sclite/input/{hyp}", f"sclite/expected/test{name}", **more)

    found = [
        sclite("1", "csrnab.ref", "csrnab.hyp", speakers="wsj"),
        sclite("1e", "csrnab.ref", "csrnab.hyp", speakers="wsj"),
        sclite("3", "lvc_ref.stm", "lvc_hyp.ctm", format=None),
        sclite("3a", "lvc_refe.stm", "lvc_hyp.ctm", format=None),
        sclite("3b", "lvc_ref.stm", "lvc_hypc.ctm", format=None),
        sclite("3c", "lvc_refm.stm", "lvc_hypm.ctm", format=None),
        sclite("7", "tests.ref", "tests.hyp", speakers="spu_id", settings=Settings(rules=BOTH)),
        sclite("7_r", "tests.hyp", "tests.ref", speakers="spu_id", settings=Settings(rules=BOTH)),
        sclite("7_noD", "tests.ref", "tests.hyp", speakers="spu_id", settings=Settings(rules=FRAGMENTS)),
        sclite("8", "csrnab1.ref", "csrnab1.hyp", speakers="wsj", settings=Settings(chars=True)),
        *(sclite(n, r, h, format=None, settings=Settings(reduce=m)) for n, (r, h, m) in reduced.items()),
        sclite(
            "15_c",
            "test.turkish.ref",
            "test.turkish.hyp",
            speakers="spu_id",
            settings=Settings(language="tr"),
        ),
        sclite("15_d", "test.ukranian.ref", "test.ukranian.hyp", speakers="spu_id"),
        *(
            sclite(f"16_{n}", "stm2ctm_missing.ref.stm", f"stm2ctm_missing.hyp{part}.ctm", format=None)
            for n, part in enumerate([*(f"-{m}" for m in missing), ""], 2)
        ),
        sclite("17", "test.vietnamese.ref.trn", "test.vietnamese.hyp.trn", speakers="spu_id"),
    ]
    for folder, tag in (("test1", ""), ("test1-notag", ".notag"), ("test1-notag-a", ".notag")):
        for system in ("lvc_hyp", "lvc_hyp2"):
            hyp = f"hubscr/{folder}/{system}{tag}.ctm.filt"
            ref = f"hubscr/{folder}/lvc_refe{tag}{'.noat' if tag else ''}.stm.filt"
            found.append(
                Case(f"hubscr {folder} {system}", ref, hyp, hyp, None, settings=Settings(rules=BOTH))
            )
    return found


def read_pra(path: Path) -> list[tuple[str, Counts, list[Pair] | None]]:
    """Id, counts and word pairs of every utterance of a .pra report; stars stand for an absent word."""
    rows: list[tuple[str, Counts, list[Pair] | None]] = []
    utt_id, counts, ref = "", (0, 0, 0, 0), ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := re.match(r"id: \((.*)\)\s*$", line):
            utt_id = found[1].lower()
        elif found := re.match(r"Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", line):
            counts = (int(found[1]), int(found[2]), int(found[3]), int(found[4]))
            rows.append((utt_id, counts, None))
        elif line.startswith("REF: "):
            ref = line
        elif line.startswith("HYP: ") and rows:
            refs, hyps = ref[5:].split(), line[5:].split()
            if len(refs) == len(hyps) == sum(rows[-1][1]):
                rows[-1] = (*rows[-1][:2], [Pair("", *pair) for pair in zip(refs, hyps, strict=True)])
    return rows


def read_raw(path: Path) -> dict[str, Counts]:
    """C, S, D, I of every speaker, and their "sum", of a .raw report."""
    row = re.compile(r"\s*\|\s*(\S+)\s*\|\s*\d+\s+\d+\s*\|\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\d+\s+\d+\s*\|")
    found = (row.match(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {m[1].lower(): (int(m[2]), int(m[3]), int(m[4]), int(m[5])) for m in found if m}


def counts_of(ops: str) -> Counts:
    """C, S, D, I of an alignment's letters."""
    tally = Counter(ops)
    return tally["C"], tally["S"], tally["D"], tally["I"]


def plain(pair: Pair, folded: Callable[[str], str]) -> tuple[str, str]:
    """A pair as .pra shows it: lower case, one star for an absent word."""

    def shown(word: str | None) -> str:
        return "*" if not word or set(word) == {"*"} else folded(word)

    return shown(pair.ref), shown(pair.hyp)


def score_case(data: Path, case: Case) -> dict[str, Any]:
    """One row: our counts, NIST's, and whether everything that can be compared is equal."""
    settings = case.settings
    refs, hyps = read_pair(data / case.ref, data / case.hyp, case.format, settings)
    aligned = with_speakers(align_all(refs, hyps, case.hyp, settings), case.speakers)
    ours = counts_of("".join(a.ops for a in aligned))
    row: dict[str, Any] = {"case": case.name, "utterances": len(aligned), "ours C S D I": ours}
    compared: dict[str, bool] = {}
    report = data / case.report
    if (pra := Path(f"{report}.pra")).exists():
        expected = {utt: (counts, pairs) for utt, counts, pairs in read_pra(pra)}
        got = {a.utt_id.lower(): counts_of(a.ops) for a in aligned}
        compared["utterances"] = {utt: c for utt, (c, _) in expected.items()} == got
        compared["pairs"], row["pairs compared"] = compare_pairs(refs, hyps, expected, settings)
    if (raw := Path(f"{report}.raw")).exists():
        table = read_raw(raw)
        speakers = {
            s.lower(): counts_of("".join(a.ops for a in aligned if a.speaker == s)) for s in set_of(aligned)
        }
        row["NIST C S D I"] = table.pop("sum")
        compared["total"] = row["NIST C S D I"] == ours
        for name in ("mean", "s.d.", "median"):
            table.pop(name, None)
        compared["speakers"] = table == speakers
    elif (lur := Path(f"{report}.lur")).exists():
        line = next(x for x in lur.read_text().splitlines() if "Set Sum/Avg" in x)
        words, rate = re.findall(r"\[(\d+)\]\s+([\d.]+)", line)[0]
        row["NIST C S D I"] = f"{words} words, {rate} %"
        compared["total"] = (words, rate) == (str(sum(ours[:3])), f"{wer(a.errors for a in aligned):.1f}")
    else:
        line = next(x for x in Path(f"{report}.sys").read_text().splitlines() if "Sum/Avg" in x)
        rates = re.findall(r"[\d.]+", line.split("|")[3])
        row["NIST C S D I"] = f"{' '.join(rates[:4])} %"
        compared["total"] = rates[:4] == [f"{100 * c / sum(ours[:3]):.1f}" for c in ours]
    row["compared"], row["equal"] = " ".join(k for k, v in compared.items()), all(compared.values())
    row["different"] = " ".join(k for k, v in compared.items() if not v)
    return row


def set_of(aligned: list[Aligned]) -> list[str]:
    """The speakers, each once."""
    return sorted({a.speaker for a in aligned if a.speaker is not None})


def compare_pairs(refs: Any, hyps: Any, expected: Any, settings: Settings) -> tuple[bool, int]:
    """Whether every alignment pairs the same words as in .pra, and how many could be compared."""
    heard = {h.utt_id: h for h in hyps}
    equal, compared = True, 0
    for ref in refs:
        sides = (ref.tokens, heard[ref.utt_id].tokens)
        if settings.chars:
            sides = (characters(sides[0]), characters(sides[1]))
        pairs = expected[ref.utt_id.lower()][1]
        if pairs is None:
            continue
        compared += 1
        folded = (
            str.lower if not settings.language else lambda w: w.replace("I", "ı").replace("İ", "i").lower()
        )
        got = [plain(p, folded) for p in align_tokens(*sides, settings.rules)]
        equal &= got == [plain(p, folded) for p in pairs]
    return equal, compared


def sgml_row(
    name: str, path: Path, raw: Path | None, per_speaker: dict[str, str] | None = None
) -> dict[str, Any]:
    """Counts of an aligned file beside its report."""
    alignments = read_sgml(path)
    ours = counts_of("".join(a.ops for a in alignments))
    row: dict[str, Any] = {"case": name, "utterances": len(alignments), "ours C S D I": ours}
    if raw is not None:
        row["NIST C S D I"] = read_raw(raw)["sum"]
        row["equal"] = row["NIST C S D I"] == ours
        row["compared"] = "total"
    elif per_speaker is not None:
        got = {speaker: f"{rate:.1f}" for speaker, rate in speaker_rates(alignments).items()}
        row["NIST C S D I"], row["equal"], row["compared"] = "by speaker %", got == per_speaker, "speakers"
    row["different"] = "" if row["equal"] else row["compared"]
    return row


def realigned_row(name: str, path: Path, rules: Rules) -> dict[str, Any]:
    """Our alignment of the words of an sgml beside the alignment that is in it."""
    alignments = read_sgml(path)
    equal = all(
        align_tokens([p.ref for p in a.pairs if p.ref], [p.hyp for p in a.pairs if p.hyp], rules)
        == list(a.pairs)
        for a in alignments
    )
    ours = counts_of("".join(a.ops for a in alignments))
    return {
        "case": name,
        "utterances": len(alignments),
        "ours C S D I": ours,
        "NIST C S D I": ours,
        "compared": "pairs",
        "equal": equal,
        "different": "" if equal else "pairs",
    }


MATCHED_PAIRS = re.compile(
    r"# segs: (\d+)\).*mean: ([-\d.]+)\) \(std dev: ([-\d.]+)\) \(Z Stat: ([-\d.]+)\) \(Stat Diff: (\w+)"
)
UNIFIED = re.compile(r"\|\s+(MP|SI|WI|MN)\s+\|\|.*?\|\|?\s*(?:~|lvc\S+)\s+([\d.]+)")


def mapsswe_row(data: Path, name: str, a: str, b: str) -> dict[str, Any]:
    """The matched-pairs test of two aligned files beside sc_stats' report of it."""
    first, second = ([x.ops for x in read_sgml(data / "mapsswe" / f"{f}.sgml")] for f in (a, b))
    test = mapsswe_of_ops(first, second)
    found = MATCHED_PAIRS.search((data / "mapsswe" / f"{name}.stats.mapsswe").read_text())
    figures = f"{test.segments} {test.mean:.3f} {test.std:.3f} {test.z:.3f} {'Yes' if test.better else 'No'}"
    return test_row(
        f"mapsswe {name}", "segments mean std z different", figures, found.groups() if found else ()
    )


def ensemble_row(data: Path, folder: str, tag: str) -> dict[str, Any]:
    """The four tests of two systems beside sc_stats' unified report."""
    place = data / "hubscr" / folder
    first, second = (read_sgml(place / f"{system}{tag}.ctm.filt.sgml") for system in ("lvc_hyp", "lvc_hyp2"))
    paths = [x.ops for x in first], [x.ops for x in second]
    rates = speaker_rates(first), speaker_rates(second)
    tests = (
        mapsswe_of_ops(paths[0], paths[1]),
        signed_pairs(rates[0], rates[1]),
        wilcoxon(rates[0], rates[1]),
        mcnemar(paths[0], paths[1]),
    )
    found = dict(UNIFIED.findall((place / "Ensemble.stats.unified").read_text()))
    expected = [found.get(name, "?") for name in ("MP", "SI", "WI", "MN")]
    return test_row(f"hubscr {folder}", "p of MP SI WI MN", " ".join(map(p_of_table, tests)), expected)


def test_row(case: str, figures: str, ours: str, nist: Iterable[str]) -> dict[str, Any]:
    """One row of a test's figures."""
    expected = " ".join(nist)
    return {"case": case, "figures": figures, "ours": ours, "NIST": expected, "equal": ours == expected}


def significance_rows(data: Path) -> list[dict[str, Any]]:
    """Our tests beside sc_stats' reports."""
    return [
        mapsswe_row(data, "test1a", "file1", "file2"),
        mapsswe_row(data, "test1b", "file2", "file1"),
        ensemble_row(data, "test1", ""),
        ensemble_row(data, "test1-notag", ".notag"),
        ensemble_row(data, "test1-notag-a", ".notag"),
    ]


def speaker_rates(alignments: list[Alignment]) -> dict[str, float]:
    """WER by speaker of an aligned file."""
    return wer_by_speaker(count_ops(x.utt_id, x.ops, x.speaker) for x in alignments)


def p_of_table(test: Any) -> str:
    """Print p as sc_stats does: of a normal z cut to two decimals, for its table has no more."""
    return f"{two_sided(int(abs(test.z) * 100) / 100) if hasattr(test, 'z') else test.p:.3f}"


def rover_rates(data: Path) -> dict[str, dict[str, str]]:
    """System -> speaker -> percent of Report.sys."""
    lines = [x for x in (data / "rover_demo" / "Report.sys").read_text().splitlines() if x.startswith("|")]
    names = [
        f.strip().rpartition("/")[2] for f in next(x for x in lines if "Spkr" in x).strip("|").split("|")
    ][1:]
    table: dict[str, dict[str, str]] = {name: {} for name in names}
    for line in lines:
        fields = [f.strip() for f in line.strip("|").split("|")]
        if re.fullmatch(r"spk\d+", fields[0]):
            for name, value in zip(names, fields[1:], strict=True):
                table[name][fields[0]] = value
    return table


def main() -> int:
    """Print the rows; exit status 1 when one of them differs."""
    parser = argparse.ArgumentParser(description="Our scoring beside NIST's on SCTK's test cases.")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with sclite, hubscr, mapsswe and rover_demo"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args()
    rows = [score_case(args.data, case) for case in cases()]
    expected = args.data / "sclite" / "expected"
    rows.append(sgml_row("1a (from sgml)", expected / "test1.sgml", expected / "test1.raw"))
    for name in ("test1.sgml", "test1e.sgml"):
        rows.append(realigned_row(f"realigned {name}", expected / name, Rules()))
    for system, rates in rover_rates(args.data).items():
        rows.append(sgml_row(f"rover {system}", args.data / "rover_demo" / f"{system}.sgml", None, rates))
    tests = significance_rows(args.data)
    equal = sum(r["equal"] for r in rows), sum(r["equal"] for r in tests)
    if args.json:
        print(
            json.dumps(
                {"counts": rows, "tests": tests, "not_covered": NOT_COVERED, "equal": equal},
                ensure_ascii=False,
            )
        )
    else:
        print(markdown(rows), markdown(tests), sep="\n")
        print("Not covered:", *(f"  {name}: {reason}" for name, reason in NOT_COVERED.items()), sep="\n")
        print(f"\nequal: {equal[0]} of {len(rows)} rows of counts, {equal[1]} of {len(tests)} of tests")
    return 0 if equal == (len(rows), len(tests)) else 1


if __name__ == "__main__":
    sys.exit(main())
