"""Models of transformers from tiny configurations: shrunk, loaded back into their own class, and heard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import greenasr
from greenasr.compress.fit import Training
from greenasr.shrinking.settings import Question, Space
from greenasr.tasks.hugging_face import CtcEncoder, NextToken, SpeechToText, Utterance, Utterances

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers itself

LETTERS = " abcd"
SPACE = Space(
    widths=(2, 8),
    training=Training(epochs=1, lr=1e-3, weight_decay=0.0),
    cost_batches=1,
    max_probes=16,
    finer=2.5,
)


def encode(text: str) -> list[int]:
    return [1 + LETTERS.index(c) for c in text]


def decode(ids: Any) -> str:
    return "".join(LETTERS[i - 1] for i in ids if 1 <= i <= len(LETTERS))


def sets(make: Any) -> dict[str, list[Utterance]]:
    """Six utterances of training, four of dev and test; ``make`` gives inputs of a number."""
    torch.manual_seed(0)
    names = {"train": 6, "dev": 4, "test": 4}
    return {
        split: [Utterance(f"{split}{k}", make(k), "ab cd a", f"s{k}") for k in range(n)]
        for split, n in names.items()
    }


def encoder(kind: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=6, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, pad_token_id=0, feat_extract_norm="layer",
        mask_time_length=2, mask_feature_length=2,
    )  # fmt: skip
    return getattr(transformers, f"{kind}ForCTC")(config)


def whisper() -> Any:
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=8, num_mel_bins=4, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        max_source_positions=10, max_target_positions=20, pad_token_id=7, bos_token_id=6, eos_token_id=7,
        decoder_start_token_id=6,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def samples(k: int) -> torch.Tensor:
    return torch.randn(300 + 20 * k)


CASES = {
    "wav2vec2": (lambda: encoder("Wav2Vec2"), samples, CtcEncoder(encode, decode)),
    "hubert": (lambda: encoder("Hubert"), samples, CtcEncoder(encode, decode)),
    "whisper": (
        whisper,
        lambda k: torch.randn(4, 20),
        SpeechToText(lambda text: [*encode(text), 7], decode, {"max_new_tokens": 6}),
    ),
    "causal": (llama, lambda k: torch.randint(20, (9,)), NextToken()),
}


@pytest.mark.parametrize("name", CASES)
def test_models_of_transformers_are_shrunk_and_loaded_into_their_own_class(name: str, tmp_path: Path) -> None:
    make, inputs, way = CASES[name]
    task = Utterances(sets(inputs), way, size=3)
    question = Question(max_wer_increase=50)
    found = greenasr.shrink(make().eval(), task, tmp_path, space=SPACE, question=question)
    assert not [note for note in found.answer["notes"] if "could not be measured" in note]
    assert found.path is not None and found.answer["full"]["bytes"] > 1.3 * found.path.stat().st_size
    with torch.no_grad():
        model = make()
        for parameter in model.parameters():
            parameter.zero_()
    greenasr.load_into(model, found.path)
    row = next(row for row in found.answer["models"] if row["name"] == found.answer["smallest"])
    errors = [each.errors for each in task.score(model.eval(), "test")]
    assert sum(e.total for e in errors) == row["test"]["sub"] + row["test"]["del"] + row["test"]["ins"]


def test_training_with_masks_of_numpy_repeats() -> None:
    losses = []
    for _ in range(2):
        model = encoder("Wav2Vec2").train()
        task = Utterances(sets(samples), CtcEncoder(encode, decode), size=3)
        torch.manual_seed(3)
        losses.append(float(task.loss(model, next(task.batches("train")))))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_no_way_from_itself_as_its_teacher(name: str) -> None:
    make, inputs, way = CASES[name]
    task, model = Utterances(sets(inputs), way, size=3), make().eval()
    other = make()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    batch = next(task.batches("dev"))
    with torch.no_grad():
        own = float(task.loss(model, batch))
        places = task.outputs(model, batch).shape[0]
        assert 0 < places == task.outputs(other.eval(), batch).shape[0]
        model.training = True  # the model as a whole, so that no layer draws a mask
        if name in ("whisper", "causal"):  # which mask nothing
            assert float(task.taught(model, 0.25).loss(model, batch)) == pytest.approx(0.75 * own, rel=1e-4)
            assert float(task.taught(other, 0.25).loss(model, batch)) > 0.76 * own


def test_second_derivatives_agree_with_the_first_form() -> None:
    model = encoder("Wav2Vec2").eval()
    task = Utterances(sets(samples), CtcEncoder(encode, decode), size=3)
    batch = next(task.batches("dev"))
    one, two = (float(task.loss(model, batch, twice_differentiable=t)) for t in (False, True))
    assert one == pytest.approx(two, rel=1e-4)
    assert replace(task, size=2).n_batches("train") == 3
