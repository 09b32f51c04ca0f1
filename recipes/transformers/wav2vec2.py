"""A Wav2Vec2ForCTC of transformers: trained on generated digits, made small, heard in its own class again.

    python recipes/transformers/wav2vec2.py --out runs/wav2vec2

    OUT/corpus         strings of digits in espeak's voices; nobody speaks in two of train, dev and test
    OUT/full.packed    the model in full precision, trained from its config and nothing else
    OUT/longer.packed  with --longer: the same trained on as long as a small model: what passes alone give
    OUT/small          what `greenasr.shrink` leaves: smallest.packed, answer.json, report.html
    OUT/small.onnx     the small model as torch exports it, with the file's codes for its weights
    OUT/result.json    the figures that are printed

A label is a word.  The small file is loaded into a new model of its class, which hears the test set in torch;
ONNX Runtime hears it from the same codes.  A run that was stopped goes on when the command is given again.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

import greenasr
from greenasr.cli.progress import Bars, bars
from greenasr.cli.report import print_table
from greenasr.compress.fit import Training, fit_
from greenasr.compress.none import NoCompression
from greenasr.data import audio
from greenasr.data.corpora import load_cuts, speaker, words
from greenasr.data.files import atomic, write_json
from greenasr.data.generated import generate_speech
from greenasr.data.generated_splits import DIGITS
from greenasr.report import shrunk
from greenasr.runtime.format import read
from greenasr.runtime.onnx_narrow import narrowed
from greenasr.score.scored import Scored, said
from greenasr.shrinking.package import save_module
from greenasr.shrinking.settings import Question, Space
from greenasr.tasks.hugging_face import CtcEncoder, Utterance, Utterances

CONFIG = Wav2Vec2Config(
    vocab_size=1 + len(DIGITS), pad_token_id=0, hidden_size=128, num_hidden_layers=4, num_attention_heads=4,
    intermediate_size=512, conv_dim=(64, 96, 128, 128), conv_kernel=(128, 8, 8, 4), conv_stride=(20, 4, 4, 2),
    num_feat_extract_layers=4, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=16,
    feat_extract_norm="layer", do_stable_layer_norm=True, apply_spec_augment=False, hidden_dropout=0.0,
    activation_dropout=0.0, attention_dropout=0.0, feat_proj_dropout=0.0, final_dropout=0.0, layerdrop=0.0,
    attn_implementation="eager",  # the others have no second derivatives, which Hessian costs need
)  # fmt: skip
WAY = CtcEncoder(
    encode=lambda text: [1 + DIGITS.index(word) for word in text.split()],
    decode=lambda ids: " ".join(DIGITS[i - 1] for i in ids),
)


def utterances(corpus: Path, split: str) -> list[Utterance]:
    """A split, its samples with mean 0 and variance 1, as Wav2Vec2's feature extractor gives them."""
    rows = []
    for cut in load_cuts(corpus / f"{split}.cuts.jsonl.gz"):
        heard = torch.from_numpy(audio.samples(cut))
        seen = (heard - heard.mean()) / heard.std()
        rows.append(Utterance(cut.id, seen, " ".join(words(cut)), speaker(cut)))
    return rows


def trained(path: Path, model: Any, task: Utterances, settings: Training, tell: Bars) -> Any:
    """A model after training in full precision, as a packed file of floats has it."""
    run = path.with_suffix("")
    if not path.exists():
        fit_(
            model, task, NoCompression(), settings, run=run,
            on_step=lambda step, of, loss: tell(path.stem, step, of, f"loss {loss:.3f}"),
        )  # fmt: skip
        save_module(path, model)
        (run / "checkpoint.pt").unlink(missing_ok=True)
    greenasr.load_into(model, path)
    return model.eval()


class Logits(nn.Module):
    """What the exporter wants: samples (N, n) to a tensor (N, T, C)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, samples: Tensor) -> Tensor:
        """The model's logits."""
        return self.model(samples).logits


def exported(model: Any, path: Path, packed: Path, example: Tensor) -> list[str]:
    """Write the model as ONNX with the codes of ``packed``; the names of the weights that are codes in it."""
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, that another one is newer
        torch.onnx.export(
            Logits(model), (example[None],), str(temporary), dynamo=False, opset_version=17,
            input_names=["samples"], output_names=["logits"],
            dynamic_axes={"samples": {1: "samples"}, "logits": {1: "frames"}},
        )  # fmt: skip
        found, names = narrowed(onnx.load(temporary), read(packed))
        onnx.save(found, temporary)
    return names


def in_onnx_runtime(path: Path) -> Any:
    """An ONNX file in place of the model, on one core: samples (1, n) to what `CtcEncoder` looks at."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)

    def model(samples: Tensor) -> Any:
        return SimpleNamespace(logits=torch.from_numpy(session.run(None, {"samples": samples.numpy()})[0]))

    model.device = "cpu"  # type: ignore[attr-defined]
    return model


def difference(one: Sequence[Scored], other: Sequence[Scored]) -> tuple[int, int]:
    """Tokens of ``other`` that are not those of ``one``, aligned as for a WER, and how many ``one`` has."""
    errors = [said(a.errors.utt_id, a.hyp, b.hyp).errors for a, b in zip(one, other, strict=True)]
    return sum(e.total for e in errors), sum(e.n_ref for e in errors)


def errors_of(row: dict[str, Any]) -> int:
    """Of a model on test, as the answer has them."""
    return sum(row["test"][kind] for kind in ("sub", "del", "ins"))


def run(settings: argparse.Namespace, tell: Bars) -> dict[str, Any]:
    """Everything, and its figures."""
    out: Path = settings.out
    generate_speech(
        out / "corpus", settings.hours, settings.seed, utterances=settings.utterances, domain="digits",
        tell=lambda done, of, split: tell(f"speech of {split}", done, of),
    )  # fmt: skip
    task = Utterances({s: utterances(out / "corpus", s) for s in ("train", "dev", "test")}, WAY, 16)
    whole = Training(settings.epochs, lr=1e-3, warmup=0.1, weight_decay=0.01, leg=50, seed=settings.seed)
    torch.manual_seed(settings.seed)
    model = Wav2Vec2ForCTC(CONFIG)
    if settings.start:
        greenasr.load_into(model, settings.start)
    model = trained(out / "full.packed", model, task, whole, tell)
    space = Space(training=Training(settings.shrink_epochs, lr=5e-4, weight_decay=0.0, leg=50))
    asked = Question(settings.max_wer_increase, max_bytes=settings.max_bytes)
    found = greenasr.shrink(model, task, out / "small", space=space, question=asked, tell=tell)
    shrunk.write(out / "small")
    print_table(out / "small")
    if found is None or found.path is None:
        raise ValueError("no smaller model may take the full one's place: train for more --epochs.")
    greenasr.load_into(fresh := Wav2Vec2ForCTC(CONFIG).eval(), found.path)
    codes = exported(fresh, path := out / "small.onnx", found.path, task.sets["test"][0].inputs)
    torch_heard = task.score(fresh, "test")
    onnx_heard = list(map(partial(WAY.heard, in_onnx_runtime(path)), task.sets["test"]))
    judged = next(row for row in found.answer["models"] if row["name"] == found.answer["smallest"])
    differing, tokens = difference(torch_heard, onnx_heard)
    value = {
        "bytes": found.path.stat().st_size,
        "bytes of float32": found.answer["full"]["bytes"],
        "times smaller": judged["ratio"],
        "bytes as ONNX": path.stat().st_size,
        "weights with codes there": len(codes),
        "errors of the full model": errors_of(found.answer["full"]),
        "errors when it was judged": errors_of(judged),
        "errors in torch, loaded back": sum(row.errors.total for row in torch_heard),
        "errors in ONNX Runtime": sum(row.errors.total for row in onnx_heard),
        "words": sum(row.errors.n_ref for row in torch_heard),
        "tokens in torch": tokens,
        "tokens that differ in ONNX Runtime": differing,
        "percent that differ": 100 * differing / max(1, tokens),
    }
    if settings.longer:
        longer = trained(out / "longer.packed", copy.deepcopy(model), task, space.training, tell)
        errors = sum(row.errors.total for row in task.score(longer, "test"))
        value["errors of the full model, trained on as long"] = errors
    return value


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--hours", type=float, default=0.6, help="of training speech")
    parser.add_argument("--utterances", type=int, default=1000, help="of the test set; dev has half of it")
    parser.add_argument("--epochs", type=float, default=8, help="of the training in full precision")
    parser.add_argument("--shrink-epochs", type=float, default=2, help="of every training of a small model")
    parser.add_argument("--max-wer-increase", type=float, default=1.5, help="points that may be lost")
    parser.add_argument("--max-bytes", type=int, help="ask for the best model of this size instead")
    parser.add_argument("--start", type=Path, help="a packed model in place of chance; --epochs 0 keeps it")
    parser.add_argument("--longer", action="store_true", help="make longer.packed and hear it")
    parser.add_argument("--seed", type=int, default=0, help="of speech, first weights and order")
    settings = parser.parse_args()
    with bars() as tell:
        value = run(settings, tell)
    write_json(settings.out / "result.json", value)
    print("\n".join(f"{name}: {each:,.10g}" for name, each in value.items()))


if __name__ == "__main__":
    main()
