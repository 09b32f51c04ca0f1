"""Shipped recipes of corpora that are not: their layouts in miniature, read as the recipe says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from greenasr.data.corpora import load_cuts
from greenasr.data.files import read_json
from greenasr.decode.alignment import read_alignments
from greenasr.decode.arpa import read_arpa, write_arpa
from greenasr.decode.kneser_ney import kneser_ney
from greenasr.models.quartznet import QuartzNet
from greenasr.models.rnnt import Rnnt, RnntConfig
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig
from greenasr.pipeline import green
from greenasr.pipeline.ctc import Place as CtcPlace
from greenasr.pipeline.ctc_models import load_ctc
from greenasr.pipeline.ctc_recipe import load_ctc_recipe
from greenasr.pipeline.hybrid import Place, decoding_graph, make_task
from greenasr.pipeline.hybrid_recipe import load_hybrid
from greenasr.pipeline.transducer import Place as TransducerPlace
from greenasr.pipeline.transducer_models import load_transducer
from greenasr.pipeline.transducer_recipe import load_transducers
from greenasr.report.green_paper import PARAMETERS, TABLE2, TABLE3, parsed, quoted_system
from greenasr.score.errors import read_errors

Call = Callable[..., Any]
Say = Callable[..., Any]
RECIPES = Path(__file__).parents[2] / "recipes"
SMALL: Mapping[str, Mapping[str, Any]] = {  # of networks and search: what is read stays as shipped
    "features": {"bins": 20, "ivectors": 3, "ivector_gaussians": 4},
    "align": {"passes": 3, "gaussians": 24, "leaves": 12},
    "model": {"layers": 2, "dim": 16, "bottleneck": 6, "strides": [1, 3], "prefinal": 8, "dropout": 0.0},
    "chain": {"frames": 800},
    "train": {"epochs": 1, "lr": 1e-2},
    "decode": {"tune": False, "beam": 8.0, "nbest": 2},
}
SMALL_RNNT: Mapping[str, Mapping[str, Any]] = {
    "features": {"bins": 20},
    "labels": {"size": 14},
    "model": {"encoder_layers": 1, "predictor_layers": 1, "embedding_dim": 8}
    | dict.fromkeys(("encoder_dim", "predictor_dim"), 16),
    "task": {"frames": 800, "freq_width": 2, "time_width": 3},
    "train": {"epochs": 1, "lr": 1e-2},
    "compress": {"epochs": 1},
    "decode": {"beam": 2, "nbest": 2},
}
SMALL_QUARTZNET: Mapping[str, Mapping[str, Any]] = {
    "features": {"bins": 20},
    "model": {"repeat": 1, "width": 8},
    "task": {"frames": 800, "freq_width": 2, "time_width": 3},
    "train": {"epochs": 1, "lr": 1e-2},
    "compress": {"epochs": 1},
    "decode": {"order": 2},
}
STAGES = "all/align,all/ngram,all/ivectors,all/seed0/float/words"


def shrunk(corpus: str, folder: Path, name: str = "green", small: Mapping[str, Any] = SMALL) -> Path:
    """A shipped recipe with the keys of ``small`` in place of its own."""
    section, lines, left = "", [], {(s, key) for s, keys in small.items() for key in keys}
    for line in (RECIPES / corpus / f"{name}.toml").read_text().splitlines():
        if found := re.match(r"\[+(\S+?)\]+$", line):
            section = found[1]
        key = line.partition(" = ")[0]
        if key in small.get(section, {}):
            line = f"{key} = {json.dumps(small[section][key])}"
            left.remove((section, key))
        lines.append(line)
    assert not left, f"the recipe lacks {left}"
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines))
    return path


def run(corpus: str, data: Path, folder: Path, greenasr: Call, stages: str = STAGES) -> Place:
    """What the command leaves when it is given the miniature."""
    recipe = shrunk(corpus, folder)
    called = greenasr("table", recipe, "--data", data, "--out", folder / "run", "--only", stages)
    assert called.code == 0, called.err
    return Place(load_hybrid(recipe), folder / "run", data)


@dataclass
class Telephone:
    """Conversations being recorded: two sides, each with its pitch, that take turns."""

    say: Say
    length: float = 0.0
    turns: list[tuple[str, float, float, list[str]]] = field(default_factory=list)
    sounds: list[tuple[str, float, Any]] = field(default_factory=list)

    def says_(self, side: str, words: Sequence[str], seed: int) -> None:
        """The next turn; turns last as long as they take."""
        sound = self.say(words, 0.9 if side == "A" else 1.1, seed, 8_000)
        end = self.length + len(sound) / 8_000
        self.turns.append((side, self.length, end, list(words)))
        self.sounds.append((side, self.length, sound))
        self.length = end + 0.3

    def write(self, path: Path) -> None:
        """SPHERE as the LDC's: 8 kHz, two channels, μ-law."""
        data = np.zeros((round(8_000 * self.length), 2), np.float32)
        for side, start, sound in self.sounds:
            first = round(8_000 * start)
            data[first : first + len(sound), "AB".index(side)] = sound
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, data, 8_000, "ULAW", format="NIST")


def recorded(say: Say, turns: int, seed: int) -> Telephone:
    draw, call = np.random.default_rng(seed), Telephone(say)
    for turn in range(turns):
        words = [str(word) for word in draw.choice(["go", "stop", "left"], 3)]
        call.says_("AB"[turn % 2], words, 100 * seed + turn)
    return call


@pytest.fixture(scope="module")
def ldc(tmp_path_factory: pytest.TempPathFactory, say: Say) -> Path:
    """Three conversations to train on, and one of each collection of the test sets, in releases."""
    data = tmp_path_factory.mktemp("ldc")
    transcripts = data / "swb_ms98_transcriptions"
    for seed, number in enumerate((2001, 2005, 2028)):
        call = recorded(say, 16, seed)
        call.write(data / "LDC97S62" / "swb1_d1" / "data" / f"sw0{number}.sph")
        folder = transcripts / f"{number}"[:2] / f"{number}"
        folder.mkdir(parents=True)
        for side in "AB":
            name, lines = f"sw{number}{side}-ms98-a", ["0.000000 0.010000 [silence]"]
            for who, start, end, words in call.turns:
                marked = [*words[:-1], f"[laughter-{words[-1]}]"] if words[-1] == "go" else words
                text = " ".join(f"{w}_1" if w == "left" else w for w in marked)
                if who == side:
                    lines.append(f"{start:.6f} {end:.6f} {text} [noise] <b_aside>")
            (folder / f"{name}-trans.text").write_text(
                "".join(f"{name}-{i:04d} {line}\n" for i, line in enumerate(lines, 1))
            )
            (folder / f"{name}-word.text").write_text(f"{name}-0001 0.000000 0.010000 [silence]\n")
    (transcripts / "AAREADME.text").write_text("The Mississippi State transcripts\n")
    (transcripts / "sw-ms98-dict.text").write_text(
        "# Mississippi State\n\ngo aa b\ngo ax b\nstop b s\n[laughter-go] aa b\nleft_1 s aa\n[silence] sil\n"
    )
    hub5, rt02 = "LDC2002T43/2000_hub5_eng_eval_tr/reference/", "LDC2004S11/references/eval02/english/cts/"
    rt03, audio03 = "LDC2007S10/data/references/eval03/english/cts/", "LDC2007S10/data/audio/eval03/english/"
    tests = [
        ("en_4156", "LDC2002S09/hub5e_00/english", hub5 + "hub5e00.english.000405.stm", "AB"),
        ("sw_4390", "LDC2002S09/hub5e_00/english", hub5 + "hub5e00.english.000405.stm", "AB"),
        ("sw_30003", "LDC2004S11/audio/eval02/english/cts", rt02 + "sw_30003.stm", "12"),
        ("fsh_60262", audio03 + "cts", rt03 + "fsh_60262.stm", "12"),
        ("sw_45097", audio03 + "cts", rt03 + "sw_45097.stm", "12"),
    ]
    for seed, (name, audio, stm, channels) in enumerate(tests, 10):
        call = recorded(say, 4, seed)
        call.write(data / audio / f"{name}.sph")
        (data / stm).parent.mkdir(parents=True, exist_ok=True)
        with open(data / stm, "a") as file:
            file.write(';; CATEGORY "0" "" ""\n')
            for side, start, end, words in call.turns:
                channel, said = channels["AB".index(side)], " ".join(words).upper()
                file.write(
                    f"{name} {channel} {name}_{side} {start:.2f} {end:.2f} <O,M> {said} (%HESITATION)\n"
                )
            file.write(f"{name} {channels[0]} inter_segment_gap 0.00 0.10 <O,M>\n")
    return data


@pytest.fixture(scope="module")
def switchboard(ldc: Path, tmp_path_factory: pytest.TempPathFactory, greenasr: Call) -> Place:
    return run("switchboard", ldc, tmp_path_factory.mktemp("switchboard"), greenasr)


@pytest.fixture(scope="module")
def openslr(tmp_path_factory: pytest.TempPathFactory, say: Say) -> Path:
    """LibriSpeech beside its lexicon and its 3-gram; speakers, chapters and utterances numbered as there."""
    data = tmp_path_factory.mktemp("openslr")
    splits = {"train-clean-100": (19, 26, 27), "dev-clean": (84,), "dev-other": (116,)}
    splits |= {"train-clean-360": (14,), "train-other-500": (20,), "test-clean": (61,), "test-other": (367,)}
    for split, speakers in splits.items():
        for speaker in speakers:
            chapter, draw = 100 + speaker, np.random.default_rng(speaker)
            folder = data / "LibriSpeech" / split / str(speaker) / str(chapter)
            folder.mkdir(parents=True)
            lines = []
            for n in range(8 if "train" in split else 3):
                words = [str(word) for word in draw.choice(["go", "stop", "left"], 3)]
                utt_id = f"{speaker}-{chapter}-{n:04d}"
                soundfile.write(folder / f"{utt_id}.flac", say(words, 1 + speaker / 2000, n), 16_000)
                said = [*words[:2], "oh" if n == 7 else words[2]]  # which the lexicon lacks
                lines.append(f"{utt_id} {' '.join(said).upper()}\n")
            (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    (data / "LibriSpeech" / "SPEAKERS.TXT").write_text("; ID |SEX| SUBSET |MINUTES| NAME\n")
    (data / "librispeech-lexicon.txt").write_text(
        "GO\tAA1 B\nGO\tAA0 B\nSTOP\tB S\nLEFT\tS AA1\nABACUS\tAA1 B AA0 S\n"
    )
    text = "GO STOP LEFT\nSTOP GO GO\nLEFT ABACUS STOP\nLEFT LEFT GO\nUNHEARD OF STOP\n"
    model = kneser_ney([line.split() for line in text.splitlines()], 3).lm
    write_arpa(model, data / "3-gram.pruned.3e-7.arpa.gz")
    return data


@pytest.fixture(scope="module")
def librispeech(openslr: Path, tmp_path_factory: pytest.TempPathFactory, greenasr: Call) -> Place:
    return run("librispeech", openslr, tmp_path_factory.mktemp("librispeech"), greenasr)


def check_aligned(place: Place) -> None:
    """Every training utterance is aligned, frame for frame, and the chain has its targets and graphs."""
    store = place.store(place.recipe.corpus.train)
    alignments, phones = read_alignments(place.run / "all" / "align" / "alignments.npz")
    plain = [utt_id for utt_id in store.ids if not re.match(r"sp[\d.]+-", utt_id)]
    assert set(alignments) == set(plain) and len(store) == 3 * len(plain)
    for utt_id, alignment in alignments.items():
        assert sum(s.frames for s in alignment.segments) == store.frames[store.place[utt_id]]
    assert phones == place.lexicon.phones
    task, units = make_task(place, "all")
    assert set(task.targets) == set(store.ids) and 1 < units.pdf_map.n_pdfs <= 12
    assert place.ivectors("all", place.recipe.corpus.train)[plain[0]].shape == (3,)  # type: ignore[index]


def check_tested(place: Place) -> None:
    """Every test set of the recipe is in the table, the paper's average beside ours."""
    words = place.run / "all" / "seed0" / "float" / "words"
    for name in place.recipe.corpus.tests:
        assert [e.utt_id for e in read_errors(words / f"{name}.errors.jsonl")] == list(place.store(name).ids)
    lines = (place.run / "table.md").read_text().splitlines()
    header, _, row = [line for line in lines if line.startswith("|")][:3]
    assert all(f" {name} " in header for name in place.recipe.corpus.tests)
    assert " 15.5 " in row


def test_switchboards_releases_become_kaldis_splits_and_the_papers_test_sets(switchboard: Place) -> None:
    recipe, corpus = switchboard.recipe.corpus, switchboard.run / "corpus"
    assert set(switchboard.splits) == {recipe.train, recipe.dev, *recipe.tests}
    assert switchboard.tests == recipe.tests
    train = load_cuts(corpus / "train.cuts.jsonl.gz")
    assert len(train) + len(load_cuts(corpus / "dev.cuts.jsonl.gz")) == 3 * 16
    assert all(re.fullmatch(r"sw0\d{4}-[AB]_\d{6}-\d{6}", cut.id) for cut in train)
    said = {word for cut in train for word in cut.supervisions[0].text.split()}
    assert said == {"go", "stop", "left", "[noise]"}, "without the transcribers' marks"
    names = {
        name: {cut.id.split("-")[0] for cut in load_cuts(corpus / f"{name}.cuts.jsonl.gz")}
        for name in recipe.tests
    }
    assert names == {
        "eval2000.swbd": {"sw_4390"}, "eval2000.callhm": {"en_4156"}, "rt02": {"sw_30003"},
        "rt03.fsh": {"fsh_60262"}, "rt03.swbd": {"sw_45097"},
    }  # fmt: skip


def test_switchboards_dictionary_is_read_without_marks_and_its_noises_are_phones(switchboard: Place) -> None:
    prons = switchboard.lexicon.prons
    assert prons["go"] == (("aa", "b"), ("ax", "b")) and prons["left"] == (("s", "aa"),)
    assert prons["[noise]"] == (("@[noise]",),)
    assert set(prons) == {"go", "stop", "left", "[noise]"}


def test_switchboard_is_aligned_and_its_test_sets_recognised(switchboard: Place) -> None:
    check_aligned(switchboard)
    check_tested(switchboard)


def test_librispeechs_folders_become_splits_and_its_readers_speakers(librispeech: Place) -> None:
    recipe = librispeech.recipe.corpus
    assert set(librispeech.splits) == {recipe.train, recipe.dev, *recipe.tests}
    assert [len(librispeech.store(name)) for name in librispeech.tests] == [3, 3, 3]
    train = librispeech.store(recipe.train)
    assert {s for s in train.speakers if "-" not in s} == {"19", "26", "27"} and "19-119-0007" in train.ids


def test_librispeechs_lexicon_loses_its_stress_and_spells_what_it_lacks(librispeech: Place) -> None:
    prons = librispeech.lexicon.prons
    assert prons["GO"] == (("AA", "B"),), "AA1 and AA0 are one phone without stress"
    assert prons["OH"] == (("@o", "@h"),) and "ABACUS" in prons


def test_librispeech_is_decoded_with_its_own_trigram(librispeech: Place, openslr: Path) -> None:
    given = read_arpa(openslr / "3-gram.pruned.3e-7.arpa.gz")
    kept = read_arpa(librispeech.run / "all" / "ngram" / "lm.arpa.gz")
    assert kept.words == given.words and kept.counts == given.counts
    result = read_json(librispeech.run / "all" / "ngram" / "result.json")
    words = decoding_graph(librispeech, "all").words
    assert result["order"] == 3 and "ABACUS" in words and "UNHEARD" not in words


def test_librispeech_is_aligned_and_its_test_sets_recognised(librispeech: Place) -> None:
    check_aligned(librispeech)
    check_tested(librispeech)


@pytest.mark.parametrize("name", ["rnnt", "rnnt_addition"])
def test_both_set_ups_of_acosr_run_on_librispeechs_folders_from_speech_to_the_papers_table(
    name: str, openslr: Path, tmp_path: Path, greenasr: Call
) -> None:
    width = {} if name == "rnnt_addition" else {"joint_dim": 12}
    small = {**SMALL_RNNT, "model": {**SMALL_RNNT["model"], **width}}
    recipe = shrunk("librispeech", tmp_path, name, small)
    rows = ("float", "acosr-8", "acosr-6-published")
    only = ",".join(f"all/seed0/{row}/words" for row in rows)
    called = greenasr("table", recipe, "--data", openslr, "--out", tmp_path / "run", "--only", only)
    assert called.code == 0, called.err
    place = TransducerPlace(load_transducers(recipe), tmp_path / "run", openslr)
    assert place.tests == ("dev-clean", "dev-other", "test-clean", "test-other")
    train = "train-clean-100+train-clean-360+train-other-500"
    assert set(place.splits) == {train, *place.tests}
    assert len(place.store(train)) == 3 * (24 + 8 + 8), "at three speeds"
    home = place.run / "all" / "seed0"
    saved = load_transducer(home / "acosr-8" / "model.packed")
    assert saved.model.config.joint == ("addition" if name == "rnnt_addition" else "fc")
    assert saved.model.config.frames_joined == 3 and saved.units.tokenizer.size <= 14
    for row in rows:
        for test in place.tests:
            errors = read_errors(home / row / "words" / f"{test}.errors.jsonl")
            assert [e.utt_id for e in errors] == list(place.store(test).ids)
    lines = [line for line in (place.run / "table.md").read_text().splitlines() if line.startswith("|")]
    found = dict(zip(*([part.strip() for part in lines[k].split("|")] for k in (0, 3)), strict=True))
    if name == "rnnt":
        assert (found["paper test-other"], found["paper test-other rel. %"]) == ("22.36", "+0.31")
    assert found["paper WgtC %"] == ("99.3" if name == "rnnt" else "99.5")
    assert (place.run / "report.html").exists()


def test_quartznets_tables_run_on_librispeechs_folders_with_random_ternary_blocks(
    openslr: Path, tmp_path: Path, greenasr: Call
) -> None:
    recipe = shrunk("librispeech", tmp_path, "quartznet", SMALL_QUARTZNET)
    rows = ("float", "rt-15x5", "rt-15x5-acosr-8")
    only = ",".join([*(f"all/seed0/{row}/words" for row in rows), "all/seed0/rt-15x5/with-graph"])
    called = greenasr("table", recipe, "--data", openslr, "--out", tmp_path / "run", "--only", only)
    assert called.code == 0, called.err
    place = CtcPlace(load_ctc_recipe(recipe), tmp_path / "run", openslr)
    assert place.tests == ("dev-clean", "dev-other", "test-clean", "test-other")
    home = place.run / "all" / "seed0"
    ternary = load_ctc(home / "rt-15x5" / "model.packed").model
    kinds = [type(block.subs[0].pointwise).__name__ for block in ternary.blocks]
    assert kinds == ["Linear"] * 9 + [kinds[-1]] * 6 and kinds[-1] != "Linear"
    for row in rows:
        for test in place.tests:
            errors = read_errors(home / row / "words" / f"{test}.errors.jsonl")
            assert [e.utt_id for e in errors] == list(place.store(test).ids)
    lines = [line for line in (place.run / "table.md").read_text().splitlines() if line.startswith("|")]
    found = dict(zip(*([part.strip() for part in lines[k].split("|")] for k in (0, 3)), strict=True))
    assert (found["paper test-clean"], found["paper test-other"], found["paper M"]) == ("4.93", "14.21", "9")
    assert "dev-clean + graph" in found and (place.run / "report.html").exists()


def test_quartznets_of_the_recipe_have_the_papers_sizes() -> None:
    """19, 13 and 7 million; the paper's 9 of the ternary one are without its six blocks' trained skips."""
    recipe, sizes = load_ctc_recipe(RECIPES / "librispeech" / "quartznet.toml"), {}
    for row in recipe.rows:
        if row.method == "float":
            with torch.device("meta"):
                network = QuartzNet(recipe.settings_of(row, 29))
            sizes[row.name] = sum(p.numel() for p in network.parameters())
    assert [round(sizes[name] / 1e6) for name in ("float", "fp-10x5", "fp-5x5")] == [19, 13, 7]
    assert sizes["rt-15x5"] - 6 * 512 * 512 == pytest.approx(9.5e6, rel=0.01)


@pytest.mark.parametrize(("name", "size"), [("rnnt", 56.9e6), ("rnnt_addition", 78.9e6)])
def test_the_transducers_of_the_recipes_have_the_papers_sizes(name: str, size: float) -> None:
    """§4.1 says 56 to 60M parameters; Setup 2 has more by 10,000 outputs of both networks."""
    recipe = load_transducers(RECIPES / "librispeech" / f"{name}.toml")
    shape = {**recipe.model, "feat_dim": recipe.features.bins, "vocab": recipe.labels.size + 1}
    config = RnntConfig(**shape)  # type: ignore[arg-type]
    with torch.device("meta"):
        network = Rnnt(config)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(size, rel=1e-3)
    assert (config.encoder_layers, config.predictor_layers, config.dropout) == (5, 2, 0.3)
    assert config.encoder_dim == config.predictor_dim == 1024


@pytest.mark.parametrize(
    ("corpus", "lacks", "message"),
    [
        (
            "librispeech",
            "3-gram.pruned.3e-7.arpa.gz",
            r"3-gram.*gz: no such file, which \[decode\] arpa names",
        ),
        ("librispeech", "librispeech-lexicon.txt", r"librispeech-lexicon.txt"),
        ("librispeech", "LibriSpeech/test-other", r"LibriSpeech: no test set 'test-other', found dev-clean"),
        ("switchboard", "LDC2007S10", r"no test set 'rt03.fsh', found dev, train, eval2000, rt02"),
        ("switchboard", "swb_ms98_transcriptions", r"no split 'train', found eval2000, rt02, rt03"),
    ],
)
def test_what_a_recipe_needs_and_does_not_find_is_named_at_once(
    request: pytest.FixtureRequest, tmp_path: Path, greenasr: Call, corpus: str, lacks: str, message: str
) -> None:
    whole = request.getfixturevalue("ldc" if corpus == "switchboard" else "openslr")
    for path in whole.rglob("*"):
        name = path.relative_to(whole)
        if path.is_file() and not str(name).startswith(lacks):
            (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name).symlink_to(path)
    recipe = RECIPES / corpus / "green.toml"
    called = greenasr(
        "table", recipe, "--data", tmp_path / "data", "--out", tmp_path / "run", "--only", "corpus"
    )
    assert called.code == 2 and len(called.err.splitlines()) == 1
    assert re.search(message, called.err), called.err


def test_the_network_is_kaldis_tdnn_7q_with_the_papers_bottlenecks() -> None:
    """run_tdnn_7q.sh prints 21,356,836 parameters for bottlenecks of 192 and 6,034 pdfs."""
    recipe = load_hybrid(RECIPES / "switchboard" / "green.toml")

    def size(**changes: Any) -> int:
        inputs = {"feat_dim": recipe.features.bins, "ivector_dim": recipe.features.ivectors, "n_pdfs": 6_034}
        network = Tdnnf(TdnnfConfig(**{**recipe.model, **inputs, **changes}))
        return sum(p.numel() for p in network.parameters())

    assert size(bottleneck=192) == 21_356_836
    assert size() == pytest.approx(PARAMETERS["float"], rel=0.01)
    assert recipe.model["bottleneck"] in recipe.search.dims and recipe.search.target == 0


def test_every_row_of_the_papers_tables_is_in_the_recipe_with_its_figures() -> None:
    recipe = load_hybrid(RECIPES / "switchboard" / "green.toml")
    places = {"eval2000.swbd": 0, "eval2000.callhm": 1, "rt03.fsh": 2, "rt03.swbd": 3}  # in green_paper.SETS
    quoted = {parsed(row.name): row.paper for row in recipe.rows if row.paper}
    assert quoted.keys() == TABLE2.keys()
    for key, theirs in TABLE2.items():
        figures = {"wer": theirs.average, "mb": theirs.mb, "ratio": theirs.ratio}
        assert quoted[key] == figures | {name: theirs.wer[k] for name, k in places.items()}
    assert set(places) < set(recipe.corpus.tests)
    lines = [
        {"row": row, "lhuc": lhuc, "lm": "float" if row in ("float", "compact") else "low"}
        for row in recipe.lm.rows
        for lhuc in (False, *([True] if row in recipe.lhuc.rows else []))
    ]
    assert [found[0] for line in lines if (found := quoted_system(line))] == [1, 3, 2, 4, 5, 7, 6, 8]
    assert len(lines) == len(TABLE3)


def test_the_recipe_of_the_docs_can_be_loaded_and_has_the_stages_that_they_name(tmp_path: Path) -> None:
    page = (RECIPES.parent / "docs" / "hybrid.md").read_text()
    (tmp_path / "my.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    recipe = load_hybrid(tmp_path / "my.toml")
    stages = [stage.name for stage in green.stages(Place(recipe, tmp_path / "run", tmp_path))]
    assert [row.name for row in recipe.rows] == ["float", "compact", "hessian-4"]
    table = page.partition("| stage |")[2].partition("\n\n")[0]
    for name in re.findall(r"(?m)^\| `([^`]+)`", table):
        if name != "all/ivectors":  # the recipe has none
            pattern = name.replace("…", "all/seed0").replace("ROW", "hessian-4")
            assert pattern in stages, name
    for stages_asked in re.findall(r"--only (\S+)", page):
        assert stages_asked in stages
    for path in re.findall(r"`((?:recipes|pipeline|tasks|decode|models|data|compress)/[\w/]+\.\w+)`", page):
        assert (RECIPES.parent / path).exists() or (RECIPES.parent / "greenasr" / path).exists(), path
