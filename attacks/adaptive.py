"""The adaptive protocol: a defended victim is attacked by one who knows the defence. Imports nothing heavy.

Tramèr et al. 2020 (arXiv 2002.08347), Athalye et al. 2018 (arXiv 1802.00420), Carlini et al. 2019 (arXiv 1902.06705).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from attacks.presets import AttackStep

EOT_DRAWS = 8
PUBLISHED_STEPS = 10  # of PGD, as test-time defences are evaluated by their authors
QUERIES = 300  # of the black-box step
PUBLISHED, BLACK_BOX = "published", "black-box"
OWN_GRADIENT, STAND_IN = ("gradient", "finite_differences"), "stand_in"  # checks on the gradients of a defence


@dataclass(frozen=True)
class Way:
    """How an attack looks at a defended victim.

    Attributes:
        about: in words.
        knowledge: an attack with less of it should not win where one with more does not.
        defended: whether the defence is looked through at all.
        surrogate: whether gradients are those of the defence's stand-in (BPDA).
        draws: of a randomised defence that a loss is averaged over.
    """

    about: str
    knowledge: int
    defended: bool = True
    surrogate: bool = False
    draws: int = 1


WAYS: Mapping[str, Way] = {
    "undefended": Way("made on the undefended model", 0, defended=False),
    "queries": Way("the defended model's answers alone", 1),
    "as-is": Way("gradients through the defence as it is", 2),
    "bpda": Way("gradients of a stand-in on the way back (BPDA)", 3, surrogate=True),
    "eot": Way("BPDA averaged over draws (EoT)", 4, surrogate=True, draws=EOT_DRAWS),
}


def way_of(step: AttackStep) -> Way:
    """How a step looks at a defended victim: one that does not say, as it is."""
    return WAYS[step.through or "as-is"]


def adaptive_steps(base: Sequence[AttackStep], *, randomised: bool, own_gradient: bool) -> tuple[AttackStep, ...]:
    """The adaptive protocol around the steps with which an undefended victim would be attacked.

    1. ``published``: PGD-10 on the undefended model, which is how such defences are scored by their authors;
    2. the base attack on the undefended model (transfer);
    3. the base attack through the defence as it is, with half the steps;
    4. likewise by BPDA; left out where the defence's own gradient is that of its stand-in;
    5. by BPDA averaged over draws, with a quarter of the steps; left out where nothing is drawn;
    6. Square on the defended model's answers, on what is still robust.

    Steps 1 to 5 are taken whether or not steps of another way have broken a sample, so that ways can be compared.

    Args:
        base: steps of the attack.
        randomised: whether the defence draws random numbers.
        own_gradient: whether the defence's own gradient is that of its stand-in.
    """
    first = base[0]
    ways = [("undefended", 1)] + [("as-is", 2)] + [("bpda", 2)] * (not own_gradient) + [("eot", 4)] * randomised
    steps = [AttackStep(PUBLISHED, "pgd", PUBLISHED_STEPS, first.goal, "random", 0.25, options={"momentum": 0.0})]
    steps[0] = replace(steps[0], through="undefended", independent=True)
    for way, share in ways:
        steps += [
            replace(
                step,
                name=f"{way}:{step.name}",
                steps=max(1, step.steps // share),
                through=way,
                independent=True,
                volley=f"{way}:{step.volley}" if step.volley and not randomised else "",
            )
            for step in base
        ]
    steps.append(AttackStep(BLACK_BOX, "squares", QUERIES, first.goal, "clean", 0.0, through="queries"))
    return tuple(steps)
