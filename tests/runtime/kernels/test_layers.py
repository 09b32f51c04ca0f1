from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from greenasr.ops.signs import Signs
from greenasr.runtime.kernels import native, reference

Floats = NDArray[np.float32]
ISAS = native.isas() if native.available() else ["none"]


def normal(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def codes(bits: int, n_out: int, inputs: int, seed: int = 0) -> NDArray[np.int8]:
    most = max(1, 2 ** (bits - 1) - 1)
    return np.random.default_rng(seed).integers(-most, most + 1, (n_out, inputs)).astype(np.int8)


def same_on_every_isa(call: object) -> Floats:
    found = []
    for isa in ISAS:
        native.use_isa(isa)
        found.append(np.concatenate([np.ravel(part) for part in call()]))  # type: ignore[operator]
    for other in found[1:]:
        assert np.array_equal(found[0], other, equal_nan=True)
    return found[0]


@pytest.mark.parametrize("count", (1, 5, 40))
def test_chosen_words_have_the_logarithm_of_their_softmax(count: int) -> None:
    q, steps = codes(2, 333, 64), np.full((333, 1), 0.3, np.float32)
    weight, x, bias = native.matrix((q, 2, steps)), normal(count, 64), normal(333)
    chosen = np.random.default_rng(0).integers(0, 333, (count, 3)).astype(np.int32)
    found = same_on_every_isa(lambda: native.vocabulary(x, weight, chosen, bias))
    logits = reference.linear(x, q, steps, bias).astype(np.float64)
    lse = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    expected = np.take_along_axis(logits - lse[:, None], chosen, 1)
    np.testing.assert_allclose(found, np.concatenate([expected.ravel(), lse]), rtol=2e-6, atol=2e-6)


def test_a_vocabulary_in_bands_of_different_bits_and_far_logits_sums_to_one() -> None:
    parts = [
        (codes(bits, n, 40, n), bits, np.full((n, 1), step, np.float32))
        for bits, n, step in ((4, 21, 2.0), (2, 50, 5.0), (8, 3, 0.1))
    ]
    weight, x = native.matrix(*parts), 10 * normal(2, 40)
    everything = np.tile(np.arange(74, dtype=np.int32), (2, 1))
    scores, _ = native.vocabulary(x, weight, everything)
    np.testing.assert_allclose(np.exp(scores.astype(np.float64)).sum(1), 1.0, atol=1e-5)
    x[1, 0] = np.nan
    scores, _ = native.vocabulary(x, weight, everything)
    assert np.isfinite(scores[0]).all() and np.isnan(scores[1]).all()
    with pytest.raises(ValueError, match="column 74, the vocabulary has 74"):
        native.vocabulary(x, weight, everything + 1)


@pytest.mark.parametrize("streams", (1, 3))
def test_lstm_is_the_gates_of_the_slow_product_one_frame_after_another(streams: int) -> None:
    inputs, dim, frames = 20, 37, 6
    qw, qr = codes(2, 4 * dim, inputs), codes(4, 4 * dim, dim)
    sw, sr = np.full((4 * dim, 1), 0.4, np.float32), np.full((4 * dim, 1), 0.06, np.float32)
    weight, recurrent = native.matrix((qw, 2, sw)), native.matrix((qr, 4, sr))
    x, bias = normal(frames, streams, inputs), normal(4 * dim)

    def run() -> tuple[Floats, Floats, Floats]:
        h, c = normal(streams, dim, seed=2), normal(streams, dim, seed=3)
        return native.lstm(x, weight, recurrent, bias, h, c), h, c

    found = same_on_every_isa(run)
    h, c = normal(streams, dim, seed=2), normal(streams, dim, seed=3)
    outputs = []
    for frame in x:
        gates = reference.linear(frame, qw, sw, bias) + reference.linear(h, qr, sr)
        i, f, g, o = np.split(gates.astype(np.float64), 4, axis=1)
        c = (c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))).astype(np.float32)
        h = (np.tanh(c.astype(np.float64)) / (1 + np.exp(-o))).astype(np.float32)
        outputs.append(h)
    expected = np.concatenate([np.ravel(outputs), h.ravel(), c.ravel()])
    np.testing.assert_allclose(found, expected, atol=2e-3)  # an activation may round to its other neighbour


def test_lstm_in_chunks_gives_the_bits_of_the_whole_sequence() -> None:
    q, step = codes(2, 64, 16), np.full((64, 1), 0.3, np.float32)
    weight, x = native.matrix((q, 2, step)), normal(20, 1, 16)
    h, c, whole_h, whole_c = (np.zeros((1, 16), np.float32) for _ in range(4))
    whole = native.lstm(x, weight, weight, None, whole_h, whole_c)
    parts = [native.lstm(x[a:b], weight, weight, None, h, c) for a, b in ((0, 1), (1, 8), (8, 20))]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(h, whole_h) and np.array_equal(c, whole_c)
    with pytest.raises(ValueError, match=r"an LSTM of width 16 has two matrices of 64 rows"):
        native.lstm(x, native.matrix((q[:60], 2, step[:60])), weight, None, h, c)


@pytest.mark.parametrize(("stride", "dilation", "channels"), ((1, 1, 50), (2, 1, 16), (1, 2, 7), (3, 2, 33)))
def test_depthwise_equals_torchs_grouped_convolution(stride: int, dilation: int, channels: int) -> None:
    x, taps, bias = normal(61, channels), normal(11, channels), normal(channels)
    found = same_on_every_isa(
        lambda: [
            native.depthwise(x, taps, bias, stride=stride, dilation=dilation, pad=5 * dilation, relu=True)
        ]
    )
    expected = torch.nn.functional.conv1d(
        torch.from_numpy(x.T.copy())[None].double(),
        torch.from_numpy(taps.T.copy())[:, None].double(),
        torch.from_numpy(bias).double(),
        stride,
        5 * dilation,
        dilation,
        channels,
    )
    np.testing.assert_allclose(found, expected[0].T.relu().ravel(), atol=2e-5)


@pytest.mark.parametrize(
    "zeros, structured", ((0, False), (128, False), (230, False), (255, False), (128, True))
)
def test_generated_matrices_are_those_of_the_seed(zeros: int, structured: bool) -> None:
    for cols in (64, 100, 36):
        signs = Signs(seed=7, layer=3, rows=45, cols=cols, zeros=zeros, structured=structured)
        weight, stored = native.generated(signs, 0.5), signs.rows_of()
        for isa in ISAS:
            native.use_isa(isa)
            rows = native.gather(weight, np.arange(45, dtype=np.int32))
            assert np.array_equal(rows, 0.5 * stored)
            for count in (1, 8, 20):
                x, step = normal(count, cols), np.full((45, 1), 0.5, np.float32)
                assert np.array_equal(native.linear(x, weight), reference.linear(x, stored, step))


def test_layer_norm_is_the_one_of_torch() -> None:
    x, gain, bias = 3 + 2 * normal(5, 45), normal(45, seed=2), normal(45, seed=3)
    found = same_on_every_isa(lambda: [native.layer_norm(x, gain, bias)])
    tensors = [torch.from_numpy(a) for a in (x, gain, bias)]
    expected = torch.nn.functional.layer_norm(tensors[0], (45,), *tensors[1:])
    np.testing.assert_allclose(found, expected.ravel(), atol=2e-6)


@pytest.mark.parametrize("heads", (1, 2, 3, 12))
@pytest.mark.parametrize("n, t, past", ((1, 1, 0), (1, 1, 9), (3, 1, 74), (2, 7, 0), (2, 4, 33), (1, 80, 0)))
def test_a_transformer_block_is_its_parts_one_after_another(n: int, t: int, past: int, heads: int) -> None:
    dim, hidden, room = 48, 96, past + t + (heads == 3)
    draw = np.random.default_rng(5)
    shapes = ((3 * dim, dim), (dim, dim), (hidden, dim), (dim, hidden))
    parts = [(codes(4, o, i, i + o), np.full((o, 1), 0.02, np.float32), normal(o, seed=o)) for o, i in shapes]
    maps = [(native.matrix((q, 4, step)), bias) for q, step, bias in parts]
    norms = [normal(dim, seed=seed) for seed in range(4)]
    block = native.transformer_block(*maps, norms, heads)  # type: ignore[arg-type]
    x, cache = normal(n * t, dim), draw.standard_normal((2, n, heads, room, dim // heads)).astype(np.float32)

    def run() -> tuple[Floats, Floats, Floats]:
        rows, keys, values = x.copy(), cache[0].swapaxes(2, 3).copy(), cache[1].copy()
        native.transformer([block], rows, n, keys[None], values[None], past)
        return rows, keys, values

    def linear(rows: Floats, at: int, **more: object) -> Floats:
        q, step, bias = parts[at]
        return reference.linear(rows, q, step, bias, **more)  # type: ignore[arg-type]

    def norm(rows: Floats, at: int) -> Floats:
        return native.layer_norm(rows, norms[at], norms[at + 1])

    found = same_on_every_isa(run)
    keys, values = cache.copy()
    new = linear(x, 0).reshape(n, t, 3, heads, dim // heads).transpose(2, 0, 3, 1, 4)
    keys[:, :, past : past + t], values[:, :, past : past + t] = new[1], new[2]
    scores = new[0] @ keys[:, :, : past + t].swapaxes(2, 3) / np.sqrt(dim // heads)
    scores[..., np.triu(np.ones((t, past + t), bool), past + 1)] = -np.inf
    shares = torch.softmax(torch.from_numpy(scores), -1).numpy()
    y = (shares @ values[:, :, : past + t]).swapaxes(1, 2).reshape(n * t, dim)
    z = norm(linear(y.astype(np.float32), 1, residual=x), 0)
    wide = torch.nn.functional.gelu(torch.from_numpy(linear(z, 2))).numpy()
    z = norm(linear(wide, 3, residual=z), 2)
    np.testing.assert_allclose(found[: z.size], z.ravel(), atol=0.05)  # an activation may round otherwise
    assert np.abs(found[: z.size] - z.ravel()).mean() < 2e-3
    cached = np.concatenate([keys.swapaxes(2, 3).ravel(), values.ravel()])
    assert np.array_equal(found[z.size :], cached)


def test_float_activations_give_layers_of_the_dequantized_weights() -> None:
    def weight(o: int, i: int) -> tuple[Any, torch.Tensor]:
        q, step = codes(4, o, i, o + i), np.full((o, 1), 0.05, np.float32)
        return native.matrix((q, 4, step)), torch.from_numpy(q * step)

    (words, dense), x, bias = weight(70, 40), normal(5, 40), normal(70)
    chosen = np.arange(15, dtype=np.int32).reshape(5, 3) * 4
    scores, lse = native.vocabulary(x, words, chosen, bias, float_activations=True)
    logits = torch.from_numpy(x).double() @ dense.double().T + torch.from_numpy(bias)
    np.testing.assert_allclose(lse, logits.logsumexp(1), atol=1e-6)
    expected = logits.log_softmax(1).gather(1, torch.from_numpy(chosen).long())
    np.testing.assert_allclose(scores, expected, atol=2e-6)

    (gates, dense), (recurrent, dense_r) = weight(64, 20), weight(64, 16)
    frames, bias, h, c = normal(6, 2, 20), normal(64), normal(2, 16, seed=2), normal(2, 16, seed=3)
    own = torch.nn.LSTM(20, 16)
    with torch.no_grad():
        for parameter, value in zip(
            own.parameters(), (dense, dense_r, torch.from_numpy(bias), torch.zeros(64)), strict=True
        ):
            parameter.copy_(value)
        expected, _ = own(torch.from_numpy(frames), tuple(torch.from_numpy(s)[None].clone() for s in (h, c)))
    found = native.lstm(frames, gates, recurrent, bias, h, c, float_activations=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(h, expected[-1], atol=2e-6)

    dim, wide, heads = 24, 40, 2
    maps = [weight(o, i) for o, i in ((3 * dim, dim), (dim, dim), (wide, dim), (dim, wide))]
    vectors = [normal(m.rows, seed=at) for at, (m, _) in enumerate(maps)]
    norms = tuple(normal(dim, seed=10 + at) for at in range(4))
    parts = [(m, bias) for (m, _), bias in zip(maps, vectors, strict=True)]
    block = native.transformer_block(*parts, norms, heads, float_activations=True)  # type: ignore[arg-type]
    layer = torch.nn.TransformerEncoderLayer(dim, heads, wide, 0.0, "gelu", batch_first=True).eval()
    attention, given = layer.self_attn, [tensor for _, tensor in maps]
    names = (attention.in_proj_weight, attention.out_proj.weight, layer.linear1.weight, layer.linear2.weight)
    biases = (attention.in_proj_bias, attention.out_proj.bias, layer.linear1.bias, layer.linear2.bias)
    others = (layer.norm1.weight, layer.norm1.bias, layer.norm2.weight, layer.norm2.bias)
    tensors = [*given, *map(torch.from_numpy, (*vectors, *norms))]
    rows, keys, values = (
        normal(2 * 9, dim),
        np.zeros((2, 2, 12, 16), np.float32),
        np.zeros((2, 2, 16, 12), np.float32),
    )
    with torch.no_grad():
        for parameter, value in zip((*names, *biases, *others), tensors, strict=True):
            parameter.copy_(value)
        mask = torch.nn.Transformer.generate_square_subsequent_mask(9)
        expected = layer(torch.from_numpy(rows.copy()).view(2, 9, dim), mask)
    native.transformer([block], rows, 2, keys[None], values[None], 0)
    np.testing.assert_allclose(rows.reshape(2, 9, dim), expected, atol=2e-5)


def test_a_block_refuses_a_cache_without_room_and_matrices_that_do_not_fit() -> None:
    square = native.matrix((codes(2, 16, 16), 2, np.ones((16, 1), np.float32)))
    three = native.matrix((codes(2, 48, 16), 2, np.ones((48, 1), np.float32)))
    ones = np.ones(16, np.float32)
    block = native.transformer_block(
        (three, None), (square, None), (square, None), (square, None), (ones,) * 4, 2
    )
    keys, values = np.zeros((1, 2, 8, 4), np.float32), np.zeros((1, 2, 4, 8), np.float32)
    with pytest.raises(ValueError, match="too little room for 4 past and 1 new tokens"):
        native.transformer([block], np.ones((1, 16), np.float32), 1, keys[None], values[None], 4)
    with pytest.raises(ValueError, match=r"keys \(1, 1, 2, 8, 4\) has a shape other than \(2, 1, 2, 8"):
        native.transformer([block, block], np.ones((1, 16), np.float32), 1, keys[None], values[None], 0)
    with pytest.raises(ValueError, match="matrices of a block of width 16 do not fit"):
        native.transformer_block((square, None), *[(square, None)] * 3, (ones,) * 4, 2)


def test_ceilings_are_rates_that_a_product_cannot_pass() -> None:
    native.set_threads(1)
    assert 1e8 < native.read_rate(1 << 20, 0.02) < 1e13
    assert 1e8 < native.peak_rate(0.02) < 1e15
