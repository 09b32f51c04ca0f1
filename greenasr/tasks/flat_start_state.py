"""What one pass of a flat start hands to the next, in memory and in a file.

    gmm, loop probabilities, alignments, tree, figures of the passes so far

The file is one npz, replaced after every pass; ``key`` names the settings, lexicon and utterances it came
from, so that no other run goes on with it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from greenasr.data.files import atomic
from greenasr.decode.align import monophone_table
from greenasr.decode.alignment import N_STATES, Alignment
from greenasr.decode.tree import Tree
from greenasr.models.gmm import Gmm

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pass:
    """Figures of one pass, before its M-step.

    ``logprob`` is the mean log likelihood of a frame given its pdf, ``silence`` the share of frames in
    silence, ``changed`` the share whose state a new alignment changed (0 where there was none).
    """

    stage: str
    number: int
    gaussians: int
    logprob: float
    silence: float
    changed: float


@dataclass(frozen=True, eq=False)
class State:
    """All that a pass hands to the next."""

    gmm: Gmm
    loop: Floats
    alignments: dict[str, Alignment]
    tree: Tree | None
    passes: tuple[Pass, ...]

    @property
    def table(self) -> npt.NDArray[np.int32]:
        """The pdf of [left, phone, state], (P + 1, P, 3)."""
        return monophone_table(len(self.loop)) if self.tree is None else self.tree.table()


def stay_probs(alignments: Iterable[Alignment], n_phones: int) -> Floats:
    """Probability of staying in each state, (P, 3), from how often paths leave it."""
    frames, visits = np.zeros(n_phones * N_STATES), np.zeros(n_phones * N_STATES)
    for one in alignments:
        code = one.phone * N_STATES + one.state
        frames += np.bincount(code, minlength=len(frames))
        visits += np.bincount(code[np.append(True, one.state[1:] != one.state[:-1])], minlength=len(frames))
    return np.clip((frames - visits + 1.5) / (frames + 2), 0.05, 0.99).reshape(n_phones, N_STATES)


def save_state(path: Path, key: str, state: State) -> None:
    """Write the state of a run known by ``key`` whole or not at all."""
    codes = [a.phone * N_STATES + a.state for a in state.alignments.values()]
    note = {
        "key": key,
        "passes": [asdict(p) for p in state.passes],
        "tree": state.tree.to_json() if state.tree else None,
        "utt_id": list(state.alignments),
        "frames": [len(c) for c in codes],
        "logprob": [a.logprob for a in state.alignments.values()],
    }
    with atomic(path) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {f"gmm_{name}": value for name, value in state.gmm.arrays().items()}
        code = np.concatenate(codes).astype(np.uint16)
        np.savez(file, note=np.array(json.dumps(note)), loop=state.loop, code=code, **arrays)


def read_state(path: Path, key: str) -> State:
    """What `save_state` wrote; ValueError where it is damaged or another run's."""
    try:
        with open(path, "rb") as whole, np.load(whole) as file:
            arrays = {name: file[name] for name in file.files}
        note = json.loads(str(arrays["note"]))
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        raise ValueError(f"{path}: damaged ({error}). Remove it to begin anew.") from None
    if note["key"] != key:
        raise ValueError(
            f"{path}: a flat start of other settings, lexicon or utterances. "
            "Remove it, or choose another folder."
        )
    codes = np.split(arrays["code"].astype(np.int64), np.cumsum(note["frames"]))[:-1]
    rows = zip(note["utt_id"], codes, note["logprob"], strict=True)
    return State(
        Gmm.from_arrays({name[4:]: value for name, value in arrays.items() if name.startswith("gmm_")}),
        arrays["loop"],
        {u: Alignment(c // N_STATES, c % N_STATES, logprob) for u, c, logprob in rows},
        Tree.from_json(note["tree"]) if note["tree"] else None,
        tuple(Pass(**p) for p in note["passes"]),
    )
