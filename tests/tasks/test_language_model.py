"""Log-probabilities against slow sums, and the two readings of a text."""

import math

import numpy as np
import pytest
import torch

from greenasr.data.batches import TokenBatch
from greenasr.data.text import Vocabulary, WordPieces, stream
from greenasr.models.transformer_lm import TransformerConfig, TransformerLM
from greenasr.tasks.language_model import LanguageModel
from greenasr.tasks.networks import LANGUAGE_MODELS, build

SENTENCES = [["a", "b", "a"], ["c"], ["b", "b", "c", "a", "d"], ["d", "a"]] * 3


def task(pieces: bool = False, **options: bool | int) -> LanguageModel:
    tokenizer = (
        WordPieces.train([["abc", "cab", "bd"]] * 40, 9) if pieces else Vocabulary.from_sentences(SENTENCES)
    )
    ids, ends = stream(SENTENCES, tokenizer)
    marks = {} if ends.all() else {"dev": ends}
    return LanguageModel(tokenizer, {"train": ids, "dev": ids}, marks, 8, 2, 3, bf16=False, **options)


def network(name: str = "transformer", vocab: int = 6, context: int = 16) -> TransformerLM:
    torch.manual_seed(0)
    sizes = {"heads": 2, "hidden": 16, "context": context} if name == "transformer" else {}
    model = build(name, {"vocab": vocab, "layers": 1, "dim": 8, "dropout": 0.0, **sizes})
    return model.eval()  # type: ignore[return-value]


def slow_logprobs(model: TransformerLM, ids: list[int]) -> list[float]:
    """log p(ids[t] | ids[:t]) for t >= 1, one forward pass a token."""
    out = []
    for t in range(1, len(ids)):
        hidden, _ = model(torch.tensor([ids[:t]]))
        logits = [float(logit) for logit in model.output(hidden[0, -1])]
        out.append(logits[ids[t]] - math.log(sum(math.exp(logit) for logit in logits)))
    return out


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_sentence_logprobs_are_the_slow_ones(name: str) -> None:
    lm, model = task(), network(name)
    eos = lm.tokenizer.eos
    sentences = [[1, 2, 3, 4, 5], [2], [], [5, 5, 5], [4, 1]]
    with torch.no_grad():
        for ids, got in zip(sentences, lm.sentence_logprobs(model, sentences), strict=True):
            assert got.tolist() == pytest.approx(slow_logprobs(model, [eos, *ids, eos]), rel=1e-4)


@pytest.mark.parametrize("pieces", [False, True])
def test_a_hypothesis_is_scored_word_by_word_with_its_end(pieces: bool) -> None:
    lm = task(pieces)
    model = network(vocab=lm.tokenizer.size)
    hyps = [["a", "b"], [], ["d", "zebra", "c"]]
    for words, got in zip(hyps, lm.hypothesis_logprobs(model, hyps), strict=True):
        assert len(got) == len(words) + 1
        flat = [i for word in lm.tokenizer.word_ids(words) for i in word]
        assert float(got.sum()) == pytest.approx(
            float(lm.sentence_logprobs(model, [flat])[0].sum()), rel=1e-5
        )


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
@pytest.mark.parametrize("by_sentence", [False, True])
@pytest.mark.parametrize("pieces", [False, True])
def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(
    name: str, by_sentence: bool, pieces: bool
) -> None:
    lm = task(pieces, by_sentence=by_sentence)
    model = network(name, lm.tokenizer.size)
    with torch.no_grad():
        model.output.weight.zero_()
    figures = lm.evaluate(model, "dev")
    n_words = sum(len(words) + 1 for words in SENTENCES)
    n_tokens = len(lm.splits["dev"])
    assert figures["words"] == n_words and (n_tokens > n_words) == pieces
    assert figures["ppl"] == pytest.approx(lm.tokenizer.size ** (n_tokens / n_words), rel=1e-4)


@pytest.mark.parametrize("by_sentence", [False, True])
def test_perplexity_is_exp_of_the_mean_over_every_token_of_the_text(by_sentence: bool) -> None:
    lm, model = task(by_sentence=by_sentence), network()
    ids, eos = lm.splits["dev"].tolist(), lm.tokenizer.eos
    slow: list[float] = []
    with torch.no_grad():
        if by_sentence:
            for words in SENTENCES:
                row = [i for word in lm.tokenizer.word_ids(words) for i in word]
                slow += slow_logprobs(model, [eos, *row, eos])
        else:
            for t in range(len(ids)):
                window = [eos, *ids][max(0, t // 3 * 3 + 3 - 8) : t + 2]
                slow.append(slow_logprobs(model, window)[-1])
    torch.testing.assert_close(
        torch.from_numpy(lm.word_logprobs(model, "dev")), torch.tensor(slow), rtol=1e-4, atol=1e-5
    )
    assert lm.evaluate(model, "dev")["ppl"] == pytest.approx(math.exp(-np.mean(slow)), rel=1e-4)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
@pytest.mark.parametrize("by_sentence", [False, True])
def test_both_forms_of_the_loss_agree_and_equal_the_mean_logprob(name: str, by_sentence: bool) -> None:
    lm, model = task(by_sentence=by_sentence), network(name)
    for batch in lm.batches("train", 1):
        loss = lm.loss(model, batch).detach()
        torch.testing.assert_close(loss, lm.loss(model, batch, twice_differentiable=True).detach())
        assert float(loss) == pytest.approx(
            -float(lm.logprobs(model, batch)[batch.targets >= 0].mean()), rel=1e-5
        )


def test_half_precision_changes_the_loss_by_little() -> None:
    exact, model = task(), network()
    half = LanguageModel(exact.tokenizer, exact.splits, {}, 8, 2, 3, bf16=True)
    for batch in exact.batches("train"):
        assert isinstance(batch, TokenBatch)
        torch.testing.assert_close(half.loss(model, batch), exact.loss(model, batch), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("by_sentence", [False, True])
def test_the_number_of_batches_is_known(by_sentence: bool) -> None:
    lm = task(by_sentence=by_sentence)
    assert abs(lm.n_batches("train") - sum(1 for _ in lm.batches("train"))) <= 1


def test_evaluation_leaves_the_model_training_or_not_as_it_was() -> None:
    lm, model = task(), network()
    for mode in (True, False):
        model.train(mode)
        lm.evaluate(model, "dev")
        lm.sentence_logprobs(model, [[1], [1] * 30])
        assert model.training == mode
    short = network(context=4)
    with pytest.raises(ValueError, match="exceed the model's context of 4"):
        lm.sentence_logprobs(short.train(), [[1] * 6])
    assert short.training


def test_a_sentence_longer_than_a_window_is_scored_in_windows_that_overlap_by_half() -> None:
    lm, model = task(), network()
    eos = lm.tokenizer.eos
    ids = [1 + i % 5 for i in range(19)]
    slow = []
    with torch.no_grad():
        for t in range(20):
            window = [eos, *ids, eos][max(0, t // 4 * 4 + 4 - 8) : t + 2]
            slow.append(slow_logprobs(model, window)[-1])
        got = lm.sentence_logprobs(model, [[2], ids])[1]
    assert got.tolist() == pytest.approx(slow, rel=1e-4)


def test_a_split_without_text_is_named() -> None:
    with pytest.raises(ValueError, match="no text for the split 'test'; there is train, dev"):
        task().evaluate(network(), "test")


def test_the_configuration_tells_the_shape() -> None:
    assert TransformerConfig(**network().to_config()).hidden == 16
