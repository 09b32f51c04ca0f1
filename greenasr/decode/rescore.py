"""Rescoring: order every N-best list anew by first pass, n-gram, neural LM and length together.

    total(h) = first(h) + w_words · words(h) + w_unknown · unknown words(h)
             + w_ngram log p_ngram(h) + w_lm log p_lm(h)                    w_ngram, w_lm >= 0

Natural logarithms, sentence end included.  With ``mix`` the two models are first interpolated word by word,
log Σ_w log(λ p_lm + (1-λ) p_ngram), λ by EM on the references of the dev half, and count as one.  Weights
are tuned on the dev half of the utterances (`tune`), and the other half is held out for the result.  MPLM §5
rescores with such a mixture; counting unknown words apart matters for a small LM text, where names that the
recognizer spelled right are unknown to the model as well.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from greenasr.decode.interpolate import Logprobs, em_weights, interpolate
from greenasr.decode.nbest import NBest
from greenasr.decode.ngram import Floats, NGram
from greenasr.decode.tune import gains_on_unseen, tune, z_of_gain
from greenasr.score.errors import Errors, count_errors, wer

T = TypeVar("T")
Score = Callable[[list[list[str]]], Sequence[Logprobs]]
GUARD_Z = 1.645  # one-sided 5 %
FEWER_CHANGES = 1e-3  # errors that changing a list's answer costs in tuning: decides ties only


@dataclass(frozen=True)
class Half:
    """Errors of every utterance of one half, before and after."""

    first: tuple[Errors, ...]
    rescored: tuple[Errors, ...]

    @property
    def wer(self) -> tuple[float, float]:
        """WER before and after, in percent; ValueError without a reference word."""
        return wer(self.first), wer(self.rescored)


@dataclass(frozen=True)
class Rescoring:
    """What `run` found: weights, both halves, the lists in their new order, seconds by part.

    ``mixture`` is the share of each model when they were interpolated.  ``kept`` is False when the tuned
    weights did not gain significantly (``guard_z``) on dev utterances left out of their tuning, and the first
    pass was left alone.
    """

    weights: dict[str, float]
    mixture: dict[str, float]
    kept: bool
    guard_z: float | None
    dev: Half
    heldout: Half
    nbest: tuple[NBest, ...]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Weights and rates as a JSON value; the lists are written with `nbest.write_nbest`."""
        return {
            "weights": self.weights,
            "mixture": self.mixture,
            "kept": self.kept,
            "guard_z": self.guard_z,
            "wer": {
                name: {"utterances": len(half.first), "first_pass": half.wer[0], "rescored": half.wer[1]}
                for name, half in (("dev", self.dev), ("heldout", self.heldout))
                if any(e.n_ref for e in half.first)
            },
            "seconds": self.seconds,
        }


def in_dev(utt_id: str) -> bool:
    """Whether an utterance falls into the dev half: its id's CRC-32 is even, whatever else is in the file."""
    return zlib.crc32(utt_id.encode("utf-8")) % 2 == 0


def score_hyps(nbest: Sequence[NBest], lm: Score) -> dict[str, Floats]:
    """Per-word log-probabilities of every different hypothesis, scored once: hyp -> (words + 1,)."""
    hyps = sorted({hyp for entry in nbest for hyp in entry.hyps})
    scores = lm([hyp.split() for hyp in hyps])
    if len(scores) != len(hyps):
        raise ValueError(
            f"the language model scored {len(scores)} of {len(hyps)} sentences; it should score each."
        )
    for hyp, score in zip(hyps, scores, strict=True):
        if len(score) != len(hyp.split()) + 1 or not np.isfinite(score).all():
            raise ValueError(
                f"the language model gave {len(score)} log-probabilities for '{hyp[:60]}', it should give "
                f"{len(hyp.split()) + 1}, all finite: one a word and one for the end."
            )
    return dict(zip(hyps, (np.asarray(score, np.float64) for score in scores), strict=True))


def hyp_errors(nbest: Sequence[NBest], need_ref: bool = True) -> list[list[Errors]]:
    """Errors of every hypothesis against its reference; compute once to rescore with several models.

    Without a reference: ValueError, or an empty list where it is not needed.
    """
    counted: list[list[Errors]] = []
    for entry in nbest:
        if entry.ref is None and not need_ref:
            counted.append([])
            continue
        if entry.ref is None:
            raise ValueError(
                f"no reference for '{entry.id}'. Add it, or give weights and rescore without tuning."
            )
        ref = entry.ref.split()
        of = {hyp: count_errors(entry.id, ref, hyp.split()) for hyp in set(entry.hyps)}
        counted.append([of[hyp] for hyp in entry.hyps])
    return counted


def rescore(nbest: Sequence[NBest], features: Sequence[Floats], weights: Floats) -> list[NBest]:
    """Lists in the order of ``features @ weights``, (H, K) x (K,); equals keep their order."""
    lists = []
    for entry, f in zip(nbest, features, strict=True):
        totals = f @ weights
        order = np.argsort(-totals, kind="stable")
        hyps, scores = tuple(entry.hyps[i] for i in order), tuple(entry.scores[i] for i in order)
        lists.append(replace(entry, hyps=hyps, scores=scores, totals=tuple(float(totals[i]) for i in order)))
    return lists


def features_of(
    nbest: Sequence[NBest], known: Container[str] | None, logprobs: Mapping[str, Mapping[str, Floats]]
) -> tuple[tuple[str, ...], list[Floats]]:
    """Names (K,) and one (H, K) array a list: first, words, unknown (given ``known``), then each model."""
    hyps = {hyp for entry in nbest for hyp in entry.hyps}
    row: dict[str, list[float]] = {}
    for hyp in hyps:
        words = hyp.split()
        row[hyp] = [float(len(words))]
        if known is not None:
            row[hyp].append(float(sum(word not in known for word in words)))
        row[hyp].extend(float(model[hyp].sum()) for model in logprobs.values())
    names = ("first", "words", *(("unknown",) if known is not None else ()), *logprobs)
    return names, [np.array([[s, *row[h]] for s, h in zip(e.scores, e.hyps, strict=True)]) for e in nbest]


def run(
    nbest: Sequence[NBest],
    ngram: NGram | None = None,
    lm: Score | None = None,
    known: Container[str] | None = None,
    mix: bool = False,
    dev: Callable[[str], bool] = in_dev,
    errors: Sequence[Sequence[Errors]] | None = None,
    weights: Mapping[str, float] | None = None,
    guard: bool = True,
    need_heldout: bool = True,
    in_first: Container[str] = (),
    seed: int = 0,
    tell: Callable[[str, int, int], None] = lambda part, done, of: None,
) -> Rescoring:
    """Tune on the utterances whose id ``dev`` accepts, rescore all, report both halves.

    ``lm`` takes sentences and returns natural-log probabilities of every word and the end; ``known`` is the
    vocabulary of the "unknown" count, by default the n-gram's.  ``errors`` are those of `hyp_errors`.  Given
    ``weights`` (name -> weight) are used as they are: with those of the full-precision model a compressed one
    is judged without the luck of its own tuning; lists without a reference are then in no half.  ``guard``
    leaves the first pass alone unless weights tuned on four fifths of the dev half save errors on the last
    fifth, in all five turns together, with a matched-pairs z above 1.645.  Without
    ``need_heldout`` all utterances may be for tuning, when the weights are for other lists.  ``in_first``
    names models whose log-probability is part of the first pass: their weights go down to -1, which takes
    them out again.  ``tell`` is told (part, done, of) meanwhile.
    """
    seconds: dict[str, float] = {}
    if errors is None:
        errors = _timed(seconds, "errors", lambda: hyp_errors(nbest, need_ref=weights is None))
    halves = {
        True: [u for u, e in enumerate(nbest) if dev(e.id) and errors[u]],
        False: [u for u, e in enumerate(nbest) if not dev(e.id) and errors[u]],
    }
    for is_dev, chosen in halves.items():
        needed = (weights is None or mix) and (is_dev or need_heldout)
        if needed and not sum(errors[u][0].n_ref for u in chosen):
            raise ValueError(
                f"the {'dev' if is_dev else 'held-out'} half has {len(chosen)} of {len(nbest)} utterances "
                "and no reference word. Give more utterances."
            )
    models: dict[str, dict[str, Floats]] = {}
    if ngram is not None:
        models["ngram"] = _timed(seconds, "ngram", lambda: score_hyps(nbest, ngram.score))
        known = ngram.ids if known is None else known
    if lm is not None:
        models["lm"] = _timed(seconds, "lm", lambda: score_hyps(nbest, lm))
    mixture: dict[str, float] = {}
    if mix:
        if ngram is None or lm is None:
            raise ValueError(
                "interpolation needs two models, an n-gram and a neural one. Give both or leave it out."
            )
        refs = [(nbest[u].ref or "").split() for u in halves[True]]
        texts = [np.concatenate(list(lm(refs))), np.concatenate(ngram.score(refs))]
        share = em_weights(texts)
        mixture = {"lm": float(share[0]), "ngram": float(share[1])}
        both = {hyp: interpolate([models["lm"][hyp], models["ngram"][hyp]], share) for hyp in models["lm"]}
        models = {"mixture": both}
    names, features = features_of(nbest, known, models)

    kept, z = True, None
    if weights is None:
        of_dev = [features[u] for u in halves[True]]
        wrong = [_costs(nbest[u], errors[u]) for u in halves[True]]
        lowest = [(-1.0 if name in in_first else 0.0) if name in models else -np.inf for name in names]
        found = _timed(
            seconds, "tune", lambda: tune(of_dev, wrong, lowest, seed=seed, progress=partial(tell, "tune"))
        )
        if guard:
            unseen = _timed(
                seconds,
                "guard",
                lambda: gains_on_unseen(of_dev, wrong, lowest, seed=seed, progress=partial(tell, "guard")),
            )
            z = z_of_gain(unseen)
            kept = z > GUARD_Z
        found = found if kept else np.eye(len(names))[0]
        weights = dict(zip(names, map(float, found), strict=True))
    elif set(weights) != set(names):
        raise ValueError(
            f"weights are given for {', '.join(weights)}; this run has {', '.join(names)}. "
            "Use weights of the same models."
        )
    vector = np.array([weights[name] for name in names])
    best = [int(np.argmax(f @ vector)) for f in features]
    dev_half, heldout = (
        Half(tuple(errors[u][0] for u in chosen), tuple(errors[u][best[u]] for u in chosen))
        for chosen in (halves[True], halves[False])
    )
    lists = tuple(rescore(nbest, features, vector))
    return Rescoring(dict(weights), mixture, kept, z, dev_half, heldout, lists, seconds)


def _costs(entry: NBest, errors: Sequence[Errors]) -> Floats:
    changed = [hyp != entry.hyps[0] for hyp in entry.hyps]
    return np.array([e.total + FEWER_CHANGES * c for e, c in zip(errors, changed, strict=True)])


def _timed(seconds: dict[str, float], name: str, work: Callable[[], T]) -> T:
    start = time.perf_counter()
    value = work()
    seconds[name] = time.perf_counter() - start
    return value
