"""Our Kneser-Ney beside KenLM's lmplz: the same text, n-gram for n-gram and token for token.

    python benchmarks/ngram.py --text train.txt --order 4 --lmplz PATH/lmplz --test test.txt

lmplz (https://github.com/kpu/kenlm, LGPL) is not part of this project: build it, or leave --lmplz out and get
our time alone.  Both read a copy of the text in which <unk> is an ordinary word, since lmplz refuses it.
With the Python package `kenlm` installed, its query of lmplz's file is compared with ours as well.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from greenasr.data.text import read_sentences
from greenasr.decode.arpa import read_arpa, write_arpa
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.ngram import LN10, NGram, perplexity


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare our n-gram estimator with lmplz.")
    parser.add_argument("--text", type=Path, required=True, help="training text, one sentence a line")
    parser.add_argument("--test", type=Path, help="text to score (default: the first 3,000 lines of --text)")
    parser.add_argument("--order", type=int, default=4)
    parser.add_argument("--prune", default="0", help="counts by order, e.g. '0 0 1'")
    parser.add_argument("--lmplz", type=Path, help="the program lmplz")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def by_words(lm: NGram) -> dict[str, tuple[float, float]]:
    """N-gram text -> log10 p and log10 b (0 at the highest order)."""
    table = {}
    for n in range(1, lm.order + 1):
        backoffs = lm.backoffs[n - 1] if n < lm.order else np.zeros(lm.counts[n - 1])
        for gram, p, b in zip(
            lm.grams(n).tolist(), lm.logprobs[n - 1].tolist(), backoffs.tolist(), strict=True
        ):
            table[" ".join(lm.words[i] for i in gram)] = (p, b)
    return table


def compare(ours: NGram, theirs: NGram, test: list[list[str]]) -> dict[str, Any]:
    """Largest and mean |difference of log10 p| over n-grams and over the tokens of a text."""
    a, b = by_words(ours), by_words(theirs)
    both = [gram for gram in a if gram in b]
    p = np.array([abs(a[gram][0] - b[gram][0]) for gram in both])
    bow = np.array([abs(a[gram][1] - b[gram][1]) for gram in both])
    token = np.abs(np.concatenate(ours.score(test)) - np.concatenate(theirs.score(test))) / LN10
    return {
        "ngrams": len(both),
        "only_ours": len(a) - len(both),
        "only_lmplz": len(b) - len(both),
        "logprob_max": float(p.max()),
        "logprob_mean": float(p.mean()),
        "backoff_max": float(bow.max()),
        "tokens": len(token),
        "token_max": float(token.max()),
        "token_mean": float(token.mean()),
        "perplexity_lmplz": perplexity(theirs.score(test)),
    }


def kenlm_query(arpa: Path, lm: NGram, test: list[list[str]]) -> dict[str, Any]:
    """The same file queried by the package kenlm: largest difference and seconds of both."""
    model = importlib.import_module("kenlm").Model(str(arpa))
    start = time.perf_counter()
    theirs = [[score for score, _, _ in model.full_scores(" ".join(sentence))] for sentence in test]
    middle = time.perf_counter()
    ours = lm.score(test)
    end = time.perf_counter()
    gap = max(float(np.abs(a / LN10 - b).max()) for a, b in zip(ours, theirs, strict=True))
    return {"query_max": gap, "query_seconds": end - middle, "query_seconds_kenlm": middle - start}


def main() -> None:
    """Run both and print the differences."""
    options = arguments()
    rename = {"<unk>": "[unk]"}
    text = [[rename.get(word, word) for word in sentence] for sentence in read_sentences(options.text)]
    test = (
        [[rename.get(w, w) for w in s] for s in read_sentences(options.test)] if options.test else text[:3000]
    )
    prune = [int(count) for count in options.prune.split()]

    start = time.perf_counter()
    ours = kneser_ney(text, options.order, prune).lm
    result: dict[str, Any] = {"counts": list(ours.counts), "seconds_estimate": time.perf_counter() - start}
    result["perplexity"] = perplexity(ours.score(test))
    with tempfile.TemporaryDirectory() as folder:
        plain, arpa = Path(folder, "text.txt"), Path(folder, "lmplz.arpa")
        write_arpa(ours, Path(folder, "ours.arpa"))
        result["seconds_estimate_and_write"] = time.perf_counter() - start
        if options.lmplz:
            plain.write_text("".join(" ".join(sentence) + "\n" for sentence in text), encoding="utf-8")
            command = [
                str(options.lmplz),
                "-o",
                str(options.order),
                "-S",
                "1G",
                "-T",
                folder,
                "--discount_fallback",
            ]
            command += ["--text", str(plain), "--arpa", str(arpa), "--prune", *map(str, prune)]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            result["seconds_lmplz"] = time.perf_counter() - start
            start = time.perf_counter()
            theirs = read_arpa(arpa)
            result["seconds_read"] = time.perf_counter() - start
            result |= compare(ours, theirs, test)
            if importlib.util.find_spec("kenlm"):
                result |= kenlm_query(arpa, theirs, test)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:28s} {value:.6g}" if isinstance(value, float) else f"{name:28s} {value}")
    if not math.isfinite(result["perplexity"]):
        raise SystemExit("perplexity is not finite")


if __name__ == "__main__":
    main()
