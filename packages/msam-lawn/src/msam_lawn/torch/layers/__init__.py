"""How layers compute with a stack of weights, one family a file, and the registry that they and users write into."""

from msam_lawn.torch.layers import attention, convolution, embedding, linear, normalisation, recurrent
from msam_lawn.torch.layers.registry import prefers_interleaving, rule
from msam_lawn.torch.layers.stand_in import Pass, Rows, StandIn, WeightStack

__all__ = [
    "Pass",
    "Rows",
    "StandIn",
    "WeightStack",
    "attention",
    "convolution",
    "embedding",
    "linear",
    "normalisation",
    "prefers_interleaving",
    "recurrent",
    "rule",
]
