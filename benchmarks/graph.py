"""Seconds and memory to build a decoding graph, and to search it, for a vocabulary made on the spot.

    python benchmarks/graph.py --words 5000 --sentences 12000 --order 3

Words get random pronunciations over 40 phones (a tenth of them two), sentences are drawn from random bigram
chains of a Zipfian vocabulary, the model is our Kneser-Ney estimate of them.  Logits are noise with the right
pdf raised, so the search has the work of real speech of moderate difficulty.  RTFs and ``cpu`` count
processor time, which other programs on the machine do not stretch.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from greenasr.data.lexicon import Lexicon
from greenasr.decode.arpa import write_arpa
from greenasr.decode.context import PdfMap
from greenasr.decode.graph import DecodingGraph, build_graph
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.decode.wfst import FRAME_SHIFT, Decoder

N_PHONES = 40


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time graph building and decoding on a generated language.")
    parser.add_argument("--words", type=int, default=5000)
    parser.add_argument("--sentences", type=int, default=12000)
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--utterances", type=int, default=20, help="to decode; 0 for none")
    parser.add_argument("--noise", type=float, default=2.0, help="of the logits, against a peak of 6")
    parser.add_argument("--beam", type=float, default=13.0)
    parser.add_argument("--lattice-beam", type=float, default=6.0)
    parser.add_argument("--monophone", action="store_true", help="no left context")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def lexicon(n_words: int, rng: np.random.Generator) -> Lexicon:
    """Words of 2 to 9 random phones, a tenth of them with two pronunciations."""

    def pron() -> tuple[str, ...]:
        return tuple(f"P{p:02d}" for p in rng.integers(N_PHONES, size=2 + min(rng.poisson(4), 7)))

    return Lexicon(
        {f"w{i:05d}": (pron(), pron()) if rng.random() < 0.1 else (pron(),) for i in range(n_words)}
    )


def sentences(words: tuple[str, ...], count: int, rng: np.random.Generator) -> list[list[str]]:
    """Zipfian words, half of them one of eight that follow their predecessor."""
    share = 1 / np.arange(1, len(words) + 1)
    share /= share.sum()
    follow = rng.choice(len(words), (len(words), 8), p=share)
    text = []
    for length in rng.integers(4, 22, size=count).tolist():
        drawn, pick = rng.choice(len(words), length, p=share), rng.integers(0, 16, length)
        for i in range(1, length):
            if pick[i] < 8:
                drawn[i] = follow[drawn[i - 1], pick[i]]
        text.append([words[i] for i in drawn.tolist()])
    return text


def pdf_map(lex: Lexicon, monophone: bool) -> PdfMap:
    """Left biphones, the pairs of the lexicon each with pdfs of its own."""
    if monophone:
        return PdfMap.monophone(lex.phones)
    ids = {phone: i for i, phone in enumerate(lex.phones)}
    counts: dict[tuple[int, int], float] = {}
    for prons in lex.prons.values():
        for pron in prons:
            for left, phone in zip((lex.silence, *pron), pron, strict=False):
                pair = 1 + ids[left], ids[phone]
                counts[pair] = counts.get(pair, 0) + 1
    return PdfMap.left_biphone(lex.phones, counts, 12)


def noisy(
    sentence: list[str], lex: Lexicon, pdfs: PdfMap, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Log-probabilities (T', C): noise, and 6 more for the pdf of a random alignment of the sentence."""
    ids = {phone: i for i, phone in enumerate(lex.phones)}
    phones = [0, *(ids[p] for word in sentence for p in lex.prons[word][0]), 0]
    said: list[int] = []
    for left, phone in zip([-1, *phones], phones, strict=False):
        entry, loop = pdfs.table[left + 1, phone].tolist()
        said += [entry] + [loop] * int(rng.integers(0, 4))
    logits = rng.normal(scale=noise, size=(len(said), pdfs.n_pdfs))
    logits[np.arange(len(said)), said] += 6
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    """Build, save, load and search; print what each took."""
    args = arguments()
    rng = np.random.default_rng(args.seed)
    lex = lexicon(args.words, rng)
    words = tuple(str(word) for word in rng.permutation(lex.words))
    text = sentences(words, args.sentences + args.utterances, rng)
    result: dict[str, float | int | list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        arpa, kept = Path(folder) / "lm.arpa", Path(folder) / "graph"
        write_arpa(kneser_ney(text[: args.sentences], args.order, vocab=lex.words).lm, arpa)
        pdfs = pdf_map(lex, args.monophone)
        start, cpu = time.perf_counter(), time.process_time()
        graph = build_graph(lex, pdfs, arpa)
        result["build_seconds"] = time.perf_counter() - start
        result["build_cpu_seconds"] = time.process_time() - cpu
        start = time.perf_counter()
        graph.save(kept)
        result["save_seconds"] = time.perf_counter() - start
        start = time.perf_counter()
        graph = DecodingGraph.load(kept)
        result["load_seconds"] = time.perf_counter() - start
        result["megabytes"] = (kept / "HLG.fst").stat().st_size / 1e6
    result |= {name: graph.meta[name] for name in ("words", "ngrams", "states", "arcs")} | {
        "pdfs": pdfs.n_pdfs
    }
    result["peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if args.utterances:
        refs = text[args.sentences :]
        logits = [noisy(ref, lex, pdfs, args.noise, rng) for ref in refs]
        decoder = Decoder(graph, beam=args.beam, lattice_beam=args.lattice_beam)
        decoder.best(logits[0])
        seconds = FRAME_SHIFT * sum(map(len, logits))
        for name, search in (("best", decoder.decode_many), ("nbest", decoder.nbest_many)):
            start = time.process_time()
            found = search(logits)
            spent = time.process_time() - start
            result[f"{name}_rtf"] = spent / seconds
            result[f"{name}_ms"] = 1000 * spent / len(refs)
            if name == "best":
                right = sum(list(hyp.words) == ref for hyp, ref in zip(found, refs, strict=True))
                result["sentences_right"] = right / len(refs)
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:16} {value:.4g}" if isinstance(value, float) else f"{name:16} {value}")


if __name__ == "__main__":
    main()
