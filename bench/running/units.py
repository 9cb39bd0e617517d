"""Radii and distances as they are recorded: in 1/255 of the pixel range for l-inf, in plain units for l2."""

from attacks.threat import Norm, ThreatModel

UNITS = {"linf": 255, "l2": 1}  # of a recorded radius or distance, in the range of a pixel


def threat_model(norm: Norm, eps: float) -> ThreatModel:
    """The ball of a radius as it is recorded."""
    return ThreatModel(norm, eps / UNITS[norm])
