"""Miniatures of every format become the same cuts; what is wrong with one is said in a line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greenasr.data.audio import samples
from greenasr.data.corpora import guess_kind, load_cuts, read_corpus, save_cuts, speaker, words

Tone = Callable[..., Path]  # writes a file of tones
Pitch = Callable[..., float]
Summary = Callable[[Any], tuple[str, str, list[str], float]]

HEADER = "utt_id\taudio\tstart_sample\tnum_samples\tspeaker\tsplit\ttext\n"


def kaldi_dir(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


@pytest.fixture
def summary(pitch: Pitch) -> Summary:
    """Id, speaker, words and the tone that is heard."""
    return lambda cut: (cut.id, speaker(cut), words(cut), round(pitch(samples(cut)), -1))


def test_a_tsv_manifest_gives_a_cut_set_a_split(tmp_path: Path, sound: Tone, summary: Summary) -> None:
    sound("audio/a.flac", 300, 700)
    sound("audio/b.flac", 1100)
    rows = [
        "u1\taudio/a.flac\t0\t16000\tann\ttrain\tTURN ON",
        "u2\taudio/a.flac\t16000\t16000\tann\ttrain\tTURN OFF",
        "u3\taudio/b.flac\t\t\tbob\ttest\tGO",
    ]
    (tmp_path / "manifest.tsv").write_text(HEADER + "\n".join(rows) + "\n")
    corpus = read_corpus(tmp_path)
    assert {split: [summary(cut) for cut in cuts] for split, cuts in corpus.items()} == {
        "train": [("u1", "ann", ["TURN", "ON"], 300), ("u2", "ann", ["TURN", "OFF"], 700)],
        "test": [("u3", "bob", ["GO"], 1100)],
    }
    assert list(read_corpus(tmp_path, splits=["test"])) == ["test"]
    with pytest.raises(ValueError, match=r"no split 'dev', expected some of train, test"):
        read_corpus(tmp_path, splits=["dev"])


def test_saved_cuts_come_back_and_are_the_same_bytes_twice(
    tmp_path: Path, sound: Tone, monkeypatch: pytest.MonkeyPatch, summary: Summary
) -> None:
    sound("a.wav", 300)
    (tmp_path / "m.tsv").write_text("utt_id\taudio\ttext\nu1\ta.wav\tGO\n")
    monkeypatch.chdir(tmp_path)
    cuts = read_corpus("m.tsv")["m"]  # by a relative path
    for name in ("a", "b"):
        save_cuts(tmp_path / "runs" / f"{name}.cuts.jsonl.gz", cuts)
    bytes_ = [(tmp_path / "runs" / f"{name}.cuts.jsonl.gz").read_bytes() for name in ("a", "b")]
    assert bytes_[0] == bytes_[1]
    monkeypatch.chdir("/")  # a run folder is used from anywhere
    (again,) = load_cuts(tmp_path / "runs" / "a.cuts.jsonl.gz")
    assert again == cuts[0] and summary(again) == ("u1", "u1", ["GO"], 300)


def test_loading_anything_else_than_cuts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.cuts.jsonl.gz"
    for line, message in (
        ('{"id": 3}', "a.cuts.jsonl.gz:1: not a cut of one utterance"),
        ('{"id": ', "a.cuts.jsonl.gz:1: not JSON"),
        ("[]", "a.cuts.jsonl.gz:1: found .*expected a JSON object"),
        ("", "a.cuts.jsonl.gz: no cuts in it"),
    ):
        path.write_bytes(gzip.compress(line.encode()))
        with pytest.raises(ValueError, match=message):
            load_cuts(path)
    with pytest.raises(FileNotFoundError):
        load_cuts(tmp_path / "none.jsonl.gz")


def test_kaldi_segments_choose_stretches_and_text_and_speakers_go_with_them(
    tmp_path: Path, sound: Tone, summary: Summary
) -> None:
    audio = sound("wav/r1.wav", 300, 700)
    kaldi_dir(
        tmp_path / "data" / "train",
        wav_scp=f"r1 {audio}\n",
        segments="u1 r1 0.0 1.0\nu2 r1 1.0 -1\n",
        text="u1 turn on\nu2\toff\n",
        utt2spk="u1 ann\nu2 ann\n",
    )
    kaldi_dir(tmp_path / "data" / "test", wav_scp="u3 wav/r1.wav\n", text="u3 go\n")
    corpus = read_corpus(tmp_path / "data")
    assert [summary(cut) for cut in corpus["train"]] == [
        ("u1", "ann", ["turn", "on"], 300),
        ("u2", "ann", ["off"], 700),
    ]
    assert [cut.duration for cut in corpus["test"]] == [2.0]
    assert speaker(corpus["test"][0]) == "u3"
    assert list(read_corpus(tmp_path / "data" / "train")) == ["train"]


def test_kaldi_pipes_that_unpack_a_file_are_that_file_and_others_are_never_run(
    tmp_path: Path, sound: Tone, pitch: Pitch
) -> None:
    sound("a.sph", 300, 900, rate=8_000, channels=2, format="NIST", subtype="ULAW")
    sound("b.flac", 700)
    folder = kaldi_dir(
        tmp_path / "train",
        wav_scp=f"u1 sph2pipe -f wav -p -c 2 {tmp_path}/a.sph |\nu2 flac -c -d -s {tmp_path}/b.flac |\n",
        text="u1 a\nu2 b\n",
    )
    assert [round(pitch(samples(cut)), -1) for cut in read_corpus(folder)["train"]] == [900, 700]
    for pipe in (
        f"sox {tmp_path}/b.flac -t wav - |",
        f"touch {tmp_path}/ran |",
        f"cat {tmp_path}/a | gzip -d |",
    ):
        kaldi_dir(tmp_path / "train", wav_scp=f"u1 {pipe}\n")
        with pytest.raises(ValueError, match=r"wav.scp:1: '.*' is a command, which is not run here"):
            read_corpus(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"segments": "u1 r1 0 9.0\n"}, r"text:1: .*'u1' ends at 9 s, but \S+a.wav ends at 1 s"),
        ({"segments": "u1 r1 2 3\n"}, r"'u1' ends at 3 s, but \S+a.wav ends at 1 s"),
        ({"segments": "u1 r1 0.5 0.5\n"}, r"'u1' goes from 0.5 to 0.5 s, which is no stretch"),
        ({"segments": "u1 r1 0.5 0.51\n"}, r"'u1' is 10 ms long, expected 25 or more"),
        ({"segments": "u1 r1 0.5\n"}, r"segments:1: found 'u1 r1 0.5', expected 'utterance recording start"),
        ({"segments": "u1 r2 0 1\n"}, r"segments:1: 'u1' is of the recording 'r2', which wav.scp lacks"),
        ({"segments": "u1 r1 0 1\nu1 r1 0 1\n"}, r"segments:2: 'u1' is there already, at \S+segments:1"),
        ({"text": "u1\n"}, r"text:1: utterance 'u1' has an empty transcript"),
        ({"text": "u2 a\n", "segments": "u1 r1 0 1\n"}, r"segments:1: utterance 'u1' has no transcript"),
        ({"text": "u1 a\nu9 a\n"}, r"text:2: utterance 'u9' has no audio listed"),
        ({"text": ""}, r"text: nothing in it"),
        ({"wav_scp": "r1 gone.wav\n"}, r"there is no audio file gone.wav \(utterance 'u1'\)"),
        ({"wav_scp": "r1\n"}, r"wav.scp:1: a recording without a path"),
        ({"wav_scp": "r1 x.ark:17\n"}, r"wav.scp:1: 'x.ark:17' is in an archive"),
    ],
)
def test_what_is_wrong_in_a_kaldi_folder_is_said_with_its_line(
    tmp_path: Path, sound: Tone, files: dict[str, str], message: str
) -> None:
    good = {"wav_scp": f"r1 {sound('a.wav', 300)}\n", "segments": "u1 r1 0 1\n", "text": "u1 a\n"}
    folder = kaldi_dir(tmp_path / "train", **(good | files))
    with pytest.raises(ValueError, match=message) as error:
        read_corpus(folder)
    assert "\n" not in str(error.value)


def test_a_segment_rounded_beyond_its_file_is_shortened_as_kaldi_does(tmp_path: Path, sound: Tone) -> None:
    good = {"wav_scp": f"r1 {sound('a.wav', 300)}\n", "segments": "u1 r1 0.25 1.3\n", "text": "u1 a\n"}
    (cut,) = read_corpus(kaldi_dir(tmp_path / "train", **good))["train"]
    assert (cut.start, cut.duration, len(samples(cut))) == (0.25, 0.75, 12_000)


def test_bad_utterances_are_left_out_and_told_when_asked(tmp_path: Path, sound: Tone) -> None:
    sound("a.wav", 300)
    rows = [f"u1\ta.wav\t\t\t\t\t{text}" for text in ("GO", "AGAIN", "")] + ["u2\tb.wav\t\t\t\t\tGO"]
    (tmp_path / "m.tsv").write_text(HEADER + "\n".join(rows) + "\n")
    bad: list[str] = []
    corpus = read_corpus(tmp_path, on_bad=lambda error: bad.append(str(error)))
    assert [cut.id for cut in corpus["m"]] == ["u1"]
    assert [line.split(": ")[0].rpartition(":")[2] for line in bad] == ["3", "4", "5"]
    assert "utterance 'u1' is there already, at" in bad[0]
    with pytest.raises(ValueError, match=r"m.tsv:3: utterance 'u1' is there already, at \S+m.tsv:2"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u1\ta.wav\t0\t16000\tann\ttrain", r"m.tsv:2: 6 columns, the header has 7"),
        ("u1\ta.wav\tx\t16000\tann\ttrain\tGO", r"m.tsv:2: start_sample 'x' and .* expected whole numbers"),
        ("u1\ta.wav\t0\t16001\tann\ttrain\tGO", r"m.tsv:2: utterance 'u1' ends at 1.00006 s"),
        ("u1\ta.wav\t-5\t16000\tann\ttrain\tGO", r"m.tsv:2: utterance 'u1' goes from -0.0003125"),
        ("u1\ta.wav\t0\t0\tann\ttrain\tGO", r"m.tsv:2: utterance 'u1' goes from 0 to 0 s"),
        ("u1\ta.wav\t0\t16000\tann\ttrain\t ", r"m.tsv:2: utterance 'u1' has an empty transcript"),
    ],
)
def test_what_is_wrong_in_a_tsv_is_said_with_its_line(
    tmp_path: Path, sound: Tone, line: str, message: str
) -> None:
    sound("a.wav", 300)
    (tmp_path / "m.tsv").write_text(HEADER + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_corpus(tmp_path / "m.tsv")


def test_a_tsv_needs_its_columns_and_the_files_rate(tmp_path: Path, sound: Tone) -> None:
    sound("a.wav", 300)
    path = tmp_path / "m.tsv"
    path.write_text("utt_id\taudio\nu1\ta.wav\n")
    with pytest.raises(ValueError, match=r"m.tsv:1: the header lacks 'text'"):
        read_corpus(path)
    path.write_text("utt_id\taudio\tsample_rate\ttext\nu1\ta.wav\t8000\tGO\n")
    with pytest.raises(ValueError, match=r"m.tsv:2: sample_rate 8000, but \S+a.wav has 16000"):
        read_corpus(path)


def nemo_line(**value: Any) -> str:
    return json.dumps(value) + "\n"


def test_nemo_lines_get_ids_from_path_and_offset(tmp_path: Path, sound: Tone, summary: Summary) -> None:
    sound("clips/x/a.wav", 300, 700)
    sound("clips/y/a.wav", 1100)
    (tmp_path / "train_manifest.json").write_text(
        nemo_line(audio_filepath="clips/x/a.wav", offset=0, duration=1.0, text="turn on", speaker=7)
        + nemo_line(audio_filepath="clips/x/a.wav", offset=1.0, duration=1.02, text="off", speaker=7)
        + nemo_line(audio_filepath="clips/y/a.wav", duration=1.0, text="go")
    )
    corpus = read_corpus(tmp_path)
    assert [summary(cut) for cut in corpus["train"]] == [
        ("x-a-0000000", "7", ["turn", "on"], 300),
        ("x-a-0001000", "7", ["off"], 700),
        ("y-a", "y-a", ["go"], 1100),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (nemo_line(audio_filepath="a.wav", duration=2.0, text="go"), "ends at 2 s, but .* ends at 1 s"),
        (
            nemo_line(audio_filepath="a.wav", duration="x", text="go"),
            r"m.json:1: offset None and duration 'x'",
        ),
        (nemo_line(audio_filepath="a.wav"), r"m.json:1: utterance 'a' has no transcript"),
        (nemo_line(text="go"), r"m.json:1: lacks 'audio_filepath'"),
        ('{"audio_filepath": "a.wav"', r"m.json:1: not JSON"),
    ],
)
def test_what_is_wrong_in_a_nemo_manifest_is_said_with_its_line(
    tmp_path: Path, sound: Tone, line: str, message: str
) -> None:
    sound("a.wav", 300)
    (tmp_path / "m.json").write_text(line)
    with pytest.raises(ValueError, match=message):
        read_corpus(tmp_path / "m.json", "nemo")


def test_lhotse_cuts_are_split_by_supervision_and_pairs_are_joined(
    tmp_path: Path, sound: Tone, summary: Summary
) -> None:
    from lhotse import CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet

    recording = Recording.from_file(sound("a.wav", 300, 700, 1100))
    said = [
        SupervisionSegment(f"s{i}", "a", float(i), 1.0, text=f"word{i}", speaker="ann", custom={"snr": i})
        for i in range(3)
    ]
    folder = tmp_path / "cuts"
    folder.mkdir()
    CutSet.from_cuts(
        [
            MonoCut("one", 0.0, 1.0, 0, said[:1], recording=recording),
            MonoCut("two", 1.0, 2.0, 0, [s.with_offset(-1.0) for s in said[1:]], recording=recording),
        ]
    ).to_file(folder / "mini_cuts_train.jsonl.gz")
    heard = [summary(cut) for cut in read_corpus(folder)["train"]]
    assert heard == [
        ("one", "ann", ["word0"], 300),
        ("s1", "ann", ["word1"], 700),
        ("s2", "ann", ["word2"], 1100),
    ]
    pair = tmp_path / "pair"
    pair.mkdir()
    RecordingSet.from_recordings([recording]).to_file(pair / "mini_recordings_dev.jsonl.gz")
    SupervisionSet.from_segments(said).to_file(pair / "mini_supervisions_dev.jsonl.gz")
    cuts = read_corpus(pair)["dev"]
    assert [summary(cut)[2:] for cut in cuts] == [summary_[2:] for summary_ in heard]
    assert cuts[2].supervisions[0].custom == {"snr": 2}


def test_what_was_prepared_can_be_prepared_again(tmp_path: Path, sound: Tone) -> None:
    sound("a.wav", 300)
    (tmp_path / "m.tsv").write_text(HEADER + "u1\ta.wav\t100\t15000\tann\ttrain\tGO\n")
    first = read_corpus(tmp_path)["train"]
    save_cuts(tmp_path / "out" / "train.cuts.jsonl.gz", first)
    assert list(read_corpus(tmp_path / "out")["train"]) == list(first)


def test_a_perturbed_lhotse_recording_stays_perturbed(tmp_path: Path, sound: Tone, pitch: Pitch) -> None:
    sound("a.wav", 440)
    (tmp_path / "m.tsv").write_text("utt_id\taudio\ttext\nu1\ta.wav\tGO\n")
    cuts = read_corpus(tmp_path / "m.tsv")["m"].perturb_speed(1.1)
    save_cuts(tmp_path / "fast.cuts.jsonl.gz", cuts)
    (cut,) = read_corpus(tmp_path / "fast.cuts.jsonl.gz")["fast"]
    assert pitch(samples(cut)) == pytest.approx(484, abs=2)


def librispeech(root: Path, sound: Tone) -> None:
    for split, speaker_, hz in (("train-clean-100", "19", 300), ("dev-other", "84", 700)):
        chapter = f"LibriSpeech/{split}/{speaker_}/121"
        for i in range(2):
            sound(f"{chapter}/{speaker_}-121-000{i}.flac", hz + 100 * i)
        lines = [f"{speaker_}-121-000{i} GO {'ON ' * i}\n" for i in range(2)]
        (root / chapter / f"{speaker_}-121.trans.txt").write_text("".join(lines))


@pytest.mark.parametrize("inside", ["", "LibriSpeech", "LibriSpeech/dev-other"])
def test_librispeech_is_read_from_any_of_its_folders(
    tmp_path: Path, sound: Tone, inside: str, summary: Summary
) -> None:
    librispeech(tmp_path, sound)
    corpus = read_corpus(tmp_path / inside)
    assert guess_kind(tmp_path / inside) == "librispeech"
    assert set(corpus) == ({"dev-other"} if "dev" in inside else {"dev-other", "train-clean-100"})
    assert [summary(cut) for cut in corpus["dev-other"]] == [
        ("84-121-0000", "84", ["GO"], 700),
        ("84-121-0001", "84", ["GO", "ON"], 800),
    ]


def test_what_no_reader_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match=r"not a corpus of a known format \(kaldi, lhotse"):
            read_corpus(path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_corpus(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no corpus format 'ark'"):
        read_corpus(tmp_path, "ark")
    with pytest.raises(ValueError, match="no utterances found, read as librispeech"):
        read_corpus(tmp_path, "librispeech")
