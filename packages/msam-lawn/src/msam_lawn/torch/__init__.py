"""mSAM, LAWN and flatness for torch (extra ``torch``)."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("torch") is None:
    raise ModuleNotFoundError("msam_lawn.torch needs the extra: pip install 'msam-lawn[torch]'", name="torch")

from msam_lawn.torch.engines.choice import EngineChoice
from msam_lawn.torch.flatness import HessianProduct, micro_batch_sharpness
from msam_lawn.torch.homogeneous import HomogeneousTail, homogeneous_tail
from msam_lawn.torch.lawn import LAWN
from msam_lawn.torch.sam import SAM

__all__ = [
    "LAWN",
    "SAM",
    "EngineChoice",
    "HessianProduct",
    "HomogeneousTail",
    "homogeneous_tail",
    "micro_batch_sharpness",
]
