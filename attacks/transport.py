"""Local features: k-means centres of patch tokens, and the optimal transport between two sets of them."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

LLOYD_STEPS = 10  # ours: the publication does not say
SMOOTHING = 0.1  # of the entropic transport, on cosine distances; as in the released code
SINKHORN_STEPS = 100  # ours: the plan has long settled


def centres(tokens: Tensor, count: int) -> Tensor:
    """The k-means centres (b, K, W) of each image's patch tokens (b, N, W), K = min(count, N).

    Which token belongs to which centre carries no gradient; a centre is the mean of its tokens and does. It begins with
    tokens far apart: the first, then each time the one farthest from those chosen. Nothing is drawn at random.
    """
    size = min(count, tokens.shape[1])
    with torch.no_grad():
        places = _far_apart(tokens, size)
        for _ in range(LLOYD_STEPS):
            belongs = _nearest(tokens, places)
            means = _means(tokens, belongs)
            places = torch.where(belongs.sum(1)[..., None] > 0, means, places)
        belongs = _nearest(tokens, places)
    return torch.where(belongs.sum(1)[..., None] > 0, _means(tokens, belongs), places)


def _far_apart(tokens: Tensor, count: int) -> Tensor:
    chosen = tokens[:, :1]
    for _ in range(count - 1):
        gap = torch.cdist(tokens, chosen).amin(2)
        index = gap.argmax(1)[:, None, None].expand(-1, 1, tokens.shape[2])
        chosen = torch.cat([chosen, tokens.gather(1, index)], 1)
    return chosen


def _nearest(tokens: Tensor, places: Tensor) -> Tensor:
    """(b, N, K) of 0 and 1: which centre a token belongs to."""
    index = torch.cdist(tokens, places).argmin(2)
    return torch.nn.functional.one_hot(index, places.shape[1]).to(tokens.dtype)


def _means(tokens: Tensor, belongs: Tensor) -> Tensor:
    return belongs.transpose(1, 2) @ tokens / belongs.sum(1)[..., None].clamp_min(1)


def transport_cost(one: Tensor, other: Tensor) -> Tensor:
    """Entropic optimal transport (b,) between points (b, K, W) and (b, L, W) of equal weight, by cosine distance.

    The gradient is that of the cost under the plan, which is the gradient of the transport itself (Cuturi 2013,
    arXiv 1306.0895, without the entropy).
    """
    cost = 1 - normalize(one, dim=-1) @ normalize(other, dim=-1).transpose(1, 2)
    return (_plan(cost.detach()) * cost).sum((1, 2))


def _plan(cost: Tensor) -> Tensor:
    """(b, K, L): rows sum to 1 / K and columns to 1 / L."""
    kernel, rows, columns = -cost / SMOOTHING, cost.shape[1], cost.shape[2]
    even_rows, even_columns = -torch.tensor(float(rows)).log(), -torch.tensor(float(columns)).log()
    along, across = torch.zeros_like(cost[:, :, :1]), torch.zeros_like(cost[:, :1])
    for _ in range(SINKHORN_STEPS):
        along = even_rows - (kernel + across).logsumexp(2, keepdim=True)
        across = even_columns - (kernel + along).logsumexp(1, keepdim=True)
    return (kernel + along + across).exp()
