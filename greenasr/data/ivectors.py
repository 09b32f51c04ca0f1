"""I-vectors: how a speaker's sounds differ from everybody's, as one vector of 100 dimensions.

    m_c(w) = m_c + T_c w,   w ~ N(0, I)                       the speaker's mean of Gaussian c
    n_c = Σ_t γ_tc,   f_c = Σ_t γ_tc (x_t - m_c)              statistics; γ from the background model
    L = I + Σ_c n_c T_cᵀ Σ_c⁻¹ T_c                            precision of w, given what was heard
    E[w] = L⁻¹ Σ_c T_cᵀ Σ_c⁻¹ f_c                             the i-vector

Dehak et al. 2011, "Front-end factor analysis for speaker verification".  As in Kaldi's
ivector-extract-online2, γ is scaled by 0.1, since neighbouring frames tell the same, and online vectors come
every 10 frames from the past alone.  Features are taken before CMVN: their mean is part of what is sought.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from greenasr.data.features import Feats
from greenasr.data.files import atomic
from greenasr.data.ubm import Ubm

if TYPE_CHECKING:
    from greenasr.data.feature_store import FeatureStore

FORMAT = "greenasr ivectors 1"
ROWS = 128  # utterances whose (D, D) posteriors are held at once


@dataclass(frozen=True)
class IVectorSettings:
    """Sizes and scales; ``max_count`` > 0 makes the prior grow with what exceeds it (long utterances)."""

    dim: int = 100
    gaussians: int = 256
    full: bool = False
    ubm_iterations: int = 20
    iterations: int = 10
    posterior_scale: float = 0.1
    max_count: float = 0.0
    max_frames: int = 500_000

    def __post_init__(self) -> None:
        """Refuse sizes that mean nothing."""
        if min(self.dim, self.gaussians, self.ubm_iterations, self.iterations, self.max_frames) < 1:
            raise ValueError(f"{self}: sizes and iterations are 1 or more.")
        if not 0 < self.posterior_scale <= 1 or self.max_count < 0:
            raise ValueError(f"{self}: posterior_scale lies in 0 … 1, max_count is zero or more.")


@dataclass(frozen=True, eq=False)
class Stats:
    """Of U utterances: ``counts`` (U, C) and ``sums`` Σ γ x (U, C, F), float64, before centring."""

    counts: Tensor
    sums: Tensor

    def grouped(self, groups: Sequence[int]) -> Stats:
        """Summed over utterances of one group, e.g. a speaker; group ids 0 … G - 1, (U,) -> G utterances."""
        index, n = torch.tensor(groups), max(groups) + 1
        return Stats(
            self.counts.new_zeros(n, *self.counts.shape[1:]).index_add_(0, index, self.counts),
            self.sums.new_zeros(n, *self.sums.shape[1:]).index_add_(0, index, self.sums),
        )


@dataclass(frozen=True, eq=False)
class IVectorExtractor:
    """``ubm`` for γ, then the model: ``means`` (C, F), ``covs`` as the ubm's, ``loadings`` T (C, F, D)."""

    settings: IVectorSettings
    ubm: Ubm
    means: Tensor
    covs: Tensor
    loadings: Tensor

    @cached_property
    def weighted(self) -> tuple[Tensor, Tensor]:
        """Σ_c⁻¹ T_c (C, F, D) and T_cᵀ Σ_c⁻¹ T_c (C, D, D)."""
        if self.covs.dim() == 3:
            right = torch.linalg.solve(self.covs, self.loadings)
        else:
            right = self.loadings / self.covs[:, :, None]
        return right, self.loadings.mT @ right

    def stats(self, feats: Feats | Tensor) -> Stats:
        """Statistics of one utterance before CMVN, (T, F) -> (1, C), (1, C, F), scaled."""
        return self._stats_of_blocks(torch.as_tensor(feats), len(feats))

    def _stats_of_blocks(self, feats: Tensor, length: int) -> Stats:
        """Statistics of every ``length`` frames, the last block perhaps shorter."""
        gamma = self.ubm.posteriors(feats)[0] * self.settings.posterior_scale
        short = -len(feats) % max(1, length)
        gamma, x = (torch.nn.functional.pad(each.double(), (0, 0, 0, short)) for each in (gamma, feats))
        blocks = gamma.view(-1, length, gamma.shape[1])
        return Stats(blocks.sum(1), blocks.mT @ x.view(len(blocks), length, -1))

    def posterior(self, stats: Stats) -> tuple[Tensor, Tensor, Tensor]:
        """E[w] (U, D), precision L (U, D, D) and Σ_c T_cᵀ Σ_c⁻¹ f_c (U, D)."""
        right, quadratic = self.weighted
        centred = stats.sums - stats.counts[:, :, None] * self.means
        linear = centred.flatten(1) @ right.flatten(0, 1)
        prior = torch.ones(len(linear), dtype=linear.dtype)
        if self.settings.max_count > 0:
            prior = (stats.counts.sum(1) / self.settings.max_count).clamp(min=1)
        dim = quadratic.shape[1]
        precision = (stats.counts @ quadratic.flatten(1)).view(-1, dim, dim)
        precision = precision + torch.diag_embed(prior[:, None].expand(-1, dim))
        return torch.linalg.solve(precision, linear[:, :, None])[:, :, 0], precision, linear

    def extract(self, stats: Stats) -> NDArray[np.float32]:
        """I-vectors of U utterances, or of speakers when `Stats.grouped`, (U, D)."""
        parts = zip(stats.counts.split(ROWS), stats.sums.split(ROWS), strict=True)
        return torch.cat([self.posterior(Stats(*part))[0] for part in parts]).float().numpy()

    def __call__(self, feats: Feats | Tensor) -> NDArray[np.float32]:
        """The i-vector of one utterance before CMVN, (T, F) -> (D,)."""
        return self.extract(self.stats(feats))[0]

    def online(
        self, feats: Feats | Tensor, period: int = 10, before: Stats | None = None
    ) -> NDArray[np.float32]:
        """Row p is the i-vector of the frames up to p·period and no later, (T, F) -> (ceil(T/period), D).

        ``before`` is what the speaker said earlier, one row of statistics: row 0 then starts from there.
        """
        feats = torch.as_tensor(feats)
        first, rest = feats[:1], feats[1 : (len(feats) - 1) // period * period + 1]
        blocks = [self._stats_of_blocks(first, 1)]
        if len(rest):
            blocks.append(self._stats_of_blocks(rest, period))
        if before is not None:
            blocks[0] = Stats(blocks[0].counts + before.counts, blocks[0].sums + before.sums)
        counts = torch.cat([block.counts for block in blocks]).cumsum(0)
        return self.extract(Stats(counts, torch.cat([block.sums for block in blocks]).cumsum(0)))

    def save(self, path: str | Path) -> None:
        """Write everything to one npz file, whole or not at all."""
        with atomic(path) as temporary:
            np.savez(
                temporary,
                head=np.array(json.dumps({"format": FORMAT, "settings": asdict(self.settings)})),
                weights=self.ubm.weights.numpy(),
                ubm_means=self.ubm.means.numpy(),
                ubm_covs=self.ubm.covs.numpy(),
                means=self.means.numpy(),
                covs=self.covs.numpy(),
                loadings=self.loadings.numpy(),
            )

    @classmethod
    def load(cls, path: str | Path) -> IVectorExtractor:
        """Read what `save` wrote; ValueError for another or a damaged file."""
        arrays = _read_npz(path)
        head = json.loads(str(arrays["head"])) if "head" in arrays else {}
        if head.get("format") != FORMAT:
            raise ValueError(f"{path}: not an i-vector extractor ('{FORMAT}'): train one and give its file.")
        tensor = {name: torch.from_numpy(a) for name, a in arrays.items() if name != "head"}
        ubm = Ubm(tensor["weights"], tensor["ubm_means"], tensor["ubm_covs"])
        settings = IVectorSettings(**head["settings"])
        return cls(settings, ubm, tensor["means"], tensor["covs"], tensor["loadings"])


def vectors_of(
    extractor: IVectorExtractor,
    store: FeatureStore,
    by: Literal["utterance", "speaker"] = "utterance",
    ids: Sequence[str] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """An i-vector (D,) for every utterance of a store, by id: its own, or that of all its speaker said.

    With ``ids`` of these alone, and a speaker has said no more than these.  Vectors by utterance vary more
    and so make better training data; by speaker they are steadier.
    """
    chosen = store.ids if ids is None else tuple(ids)
    if by == "utterance":
        return {utt_id: extractor(store.raw(utt_id)) for utt_id in chosen}
    if by != "speaker":
        raise ValueError(f"i-vectors by '{by}': expected 'utterance' or 'speaker'.")
    speaker = {utt_id: store.speakers[store.place[utt_id]] for utt_id in chosen}
    heard: dict[str, Stats] = {}
    for utt_id, name in speaker.items():
        found, before = extractor.stats(store.raw(utt_id)), heard.get(name)
        heard[name] = Stats(before.counts + found.counts, before.sums + found.sums) if before else found
    vectors = {name: extractor.extract(stats)[0] for name, stats in heard.items()}
    return {utt_id: vectors[name] for utt_id, name in speaker.items()}


def save_vectors(path: str | Path, vectors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write i-vectors by utterance (or speaker) id to one npz file, (D,) each, whole or not at all."""
    if not vectors:
        raise ValueError(f"{path}: no i-vectors to write.")
    with atomic(path) as temporary:
        np.savez(temporary, ids=np.array(list(vectors)), vectors=np.stack(list(vectors.values())))


def load_vectors(path: str | Path) -> dict[str, NDArray[np.float32]]:
    """Read what `save_vectors` wrote, id -> (D,)."""
    arrays = _read_npz(path)
    if sorted(arrays) != ["ids", "vectors"] or len(arrays["ids"]) != len(arrays["vectors"]):
        raise ValueError(
            f"{path}: not a file of i-vectors, which holds 'ids' and 'vectors': extract them again."
        )
    return {str(name): row for name, row in zip(arrays["ids"], arrays["vectors"], strict=True)}


def _read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file; nothing in it is unpickled."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, ValueError, EOFError, TypeError) as error:
        raise ValueError(f"{path}: not an npz file, or cut short ({error}): make it again.") from error
