"""Flat start: alignments of a corpus from nothing but its transcripts and a lexicon.

    frames shared out equally  →  monophones, one Gaussian a state
    monophones: passes of (align, E-step, M-step, mix up)  →  alignment  →  tree over (left, phone, state)
    states tied by the tree: the same passes  →  alignment  →  tree over (left, phone, entry | loop)

Viterbi training: every pass takes the best path of each transcript's HMM (`decode.align`) as the truth and
adds one EM step of the mixtures within each pdf; Young et al., "The HTK Book", ch. 8 and 10; Kaldi's
train_mono.sh and train_deltas.sh.  The last tree looks at every third frame, as the chain's network will,
and says which pdf each left biphone emits there (`PdfMap`).

With a folder, each pass leaves its state there, whole or not at all, and a killed run goes on after it: the
result is the same to the last bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from greenasr.data.lexicon import Lexicon
from greenasr.decode.align import TranscriptGraph, monophone_table, transcript_graph, viterbi
from greenasr.decode.alignment import N_STATES, Alignment, equal_alignment
from greenasr.decode.context import PdfMap
from greenasr.decode.tree import SILENCE, Tree, grow_tree, phone_questions
from greenasr.models.gmm import Gmm, Moments, moments
from greenasr.tasks.flat_start_state import Pass, State, read_state, save_state, stay_probs
from greenasr.tasks.gmm_feats import Frontend

Feats = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

STATE = "flat_start.npz"
FRAMES_A_BATCH = 20_000
MONOPHONE, CONTEXT = "monophone", "context"


@dataclass(frozen=True)
class Stage:
    """Passes over the corpus with one set of states.

    ``gaussians`` are reached by three quarters of the ``passes``; ``realign`` are the passes that begin with
    a new alignment.
    """

    passes: int
    gaussians: int
    realign: tuple[int, ...]


@dataclass(frozen=True)
class FlatStart:
    """Settings; the trees' limits are leaves, frames a leaf and gain in log likelihood a split.

    ``context`` of 0 passes leaves the monophones' alignment as it is.
    """

    frontend: Frontend = Frontend()
    monophone: Stage = Stage(20, 800, (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18))
    context: Stage = Stage(14, 3000, (2, 4, 6, 9, 12))
    leaves: int = 600
    min_count: float = 100.0
    min_gain: float = 200.0
    chain_leaves: int = 600
    chain_min_count: float = 30.0
    chain_min_gain: float = 60.0
    subsampling: int = 3
    silence_prob: float = 0.5
    variance_floor: float = 0.01
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Aligned:
    """What a flat start gives: alignments by utterance, why others were ``skipped``, and the tied states.

    ``tree`` ties the HMM's three states (None without a context stage), ``chain_tree`` the chain's two;
    ``loop`` (P, 3) is the probability to stay in a state.
    """

    phones: tuple[str, ...]
    alignments: Mapping[str, Alignment]
    skipped: Mapping[str, str]
    tree: Tree | None
    chain_tree: Tree
    pdf_map: PdfMap
    gmm: Gmm
    loop: Floats
    passes: tuple[Pass, ...]


def flat_start(
    feats: Mapping[str, Feats],
    transcripts: Mapping[str, Sequence[str]],
    lexicon: Lexicon,
    settings: FlatStart | None = None,
    folder: str | Path | None = None,
    progress: Callable[[Pass], None] | None = None,
) -> Aligned:
    """Align ``transcripts`` (words by utterance id) with ``feats`` (T, F) of the same ids.

    An utterance shorter than its phones is skipped.  Features are read utterance by utterance, a few times a
    pass.  With a ``folder`` a killed run goes on where it was.  Raises ValueError for words without a
    pronunciation, missing or non-finite features, and a folder of another run.
    """
    settings = settings or FlatStart()
    if lost := [u for u in transcripts if u not in feats]:
        raise ValueError(
            f"{len(lost)} of {len(transcripts)} transcripts have no features, the first is '{lost[0]}'. "
            "Extract them, or leave those utterances out."
        )
    corpus = _Corpus(feats, transcripts, lexicon, settings)
    kept = Path(folder) / STATE if folder is not None else None
    key = corpus.key()
    state = read_state(kept, key) if kept is not None and kept.exists() else None
    if state is None:
        state = corpus.equal_start()
    plan = [(MONOPHONE, settings.monophone)] + [(CONTEXT, settings.context)] * (settings.context.passes > 0)
    for name, stage in plan:
        done = {p.number for p in state.passes if p.stage == name}
        for number in range(stage.passes):
            if number in done:
                continue
            if name == CONTEXT and number == 0:
                state = corpus.tied(state)
            state = corpus.trained(state, name, stage, number)
            if kept is not None:
                save_state(kept, key, state)
            if progress is not None:
                progress(state.passes[-1])
        if name == MONOPHONE and not any(p.stage == CONTEXT for p in state.passes):
            state = replace(state, alignments=corpus.aligned(state))
    if settings.context.passes:
        state = replace(state, alignments=corpus.aligned(state))
    chain_tree = corpus.chain_tree(state.alignments)
    return Aligned(
        lexicon.phones,
        state.alignments,
        corpus.skipped,
        state.tree,
        chain_tree,
        chain_tree.pdf_map(),
        state.gmm,
        state.loop,
        state.passes,
    )


class _Corpus:
    """Features, HMMs and settings of one run, and the steps over all of them."""

    def __init__(
        self,
        feats: Mapping[str, Feats],
        transcripts: Mapping[str, Sequence[str]],
        lexicon: Lexicon,
        settings: FlatStart,
    ):
        self.feats, self.lexicon, self.settings = feats, lexicon, settings
        self.ids = {phone: index for index, phone in enumerate(lexicon.phones)}
        self.words: dict[str, Sequence[str]] = {}
        self.frames: dict[str, int] = {}
        self.skipped: dict[str, str] = {}
        self.total: Moments | None = None
        for utt_id in sorted(transcripts):
            words = transcripts[utt_id]
            graph = self._graph(utt_id, words, monophone_table(len(self.ids)))
            x = self.read(utt_id)
            if len(x) < graph.shortest:
                self.skipped[utt_id] = f"{len(x)} frames, its phones take at least {graph.shortest}"
                continue
            self.words[utt_id], self.frames[utt_id] = words, len(x)
            found = moments(x, np.zeros(len(x), np.int64), 1)
            self.total = found if self.total is None else self.total + found
        if self.total is None:
            raise ValueError(
                f"no utterance to align: {len(transcripts)} transcripts, {len(self.skipped)} of them longer "
                "than their audio. Look whether features and transcripts belong together."
            )
        self.batches = list(self._batches())
        count = self.total.count[0]
        mean = self.total.first[0] / count
        self.floor = settings.variance_floor * np.maximum(self.total.second[0] / count - mean**2, 1e-8)
        self._graphs: dict[str, TranscriptGraph] = {}
        self._graphs_of: Tree | None | str = "none yet"

    def _graph(self, utt_id: str, words: Sequence[str], table: npt.NDArray[np.int32]) -> TranscriptGraph:
        return transcript_graph(words, self.lexicon, table, self.settings.silence_prob, where=utt_id)

    def read(self, utt_id: str) -> Feats:
        """The mixtures' features of an utterance, (T, F)."""
        x = self.settings.frontend(np.asarray(self.feats[utt_id], np.float32))
        if not np.isfinite(x).all():
            raise ValueError(
                f"{utt_id}: its features hold values that are not finite. Look at its audio, or leave it out."
            )
        return x

    def _batches(self) -> Iterator[list[str]]:
        batch: list[str] = []
        frames = 0
        for utt_id in sorted(self.words, key=lambda u: (self.frames[u], u)):
            batch.append(utt_id)
            frames += self.frames[utt_id]
            if frames >= FRAMES_A_BATCH:
                yield batch
                batch, frames = [], 0
        if batch:
            yield batch

    def key(self) -> str:
        """What a folder's state must have been made with."""
        lexicon, settings = self.lexicon.to_json(), asdict(self.settings)
        parts = [lexicon, settings, {u: [self.frames[u], *w] for u, w in self.words.items()}, self.skipped]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def equal_start(self) -> State:
        """Monophones of one Gaussian a state, from frames shared out equally."""
        table = monophone_table(len(self.ids))
        found: Moments | None = None
        alignments = {}
        for utt_id, words in self.words.items():
            spoken = [self.ids[p] for word in words for p in self.lexicon.prons[word][0]]
            shortest = [
                self.ids[p]
                for word in words
                for p in min(self.lexicon.prons[word], key=lambda pron: len(pron))
            ]
            readings = ([SILENCE, *spoken, SILENCE], spoken or [SILENCE], shortest)
            fits = next(r for r in readings if N_STATES * len(r) <= self.frames[utt_id])
            alignments[utt_id] = one = equal_alignment(self.frames[utt_id], fits)
            part = moments(self.read(utt_id), table[one.left, one.phone, one.state], table.max() + 1)
            found = part if found is None else found + part
        assert found is not None
        loop = np.full((len(self.ids), N_STATES), 0.75)
        return State(Gmm.single(found, self.floor), loop, alignments, None, ())

    def tied(self, state: State) -> State:
        """States tied by a tree over the alignment so far, one Gaussian each."""
        by_context = self.moments_in_context(state.alignments, N_STATES, 1)
        s = self.settings
        tree = self._grown(by_context, s.leaves, s.min_count, s.min_gain)
        table = tree.table().ravel()
        flat = by_context.reshape(len(table), -1)
        leaf = np.array([np.bincount(table, column, tree.n_pdfs) for column in flat.T]).T
        dim = len(self.floor)
        gmm = Gmm.single(Moments(leaf[:, 0], leaf[:, 1 : 1 + dim], leaf[:, 1 + dim :]), self.floor)
        return replace(state, gmm=gmm, tree=tree)

    def chain_tree(self, alignments: Mapping[str, Alignment]) -> Tree:
        """The tree over entry and loop frames at the network's output rate."""
        s = self.settings
        by_context = self.moments_in_context(alignments, 2, s.subsampling)
        return self._grown(by_context, s.chain_leaves, s.chain_min_count, s.chain_min_gain)

    def _grown(self, by_context: Floats, n_leaves: int, min_count: float, min_gain: float) -> Tree:
        questions = phone_questions(by_context.sum((0, 2)), self.floor)
        n_leaves = max(n_leaves, len(self.ids))
        return grow_tree(
            self.lexicon.phones, by_context, questions, self.floor, n_leaves, min_count, min_gain
        )

    def moments_in_context(
        self, alignments: Mapping[str, Alignment], n_states: int, subsampling: int
    ) -> Floats:
        """Moments of the frames of each [left, phone, state], (P + 1, P, states, 1 + 2F).

        States are the HMM's three, or the chain's two over every ``subsampling``-th frame.
        """
        n = len(self.ids)
        shape = (n + 1, n, n_states)
        total = Moments.zeros(int(np.prod(shape)), len(self.floor))
        for batch in self.batches:
            feats, label = [], []
            for utt_id in (u for u in batch if u in alignments):
                one = alignments[utt_id]
                state = one.state if n_states == N_STATES else chain_states(one, subsampling)
                taken = slice(None, None, subsampling)
                context = (one.left[taken], one.phone[taken], state)
                feats.append(self.read(utt_id)[taken])
                label.append(np.ravel_multi_index(context, shape))
            if feats:
                total += moments(np.concatenate(feats), np.concatenate(label), len(total.count))
        return np.hstack([total.count[:, None], total.first, total.second]).reshape(*shape, -1)

    def graphs(self, tree: Tree | None, table: npt.NDArray[np.int32]) -> dict[str, TranscriptGraph]:
        """The HMMs of all transcripts for one set of tied states, made once."""
        if self._graphs_of is not tree:
            self._graphs = {u: self._graph(u, words, table) for u, words in self.words.items()}
            self._graphs_of = tree
        return self._graphs

    def _realigned(
        self, state: State, batch: Sequence[str], feats: Sequence[Feats], table: npt.NDArray[np.int32]
    ) -> dict[str, Alignment]:
        graphs = self.graphs(state.tree, table)
        scores = [state.gmm.logprobs(x, graphs[u].pdfs) for u, x in zip(batch, feats, strict=True)]
        found = viterbi([graphs[u] for u in batch], scores, state.loop)
        return {u: one for u, one in zip(batch, found, strict=True) if one is not None}

    def aligned(self, state: State) -> dict[str, Alignment]:
        """The alignment by the mixtures as they are."""
        table = state.table
        found: dict[str, Alignment] = {}
        for batch in self.batches:
            found |= self._realigned(state, batch, [self.read(u) for u in batch], table)
        return {u: found[u] for u in self.words}

    def trained(self, state: State, name: str, stage: Stage, number: int) -> State:
        """One pass: align where it is due, E-step, M-step, mixing up."""
        table = state.table
        alignments = dict(state.alignments)
        total = Moments.zeros(len(state.gmm.pdf), len(self.floor))
        changed = 0
        for batch in self.batches:
            feats = [self.read(u) for u in batch]
            if number in stage.realign:
                for u, new in self._realigned(state, batch, feats, table).items():
                    old = alignments[u]
                    changed += int(((new.phone != old.phone) | (new.state != old.state)).sum())
                    alignments[u] = new
            pdf = [table[a.left, a.phone, a.state] for a in (alignments[u] for u in batch)]
            total += state.gmm.statistics(np.concatenate(feats), np.concatenate(pdf))
        loop = stay_probs(alignments.values(), len(self.ids)) if number in stage.realign else state.loop
        gmm = state.gmm.updated(total, self.floor)
        grow = min(1.0, (number + 1) / max(1.0, 0.75 * stage.passes))
        target = round(gmm.n_pdfs + grow * max(0, stage.gaussians - gmm.n_pdfs))
        if number + 1 < stage.passes:
            seed = [self.settings.seed, number, name == CONTEXT]
            occupation = np.add.reduceat(total.count, state.gmm.first[:-1])
            gmm = gmm.mixed_up(target, occupation, np.random.default_rng(seed))
        frames = sum(self.frames.values())
        silent = sum(int((a.phone == SILENCE).sum()) for a in alignments.values())
        figures = Pass(
            name,
            number,
            len(state.gmm.pdf),
            total.logprob / frames,
            silent / frames,
            changed / frames,
        )
        return State(gmm, loop, alignments, state.tree, (*state.passes, figures))


def chain_states(alignment: Alignment, subsampling: int) -> npt.NDArray[np.int64]:
    """0 where a phone begins and 1 where it goes on, over every ``subsampling``-th frame, (ceil(T / 3),).

    >>> chain_states(equal_alignment(16, [4, 4]), 3).tolist()
    [0, 1, 1, 0, 1, 1]
    """
    phone_number = np.cumsum(alignment.begins)[::subsampling]
    return (np.diff(phone_number, prepend=0) == 0).astype(np.int64)
