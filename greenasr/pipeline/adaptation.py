"""LHUC adaptation in two passes: what a speaker may have said teaches the network that speaker's voice.

    1. recognise the speaker's utterances                                   h_1 … h_K, costs g of the graph
    2. r <- argmin_r L_LF-MMI(logits_r; p_num = Σ_k P_k p_num(h_k)),        P_k = exp(-g_k / scale) / Σ
       everything but r frozen; recognise again

No transcript is used.  With K = 1 an error of the first pass is learnt as if it were the truth; with more the
sound decides again at every step.  GREEN §4.4; Manohar et al. 2018 for the lists; `greenasr.models.lhuc`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from greenasr.decode.wfst import Decoder, to_nbest
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
    out: Path,
    tuned: Mapping[str, float],
    tell: Tell,
    seed: int = 0,
) -> dict[str, Any]:
    """Adapt the network in a packed file to every speaker of every test set; ``words`` holds the first pass.

    Writes the new lists, their errors and every speaker's vectors into ``out``; WER before and after, MAPSSWE
    of the two passes, and parameters a speaker.
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
        by_speaker: dict[str, list[NBest]] = {}
        for entry in first:
            by_speaker.setdefault(store.speakers[store.place[entry.id]], []).append(entry)
        second, vectors = {}, {}
        for done, (speaker, entries) in enumerate(by_speaker.items(), 1):
            lhuc.load_()
            ids = [entry.id for entry in entries]
            heard = replace(listening, ids={name: ids}).logits(network, name)
            graphs = supervision(decoder, heard, settings.hyps, spell)
            task = replace(
                listening, denominator=denominator, numerators=graphs, stores={"train": store, name: store},
                ids={"train": list(graphs), name: ids},
            )  # fmt: skip
            if graphs:
                fit_(network, task, NoCompression(), training)
            vectors[speaker] = lhuc.state()
            if hearing.engine == "torch":
                heard = task.logits(network, name)
            else:
                own = {layer: r.cpu().numpy() for layer, r in vectors[speaker].items()}
                heard = task.heard(partial(packed.logits, lhuc=own), name)
            for utt_id, logits in heard.items():
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
    decoder: Decoder, logits: Mapping[str, Any], hyps: int, spell: Callable[[Sequence[str]], Graph]
) -> dict[str, Graph]:
    """What may have been said in each utterance: ``hyps`` ways, likelier where the graph costs less.

    ``logits`` (T', C) by id; ``spell`` makes the numerator of words.  Left out: utterances without a word,
    hypotheses that the phone n-gram does not allow.
    """
    found: dict[str, Graph] = {}
    for utt_id, values in logits.items():
        said = decoder.nbest(values, hyps) if hyps > 1 else [decoder.best(values)]
        ways = [(spell(hyp.words), hyp.cost(0.0, decoder.word_penalty)) for hyp in said if hyp.words]
        ways = [(graph, cost) for graph, cost in ways if graph.n_arcs]
        if ways:
            costs = torch.tensor([cost for _, cost in ways], dtype=torch.float64) / decoder.acoustic_scale
            found[utt_id] = any_of([graph for graph, _ in ways], (-costs).log_softmax(0).tolist())
    return found
