"""The attention layers of the notebook are those of PyTorch Geometric.

The definitions are taken from the notebook's own cells, by name, and compared in
float64 with GATConv and GATv2Conv on a random graph.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from studies import run_cells
from torch.nn import functional as F

TOLERANCE = 1e-12
NODES, FEATURES, WIDTH = 12, 5, 7


@pytest.fixture(scope="module")
def cells() -> dict[str, Any]:
    """What the cells that define the layer leave behind."""
    import itertools

    import numpy as np

    from lnlib.norms import normalise

    names: dict[str, Any] = {
        "torch": torch, "np": np, "F": F, "normalise": normalise,
        "itertools": itertools, "eps": 1e-5, "width": WIDTH,
        "settings": {"logit": "layer", "edge": "layer", "weights": "learned"},
    }  # fmt: skip
    run_cells("gnn_attention", ("layer", "arms", "attend", "project"), names)
    return names


def graph(cells: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """Features, padded neighbours with self-loops, mask and edge index."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(NODES, FEATURES, generator=g, dtype=torch.float64)
    linked = torch.rand(NODES, NODES, generator=g) < 0.3
    linked |= torch.eye(NODES, dtype=torch.bool)
    order = torch.argsort((~linked).int(), dim=1, stable=True)
    mask = torch.arange(NODES) < linked.sum(1, keepdim=True)
    target, neighbour = linked.nonzero().T
    return x, order, mask, torch.stack([neighbour, target])


@pytest.mark.parametrize("scoring", ["v1", "v2"])
def test_the_layer_is_that_of_pytorch_geometric(
    cells: dict[str, Any], scoring: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import uses what torch deprecates
        from torch_geometric import nn

    x, lists, mask, edge_index = graph(cells)
    g = torch.Generator().manual_seed(1)
    P = {k: v[None].double() for k, v in cells["draw"](g, FEATURES).items()}
    own, other = cells["project"](P, x[None], x[None, lists], scoring)
    w = cells["attend"](P, own, other, mask, "none", scoring)
    if scoring == "v1":
        layer = nn.GATConv(FEATURES, WIDTH, add_self_loops=False, bias=False).double()
        weights = {
            "lin.weight": P["W"][0].T,
            "att_dst": P["a"][:, None, :WIDTH],
            "att_src": P["a"][:, None, WIDTH:],
        }
    else:
        layer = nn.GATv2Conv(FEATURES, WIDTH, add_self_loops=False, bias=False)
        layer = layer.double()
        weights = {
            "lin_l.weight": P["W"][0].T,
            "lin_r.weight": P["U"][0].T,
            "att": P["a"][:, None, :WIDTH],
        }
        for name in ("lin_l.bias", "lin_r.bias"):
            if name in layer.state_dict():
                weights[name] = torch.zeros(WIDTH, dtype=torch.float64)
    layer.load_state_dict(weights)
    out, (_, alpha) = layer(x, edge_index, return_attention_weights=True)
    ours = torch.zeros(NODES, NODES, dtype=torch.float64)
    ours = ours.scatter_add(1, lists, w[0])
    theirs = torch.zeros_like(ours)
    theirs[edge_index[1], edge_index[0]] = alpha[:, 0]
    assert (ours - theirs).abs().max() < TOLERANCE
    assert (ours @ (x @ P["W"][0]) - out).abs().max() < TOLERANCE


@pytest.mark.parametrize("scoring", ["v1", "v2"])
def test_logit_norm_is_layer_norm_of_each_neighbourhood(
    cells: dict[str, Any], scoring: str
) -> None:
    x, lists, mask, _ = graph(cells)
    g = torch.Generator().manual_seed(2)
    P = {k: v[None].double() for k, v in cells["draw"](g, FEATURES).items()}
    own, other = cells["project"](P, x[None], x[None, lists], scoring)
    plain = cells["logits"](P, own, other, mask, "none", scoring)[0]
    found = cells["attend"](P, own, other, mask, "logit LN", scoring)[0]
    for node in range(NODES):
        s = plain[node, mask[node]]
        wanted = F.layer_norm(s, s.shape, eps=1e-5).softmax(0)
        assert (found[node, mask[node]] - wanted).abs().max() < TOLERANCE
        assert (found[node, ~mask[node]] == 0).all()
