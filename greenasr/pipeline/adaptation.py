"""LHUC adaptation in two passes: what a speaker may have said teaches the network that speaker's voice.

    1. recognise the speaker's utterances, rescore them where the recipe does: h_1 … h_K of totals s_1 … s_K
    2. r <- argmin_r L_LF-MMI(logits_r; p_num = Σ_k P_k p_num(h_k)),        P_k = exp(s_k) / Σ_j exp(s_j)
       everything but r frozen; recognise again

No transcript is used.  With K = 1 an error is learnt as if it were the truth, so words that a language model
has put right teach more than those of the first pass.  GREEN §4.4; Manohar et al. 2018 for lists;
`greenasr.models.lhuc`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from greenasr.compress.fit import Training, fit_
from greenasr.compress.none import NoCompression
from greenasr.data.files import atomic, write_atomic
from greenasr.decode.chain_graphs import denominator_graph, numerator_graph
from greenasr.decode.nbest import NBest, read_nbest, write_nbest
from greenasr.decode.wfst import to_nbest
from greenasr.models.lhuc import attach_lhuc_, detach_lhuc_
from greenasr.ops.lfmmi import Graph, any_of
from greenasr.pipeline import hybrid
from greenasr.pipeline.acoustic_models import load_acoustic
from greenasr.pipeline.hybrid import Place
from greenasr.pipeline.place import Tell, errors_of
from greenasr.score.errors import to_jsonl, wer
from greenasr.score.significance import mapsswe


def adapt(
    place: Place,
    part: str,
    model: Path,
    words: Path,
    heard: Path,
    out: Path,
    tuned: Mapping[str, float],
    tell: Tell,
    seed: int = 0,
) -> dict[str, Any]:
    """Adapt the network in a packed file to every speaker of every test set by the lists in ``heard``.

    ``words`` holds the lists of the first pass, ``heard`` the same, rescored or not.  Writes the new
    lists, their errors and every speaker's vectors into ``out``; WER before and after, MAPSSWE of the two
    passes, and parameters a speaker.
    """
    settings, saved = place.recipe.lhuc, load_acoustic(model)
    network, decoder = saved.model, hybrid.make_decoder(place, part, tuned)
    hearing = hybrid.Hearing.of(place, model)  # vectors are trained in torch, whatever then hears with them
    packed: Any = hearing.network
    length = hybrid.list_length(place, model.parent.name)
    phone_lm = hybrid.make_phone_lm(place, part)
    denominator = denominator_graph(phone_lm, saved.units.pdf_map)

    def spell(said: Sequence[str]) -> Graph:
        return numerator_graph([place.lexicon.prons[word] for word in said], phone_lm, saved.units.pdf_map)

    training = Training(settings.epochs, settings.lr, weight_decay=0.0, warmup=0.0, seed=seed)
    layers = list(settings.layers) or network.hidden_units()
    lhuc = attach_lhuc_(network, layers)
    sets: dict[str, Any] = {}
    for name in place.test_ids(part):
        listening = hybrid.listening(place, part, name)
        store, first = listening.stores[name], read_nbest(words / f"{name}.nbest.jsonl")
        graphs = supervision(read_nbest(heard / f"{name}.nbest.jsonl"), settings.hyps, spell)
        by_speaker: dict[str, list[NBest]] = {}
        for entry in first:
            by_speaker.setdefault(store.speakers[store.place[entry.id]], []).append(entry)
        second, vectors = {}, {}
        for done, (speaker, entries) in enumerate(by_speaker.items(), 1):
            lhuc.load_()
            ids = [entry.id for entry in entries]
            known = {utt_id: graphs[utt_id] for utt_id in ids if utt_id in graphs}
            task = replace(
                listening, denominator=denominator, numerators=known, stores={"train": store, name: store},
                ids={"train": list(known), name: ids},
            )  # fmt: skip
            if known:
                fit_(network, task, NoCompression(), training)
            vectors[speaker] = lhuc.state()
            if hearing.engine == "torch":
                adapted = task.logits(network, name)
            else:
                own = {layer: r.cpu().numpy() for layer, r in vectors[speaker].items()}
                adapted = task.heard(partial(packed.logits, lhuc=own), name)
            for utt_id, logits in adapted.items():
                hyps = decoder.nbest(logits, length) if length > 1 else [decoder.best(logits)]
                ref = store.texts[store.place[utt_id]]
                second[utt_id] = to_nbest(utt_id, hyps, ref, decoder.acoustic_scale, decoder.word_penalty)
            tell(done, len(by_speaker), f"{name}: speakers")
        lists = [second[entry.id] for entry in first]
        errors = errors_of(store, lists)
        write_nbest(out / f"{name}.nbest.jsonl", lists)
        write_atomic(out / f"{name}.errors.jsonl", to_jsonl(errors))
        with atomic(out / f"{name}.lhuc.pt") as temporary:
            torch.save(vectors, temporary)
        refs = [(e.ref or "").split() for e in first]
        before, after = ([e.hyps[0].split() for e in each] for each in (first, lists))
        found = mapsswe(refs, before, after)
        sets[name] = {
            "wer": wer(errors),
            "wer_first_pass": wer(errors_of(store, first)),
            "p": found.p,
            "better": found.better,
            "speakers": len(by_speaker),
        }
    parameters = lhuc.numel
    detach_lhuc_(network, lhuc)
    return {"sets": sets, "parameters_a_speaker": parameters, "engine": hearing.engine}


def supervision(
    lists: Iterable[NBest], hyps: int, spell: Callable[[Sequence[str]], Graph]
) -> dict[str, Graph]:
    """What may have been said in each utterance: its ``hyps`` best hypotheses, by the list's totals.

    ``spell`` makes the numerator of words.  Left out: utterances without a word, hypotheses that the phone
    n-gram does not allow.
    """
    found: dict[str, Graph] = {}
    for entry in lists:
        ways = zip(entry.hyps[:hyps], entry.totals or entry.scores, strict=False)
        spelled = [(spell(hyp.split()), total) for hyp, total in ways if hyp]
        spelled = [(graph, total) for graph, total in spelled if graph.n_arcs]
        if spelled:
            totals = torch.tensor([total for _, total in spelled], dtype=torch.float64)
            found[entry.id] = any_of([graph for graph, _ in spelled], totals.log_softmax(0).tolist())
    return found
