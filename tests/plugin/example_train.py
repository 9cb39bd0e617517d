"""A training objective from outside: FARE that forgives large drifts, which a few odd images cause."""

import torch
from torch import Tensor

from bench.train.objectives import Features, Target, given, objective


@objective("original", about="square root of one plus the squared difference to the original's clean embedding")
def steady(features: Features, target: Target) -> Tensor:
    drift = (features.embedding - given(target.original).embedding).square().sum(-1)
    return torch.sqrt(1 + drift) - 1
