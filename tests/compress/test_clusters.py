"""Clusters cover every quantizable weight exactly once."""

import pytest
import torch
from torch import nn

from greenasr.compress.clusters import check_clusters, make_clusters, span_key, weights
from greenasr.models.tdnnf import Tdnnf, TdnnfConfig
from greenasr.models.transformer_lm import TransformerConfig, TransformerLM
from greenasr.roles import Cluster, Span


def network(tied: bool = True) -> TransformerLM:
    return TransformerLM(
        TransformerConfig(vocab=20, layers=2, dim=8, heads=2, hidden=12, context=10, tied=tied)
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("by", ["matrix", "block", "layer"])
@pytest.mark.parametrize("bands", [{}, {"embedding.weight": [3, 9]}])
def test_every_row_of_every_weight_lies_in_one_cluster(
    tied: bool, by: str, bands: dict[str, list[int]]
) -> None:
    model = network(tied)
    clusters = make_clusters(model, by, bands)
    check_clusters(model, clusters)
    count = {name: torch.zeros(len(weight)) for name, weight in weights(model).items()}
    for span in (span for cluster in clusters for span in cluster.spans):
        count[span.name][span.start : span.stop] += 1
        assert span.cols == weights(model)[span.name].flatten(1).shape[1]
    assert all((rows == 1).all() for rows in count.values())
    assert sum(c.numel for c in clusters) == sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert len({cluster.name for cluster in clusters}) == len(clusters)


def test_by_matrix_there_is_a_cluster_a_parameter_and_a_tied_one_counts_once() -> None:
    names = [cluster.name for cluster in make_clusters(network())]
    assert names == list(weights(network()))
    assert "embedding.weight" in names and "output.weight" not in names
    assert "output.weight" in weights(network(tied=False))


def test_by_block_attention_and_feed_forward_are_whole() -> None:
    clusters = {c.name: [s.name for s in c.spans] for c in make_clusters(network(), "block")}
    assert clusters["layers.0.attention"] == [
        f"layers.0.attention.{m}.weight" for m in ("q", "k", "v", "out")
    ]
    assert clusters["layers.1"] == ["layers.1.w1.weight", "layers.1.w2.weight"]
    assert set(clusters) == {
        *("embedding.weight", "position.weight"),
        *("layers.0.attention", "layers.0", "layers.1.attention", "layers.1"),
    }


def test_by_layer_both_factors_of_a_tdnnf_layer_and_all_of_a_transformer_layer_are_one() -> None:
    tdnnf = Tdnnf(TdnnfConfig(feat_dim=5, n_pdfs=7, layers=2, dim=8, bottleneck=3, prefinal=4))
    clusters = {c.name: [s.name for s in c.spans] for c in make_clusters(tdnnf, "layer", skip=["xent"])}
    assert clusters == {
        "input": ["input.affine.weight"],
        "layers.0": ["layers.0.linear.weight", "layers.0.affine.weight"],
        "layers.1": ["layers.1.linear.weight", "layers.1.affine.weight"],
        "prefinal.weight": ["prefinal.weight"],
        "chain": ["chain.affine.weight", "chain.linear.weight"],
        "output.weight": ["output.weight"],
        "output_xent.weight": ["output_xent.weight"],
    }
    assert make_clusters(tdnnf, "block") == make_clusters(tdnnf, "layer")
    assert [c.name for c in make_clusters(network(), "layer")][-2:] == ["layers.0", "layers.1"]
    with pytest.raises(ValueError, match="no module of Tdnnf is called 'head'"):
        make_clusters(tdnnf, skip=["head"])


def test_bands_are_clusters_of_their_own() -> None:
    clusters = make_clusters(network(), bands={"embedding.weight": [3, 9]})
    assert [c.name for c in clusters][:3] == [f"embedding.weight[{rows}]" for rows in ("0:3", "3:9", "9:20")]
    assert [span_key(s) for c in clusters[:3] for s in c.spans] == [c.name for c in clusters[:3]]


def test_convolutions_are_rows_of_all_that_an_output_sees() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.BatchNorm1d(6), nn.PReLU(6))
    (cluster,) = make_clusters(model)
    assert cluster.spans == (Span("0.weight", 0, 6, 6),)
    assert cluster.numel == model[0].weight.numel()


def test_what_the_model_does_not_have_is_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="bands name weights that TransformerLM does not have: 9.weight"):
        make_clusters(model, bands={"9.weight": [1]})
    for cuts in ([0], [20], [5, 5], [9, 3]):
        with pytest.raises(ValueError, match="bands of embedding.weight must grow between 1 and 19"):
            make_clusters(model, bands={"embedding.weight": cuts})
    with pytest.raises(ValueError, match="clusters by 'head': choose matrix or block or layer"):
        make_clusters(model, "head")
    with pytest.raises(ValueError, match="LayerNorm has no linear, embedding or convolution weight"):
        make_clusters(nn.LayerNorm(3))
    with pytest.raises(ValueError, match="does not have: 9.weight. It has 14 quantizable weights"):
        check_clusters(model, [Cluster("c", (Span("9.weight", 0, 1, 1),))])
    for span in (Span("embedding.weight", 0, 21, 8), Span("embedding.weight", 0, 20, 9)):
        with pytest.raises(
            ValueError, match=r"for embedding.weight, the model \(20, 8\): it was made for another size"
        ):
            check_clusters(model, [Cluster("c", (span,))])
