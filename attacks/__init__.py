"""Adversarial attacks on images. Knows torch; knows nothing of CLIP, datasets or files.

Import each name from its module; nothing is re-exported, so that `attacks.presets` loads without torch and
`attacks.apgd` is never ambiguous between module and function::

    from attacks.apgd import apgd
    from attacks.objective import Classification
    from attacks.threat import ThreatModel

    threat = ThreatModel("linf", 4 / 255)
    outcome = apgd(Classification(model, labels), images, threat, steps=100)
    robust = ~outcome.fooled & ~outcome.failed
"""
