"""I-vectors as a stage: what the network is told about the speaker, beside the features.

    training speech ─▶ extractor.npz ─▶ one vector an utterance of it, one a speaker of each test set

Every part has an extractor of its own, so that a fold's speakers were heard by none of its models.  Training
vectors are an utterance's, copies at other speeds included, since they vary more; a test speaker's are of all
that the speaker says in the set, without any transcript.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from greenasr.data.ivector_training import train_ivectors
from greenasr.data.ivectors import IVectorSettings, save_vectors, vectors_of
from greenasr.pipeline.hybrid import Place
from greenasr.pipeline.place import ALL, Tell

MOST = 5_000  # utterances whose statistics are held at once in training


def make_ivectors(place: Place, part: str, folder: Path, tell: Tell) -> dict[str, Any]:
    """Train a part's extractor and take the vectors of all that its networks train on and are tested on.

    Writes ``extractor.npz``, and ``<set>.npz`` for the training split and each set.
    """
    settings, corpus = place.recipe.features, place.recipe.corpus
    store, ids = place.store(corpus.train), place.training_ids(part)
    chosen = random.Random(0).sample(ids, min(MOST, len(ids)))
    extractor = train_ivectors(
        (store.raw(utt_id) for utt_id in chosen),
        IVectorSettings(dim=settings.ivectors, gaussians=settings.ivector_gaussians),
        torch.Generator().manual_seed(0),
        lambda stage, done, of, logprob: tell(done, of, f"{stage}, {logprob:.2f} nats a frame"),
    )
    extractor.save(folder / "extractor.npz")
    tell(0, 1, "vectors")
    save_vectors(folder / f"{corpus.train}.npz", vectors_of(extractor, store, ids=ids))
    sets = place.test_ids(part)
    if part == ALL and corpus.dev in place.splits:
        sets[corpus.dev] = list(place.store(corpus.dev).ids)
    for name, heard in sets.items():
        of = place.store(name) if part == ALL else store
        save_vectors(folder / f"{name}.npz", vectors_of(extractor, of, "speaker", heard))
    tell(1, 1, "vectors")
    return {"dim": settings.ivectors, "gaussians": settings.ivector_gaussians, "utterances": len(chosen)}
