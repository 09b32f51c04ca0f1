"""Whatever is wrong with the input ends in one line that names it, exit code 2, and nothing lost."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
Entry = dict[str, Any]

TRAIN = "train train.txt --out new --layers 1 --dim 16 --heads 2 --hidden 32 --epochs 1"
MODEL = "lm/model.packed"
CASES = [
    # text
    ("train empty.txt --out new", r"empty.txt: no words in it; give a text"),
    ("train latin.txt --out new", r"latin.txt:2: not UTF-8 at byte 1: convert the file"),
    ("train huge.txt --out new", r"huge.txt:1: a line of 180,000 bytes; .* split it"),
    ("train nowhere.txt --out new", r"nowhere.txt: no such file"),
    ("ngram latin.txt --out new.arpa", r"latin.txt:2: not UTF-8"),
    ("ngram huge.txt --out new.arpa", r"huge.txt:1: a line of"),
    (f"perplexity {MODEL} empty.txt", r"empty.txt: no words"),
    (f"compress {MODEL} latin.txt --bits 2 --out new", r"latin.txt:2: not UTF-8"),
    (f"costs {MODEL} latin.txt --out new.json", r"latin.txt:2: not UTF-8"),
    ("score refs.txt latin.txt", r"latin.txt:2: .*not UTF-8"),
    # a word list that does not match
    (f"{TRAIN} --words foreign.txt", r"foreign.txt: the word list lacks [\d,]+ of the text's [\d,]+ words"),
    (f"{TRAIN} --words twice.txt", r"twice.txt:3: 'a' stands on line 1 already"),
    (f"{TRAIN} --words pairs.txt", r"pairs.txt:1: 2 words; a word list has one"),
    (f"{TRAIN} --words bare.txt", r"bare.txt: the word list lacks <eos> and <unk>"),
    ("ngram train.txt --out new.arpa --vocab foreign.txt", r"foreign.txt: the word list lacks"),
    # ARPA
    (
        f"perplexity {MODEL} dev.txt --ngram counts.arpa --weight 0.5",
        r"counts.arpa:\d+: .*promises 9\d+ 2-grams",
    ),
    ("rescore nbest.jsonl --ngram cut.arpa --out new.jsonl", r"cut.arpa:\d+: "),
    (f"perplexity {MODEL} dev.txt --ngram lm.arpa", r"--ngram needs either --dev"),
    (f"perplexity {MODEL} dev.txt --ngram lm.arpa --weight 3", r"--weight 3: .* expected 0 to 1"),
    (f"perplexity {MODEL} dev.txt --dev train.txt", r"give --ngram ARPA too"),
    # N-best lists
    (
        f"rescore unscored.jsonl --lm {MODEL} --out new.jsonl",
        r"unscored.jsonl:1: no 'scores' .*--first-pass rank",
    ),
    (f"rescore nohyps.jsonl --lm {MODEL} --out new.jsonl", r"nohyps.jsonl:4: 'hyps' of .* is empty"),
    (f"rescore noref.jsonl --lm {MODEL} --out new.jsonl", r"noref.jsonl:8: no 'ref' for"),
    (f"rescore kaldi.txt --lm {MODEL} --out new.jsonl", r"kaldi.txt: no references .*--refs"),
    (
        f"rescore nbest.jsonl --lm {MODEL} --out new.jsonl --weights plan.json",
        r"plan.json: no 'weights' in it",
    ),
    ("rescore nbest.jsonl --out new.jsonl", r"nothing to rescore with"),
    (f"rescore nbest.jsonl --lm {MODEL} --out lm", r"cannot write lm: it is a folder"),
    # references and hypotheses
    ("score refs.txt fewer.txt", r"refs.txt:1: .* no hypothesis in fewer.txt"),
    ("score fewer.txt refs.txt", r"refs.txt:1: .* has no reference"),
    ("score refs.txt refs.txt --language xx", r"--language xx"),
    # plans and budgets
    (
        f"compress narrow/{Path(MODEL).name} train.txt --bit-map plan.json --out new",
        r"plan.json: .*another size",
    ),
    (f"compress {MODEL} train.txt --bit-map costs.json --out new", r"costs.json: not a bit map"),
    (f"compress {MODEL} train.txt --bit-map broken.json --out new", r"broken.json: not a whole bit map"),
    (f"compress {MODEL} train.txt --out new", r"give either --bit-map FILE or --bits N"),
    (f"compress {MODEL} train.txt --bits 5 --out new", r"no table of 5 bits: choose"),
    (f"compress {MODEL} train.txt --bits 2 --method magic --out new", r"unknown method 'magic'"),
    ("allocate costs.json --bits 0.5 --out new.json", r"costs.json: a budget of 0.5 bits .* impossible"),
    ("allocate costs.json --bytes 10 --out new.json", r"costs.json: a budget of 10 bytes is impossible"),
    ("allocate costs.json --out new.json", r"give one budget"),
    ("allocate plan.json --bits 2 --out new.json", r"plan.json: not a cost table"),
    ("allocate broken.json --bits 2 --out new.json", r"broken.json: "),
    ("allocate half.json --bits 2 --out new.json", r"half.json:\d+: not JSON: .* cut short"),
    (f"costs {MODEL} train.txt --out new.json --widths 5", r"no table of 5 bits"),
    (f"costs {MODEL} train.txt --out new.json --widths x", r"cannot read an option"),
    (f"costs {MODEL} train.txt --out new.json --method search", r"give --trained"),
    (f"costs {MODEL} train.txt --out new.json --by magic", r"clusters by 'magic'"),
    (f"costs {MODEL} train.txt --out lm", r"cannot write lm: it is a folder"),
    # packed files
    ("inspect cut.packed", r"cut.packed: checksum .* cut short or altered"),
    ("inspect altered.packed", r"altered.packed: checksum .* cut short or altered"),
    ("perplexity cut.packed dev.txt", r"cut.packed: checksum"),
    ("compress train.txt train.txt --bits 2 --out new", r"train.txt: not a packed model"),
    ("rescore nbest.jsonl --lm altered.packed --out new.jsonl", r"altered.packed: checksum"),
    # another run's folder
    ("train train.txt --out lm --layers 2", r"lm.recipe.json: .* other settings \(.*network.*\)"),
    ("train dev.txt --out lm", r"lm.recipe.json: .* other settings \(.*text.*\)"),
    (f"compress {MODEL} train.txt --bits 4 --out small", r"small.recipe.json: .* other settings"),
    # options
    (f"{TRAIN} --device cuda:99", r"--device cuda:99 cannot be used here: choose from cpu"),
    ("table tiny.toml --device nonsense", r"--device nonsense cannot be used here"),
    (f"{TRAIN} --heads 3", r"dim 16 is not a multiple of heads 3"),
    (f"{TRAIN} --lr nan", r"lr and leg must be positive"),
    (f"{TRAIN} --batch 0", r"windows of 64 tokens, 0 a batch"),
    (f"{TRAIN} --layers many", r"'--layers'.*integer"),
    (f"{TRAIN} --magic", r"No such option: --magic"),
    ("train", r"Missing argument 'text'"),
    ("magic", r"No such command 'magic'"),
]


@pytest.fixture(scope="module")
def folder(made: Path) -> Path:
    """The small model's folder with every kind of bad file beside it."""

    def write(name: str, text: str) -> None:
        (made / name).write_text(text)

    entries = [json.loads(line) for line in (made / "nbest.jsonl").read_text().splitlines()]

    def write_nbest(name: str, change: Callable[[int, Entry], Entry]) -> None:
        write(name, "".join(json.dumps(change(i, dict(entry))) + "\n" for i, entry in enumerate(entries)))

    write("empty.txt", "\n")
    (made / "latin.txt").write_bytes(b"a b\n\xff\xfe c\n")
    write("huge.txt", "ab " * 60_000)
    write("foreign.txt", "zz\nyy\n<eos>\n<unk>\n")
    write("twice.txt", "a\n\na\n<eos>\n<unk>\n")
    write("pairs.txt", "a b\n")
    write("bare.txt", "a\nb\n")
    arpa = (made / "lm.arpa").read_text()
    write("counts.arpa", arpa.replace("ngram 2=", "ngram 2=9", 1))
    write("cut.arpa", arpa[: len(arpa) // 2])
    write_nbest("unscored.jsonl", lambda i, e: {key: e[key] for key in ("id", "ref", "hyps")})
    write_nbest("nohyps.jsonl", lambda i, e: e | {"hyps": []} if i == 3 else e)
    write_nbest("noref.jsonl", lambda i, e: {k: v for k, v in e.items() if k != "ref" or i != 7})
    write("kaldi.txt", "".join(f"{e['id']}-{n} {h}\n" for e in entries for n, h in enumerate(e["hyps"], 1)))
    write("refs.txt", "".join(f"{e['id']} {e['ref']}\n" for e in entries))
    write("fewer.txt", "".join(f"{e['id']} {e['ref']}\n" for e in entries[1:]))
    plan = (made / "plan.json").read_text()
    write("broken.json", plan.replace('"clusters"', '"clutter"'))
    write("half.json", plan[: len(plan) // 2])
    packed = (made / MODEL).read_bytes()
    (made / "cut.packed").write_bytes(packed[: len(packed) // 2])
    half = len(packed) // 2
    (made / "altered.packed").write_bytes(packed[:half] + bytes([packed[half] ^ 1]) + packed[half + 1 :])
    return made


@pytest.mark.parametrize(("line", "message"), CASES, ids=[line for line, _ in CASES])
def test_bad_input_ends_with_one_line_and_exit_code_2(
    line: str, message: str, folder: Path, greenasr: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    called = greenasr(*shlex.split(line))
    assert called.code == 2, called.out
    assert re.fullmatch(rf"greenasr: [^\n]*{message}[^\n]*\n", called.err)
    assert called.out == ""
    for path, content in before.items():
        assert path.read_bytes() == content, f"{path.name} was changed"
    assert not (folder / "new" / "recipe.json").exists(), "a run that did not begin keeps no folder"


def test_an_empty_hypothesis_is_one_of_no_words(made: Path, greenasr: Call, tmp_path: Path) -> None:
    entries = [json.loads(line) for line in (made / "nbest.jsonl").read_text().splitlines()]
    entries[3]["hyps"][0] = ""
    lists = tmp_path / "lists.jsonl"
    lists.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert greenasr("rescore", lists, "--ngram", made / "lm.arpa", "--out", tmp_path / "out.jsonl").code == 0


def test_lists_without_references_are_rescored_with_the_weights_of_an_earlier_run(
    made: Path, greenasr: Call, tmp_path: Path
) -> None:
    ngram, out = made / "lm.arpa", tmp_path / "out.jsonl"
    first = greenasr(
        "rescore", made / "nbest.jsonl", "--ngram", ngram, "--out", out, "--no-guard", "--json"
    ).json
    entries = [json.loads(line) for line in (made / "nbest.jsonl").read_text().splitlines()]
    for entry in entries:
        del entry["ref"]
    lists, again = tmp_path / "lists.jsonl", tmp_path / "again.jsonl"
    lists.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    weights = f"{out}.weights.json"
    second = greenasr("rescore", lists, "--ngram", ngram, "--out", again, "--weights", weights, "--json").json
    assert second["weights"] == first["weights"] and second["wer"] == {}
    best = [[json.loads(line)["hyps"] for line in path.read_text().splitlines()] for path in (out, again)]
    assert best[0] == best[1]
