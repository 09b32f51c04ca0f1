"""Eq. 1–6 of MPLM token by token, and what rescoring and the Hessian need of the network."""

import math

import pytest
import torch
from torch import Tensor, nn

from greenasr.models.dropout import PooledDropout
from greenasr.models.transformer_lm import SelfAttention, TransformerConfig, TransformerLayer, TransformerLM

IDS = torch.randint(0, 20, (3, 7), generator=torch.Generator().manual_seed(1))


def network(tied: bool = True, dropout: float = 0.0, layers: int = 2, heads: int = 2) -> TransformerLM:
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab=20, layers=layers, dim=8, heads=heads, hidden=12, context=10, dropout=dropout, tied=tied
    )
    model = TransformerLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def gelu(s: float) -> float:
    return s * 0.5 * (1 + math.erf(s / math.sqrt(2)))


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * norm.weight + norm.bias


def attend(attention: SelfAttention, q: Tensor, past: list[tuple[Tensor, Tensor]]) -> Tensor:
    """SelfAttention(h, q) of eq. 3 for one token, head by head, weight by weight."""
    width = len(q) // attention.heads
    parts = []
    for head in range(attention.heads):
        at = slice(head * width, (head + 1) * width)
        scores = [float(q[at] @ k[at]) / math.sqrt(width) for k, _ in past]
        total = sum(math.exp(score) for score in scores)
        pairs = zip(scores, past, strict=True)
        parts.append(sum((math.exp(score) / total * v[at] for score, (_, v) in pairs), torch.zeros(width)))
    return torch.cat(parts)


def slow(model: TransformerLM, ids: list[int]) -> Tensor:
    """One sentence, one token at a time, straight from the equations, (T, D)."""
    memory: list[list[tuple[Tensor, Tensor]]] = [[] for _ in model.layers]
    outputs = []
    for t, token in enumerate(ids):
        x = layer_norm(model.embedding.weight[token] + model.position.weight[t], model.embedding_norm)
        for layer, h in zip(model.layers, memory, strict=True):
            assert isinstance(layer, TransformerLayer)
            a = layer.attention
            q, k, v = a.q.weight @ x, a.k.weight @ x, a.v.weight @ x  # (1)
            h.append((k, v))  # (2)
            y = a.out.weight @ attend(a, q, h) + x  # (3)
            z = layer_norm(y, layer.attention_norm)  # (4)
            s = layer.w1.weight @ z + layer.w1.bias
            s = layer.w2.weight @ torch.tensor([gelu(float(u)) for u in s]) + layer.w2.bias + z  # (5)
            x = layer_norm(s, layer.norm)  # (6)
        outputs.append(x)
    return torch.stack(outputs)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_it_computes_equations_1_to_6(heads: int) -> None:
    model = network(heads=heads).eval()
    with torch.no_grad():
        hidden, _ = model(IDS)
        for row, ids in zip(hidden, IDS.tolist(), strict=True):
            torch.testing.assert_close(row, slow(model, ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cuts", [[1] * 7, [3, 4], [6, 1], [1, 5, 1]])
def test_stepping_with_the_cache_equals_one_full_pass(cuts: list[int]) -> None:
    model = network().eval()
    whole, cache_of_whole = model(IDS)
    parts, cache = [], None
    for ids in IDS.split(cuts, 1):
        hidden, cache = model(ids, cache)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    assert cache is not None and len(cache) == 2
    for (k, v), (k_whole, v_whole) in zip(cache, cache_of_whole, strict=True):
        torch.testing.assert_close(k, k_whole)
        torch.testing.assert_close(v, v_whole)


def test_a_token_does_not_see_those_after_it() -> None:
    model = network().eval()
    changed = IDS.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 20
    a, b = model(IDS)[0], model(changed)[0]
    torch.testing.assert_close(a[:, :4], b[:, :4], rtol=0, atol=0)
    assert not torch.isclose(a[:, 4:], b[:, 4:]).all(-1).any()


def test_sentences_of_a_batch_do_not_see_each_other() -> None:
    model = network().eval()
    torch.testing.assert_close(model(IDS)[0][1:2], model(IDS[1:2])[0])


@pytest.mark.parametrize("tied", [True, False])
def test_tying_shares_one_parameter(tied: bool) -> None:
    model = network(tied)
    assert (model.output.weight is model.embedding.weight) == tied
    assert ("output.weight" in dict(model.named_parameters())) != tied
    names = set(model.state_dict())
    assert {"output.weight", "embedding.weight"} <= names


def test_more_tokens_than_the_context_are_refused() -> None:
    model = network()
    _, cache = model(IDS)
    with pytest.raises(ValueError, match="11 tokens exceed the model's context of 10: cut the text"):
        model(IDS[:, :4], cache)


def test_it_can_be_differentiated_twice() -> None:
    model = network(layers=1).double()
    weight = model.layers[0].attention.q.weight

    def loss(value: Tensor) -> Tensor:
        name = "layers.0.attention.q.weight"
        hidden, _ = torch.func.functional_call(model, {name: value}, IDS[:1, :4])
        return torch.as_tensor(hidden[..., :4].square().sum())

    value = weight.detach().clone().requires_grad_()
    assert torch.autograd.gradgradcheck(loss, value, fast_mode=True)


def test_dropout_acts_in_training_alone_and_repeats_with_the_seed() -> None:
    model = network(dropout=0.3)
    torch.manual_seed(5)
    first = model(IDS)[0]
    assert not torch.equal(first, model(IDS)[0])
    torch.manual_seed(6)
    model(IDS)
    torch.manual_seed(5)
    assert torch.equal(model(IDS)[0], first)
    model.eval()
    assert torch.equal(model(IDS)[0], network().eval()(IDS)[0])


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    y = PooledDropout(0.25)(torch.ones(100_000))
    assert y.unique().tolist() == [0.0, pytest.approx(4 / 3, rel=1e-2)]
    assert float((y == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(y.mean()) == pytest.approx(1, abs=0.02)
    with pytest.raises(ValueError, match="dropout is a probability"):
        PooledDropout(1.0)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="dim 8 is not a multiple of heads 3"):
        TransformerConfig(vocab=5, dim=8, heads=3)
    with pytest.raises(ValueError, match="at least 1"):
        TransformerConfig(vocab=5, layers=0)
