"""Everything that a training job can be asked for. Never imports torch."""

from dataclasses import dataclass, fields
from pathlib import Path

from bench.config import DEFAULT_OUTPUT, load_suite
from bench.errors import UsageError
from bench.train.recipe import Attack, Recipe, paper_flaws
from bench.train.schedule import Schedule

RECIPES = ("default", "paper")
PAPER_WARMUP = 0.07  # of the updates: 1,400 of 20,000
SCORING_PASSES = 5 * 100 * 100 * 2  # datasets, images, steps and radii of the mini suite's zero-shot task
_LEAST = {"micro_batch": 1, "data_threads": 1, "eval_images": 0, "eval_every": 1, "checkpoint_every": 1}


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What to train, from what, and where to. `bench train` makes its options of this: names, defaults, help.

    Args:
        objective: Name of a training objective.
        arch: open_clip architecture, hf-hub:NAME, or an open_clip folder.
        weights: Pretrained tag such as openai, a file, or 'random'. Folders and hub: their own.
        data: imagefolder:DIR, folder:DIR, webdataset:PATTERN or hf:NAME?split=train.
        output: Run directory; in the end an open_clip folder.
        classnames: A file with a class name or folder<TAB>name per line, or imagenet. Default: folder names.
        eval_images: Images held out (at most 5 % of the data); 0 for none.
        eval_data: Another source for the held-out images; needed with webdataset:.
        eval_every: Updates between evaluations.
        data_threads: Threads that decode images, per process.
        score: Suite whose zero-shot scores enter the card; none: no scores. Default: mini, if cheap.
        data_root: Datasets of that suite.
        results: Records of the scores.
        recipe: 'paper': with the flaws of the published code; see --flaw.
        eps: Radius of the inner attack, in 1/255.
        steps: Updates.
        batch: Images per update, over all devices.
        lr: Highest learning rate.
        warmup: Updates of warm-up. Default: 7 % of the updates, as in the paper.
        weight_decay: Of AdamW, on all parameters.
        attack: Inner attack.
        inner_steps: Steps of the inner attack.
        inner_step: Length of a PGD step, in 1/255.
        clean_weight: Weight of the loss on clean images, in [0, 1).
        ramp: Share of the run over which eps grows from 0.
        seed: Of data order, noise and random weights.
        flaws: Reproduce one flaw of the published code by name; repeatable.
        device: auto, cpu or cuda.
        micro_batch: Images at once on a device; gradients accumulate.
        bf16: bfloat16 autocast; weights and perturbations stay float32.
        compiled: torch.compile the towers.
        checkpoint_activations: Less memory, about a third more work.
        checkpoint_every: Updates between checkpoints.
        log_to: Send the loss curve there, too, comma-separated: tensorboard:DIR, mlflow:DIR or URL, wandb:PROJECT.
    """

    objective: str
    arch: str
    data: str
    output: Path
    weights: str | None = None
    classnames: Path | None = None
    eval_images: int = 256
    eval_data: str | None = None
    eval_every: int = 1000
    data_threads: int = 4
    score: str | None = None
    data_root: Path | None = None
    results: Path = DEFAULT_OUTPUT
    recipe: str = "default"
    eps: float = 4.0
    steps: int = 20_000
    batch: int = 128
    lr: float = 1e-5
    warmup: int | None = None
    weight_decay: float = 1e-4
    attack: Attack = "pgd"
    inner_steps: int = 10
    inner_step: float = 1.0
    clean_weight: float = 0.0
    ramp: float = 0.0
    seed: int = 0
    flaws: tuple[str, ...] = ()
    device: str = "auto"
    micro_batch: int | None = None
    bf16: bool = False
    compiled: bool = False
    checkpoint_activations: bool = False
    checkpoint_every: int = 100
    log_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} must be at least {least}; got {value}")
        if self.recipe not in RECIPES:
            raise UsageError(f"--recipe must be one of {', '.join(RECIPES)}; got {self.recipe!r}")
        if self.score not in (None, "none"):
            load_suite(self.score)
        self.resolved()

    def resolved(self) -> Recipe:
        """The recipe that the options amount to.

        Raises:
            UsageError: a value out of its range, or an unknown flaw.
        """
        warmup = round(PAPER_WARMUP * self.steps) if self.warmup is None else self.warmup
        flaws = {*self.flaws, *(paper_flaws(self.attack) if self.recipe == "paper" else ())}
        return Recipe(
            objective=self.objective,
            eps_255=self.eps,
            schedule=Schedule(self.steps, self.batch, self.lr, warmup, self.weight_decay),
            inner_steps=self.inner_steps,
            inner_step_255=self.inner_step,
            ramp=self.ramp,
            seed=self.seed,
            attack=self.attack,
            clean_weight=self.clean_weight,
            flaws=tuple(sorted(flaws)) if self.recipe == "paper" else self.flaws,
        )

    def suite_to_score(self) -> str | None:
        """The suite whose zero-shot scores enter the card: the one asked for, else the mini suite if it is cheap.

        It attacks 500 images with 100 steps at two radii, and is left out where training took less than four times
        that.
        """
        if self.score is not None:
            return None if self.score == "none" else self.score
        passes = self.steps * self.batch * (self.inner_steps + 1)
        return "mini" if passes >= 4 * SCORING_PASSES else None


def help_of_fields() -> dict[str, str]:
    """What the docstring of `TrainingJob` says of each of its fields."""
    lines = [line.strip().partition(": ") for line in (TrainingJob.__doc__ or "").splitlines()]
    known = {field.name for field in fields(TrainingJob)}
    return {name: about for name, _, about in lines if name in known}
