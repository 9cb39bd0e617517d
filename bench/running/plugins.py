"""What plugins may get wrong: a task that lacks something, answers and scores of a wrong type, errors of their own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from torch import Tensor

from bench import registry
from bench.errors import UsageError
from bench.records import RecordsError
from tasks.base import Answer, Sample, Task, Victim

NEEDED = (
    *("version", "metric", "ceiling", "worst", "model", "part_scores_as_whole"),
    *("fits", "bind", "score", "broken", "applies"),
)


def task_class(name: str) -> type[Task]:
    """A task by name.

    Raises:
        UsageError: it is unknown, or a plugin's that lacks what `tasks.base.Task` needs.
    """
    found = registry.resolve("bench.tasks", name)
    if not isinstance(found, type):
        raise registry.broken("bench.tasks", name, f"it is a {type(found).__name__}, not a class like tasks.base.Task")
    missing = registry.examined("bench.tasks", name, lambda: [one for one in NEEDED if not hasattr(found, one)])
    if missing:
        raise registry.broken("bench.tasks", name, f"it lacks {', '.join(missing)}; see tasks.base.Task")
    return found


def ask(victim: Victim, images: Tensor, samples: Sequence[Sample]) -> list[Answer]:
    """The victim's answers to B images (B, 3, H, W).

    Raises:
        UsageError: they are not what `tasks.base.Victim` says.
    """
    answers: object = victim.predict(images, samples)
    who = f"{type(victim).__module__}.{type(victim).__qualname__}.predict"
    if not isinstance(answers, list | tuple) or len(answers) != len(samples):
        found = f"{len(answers)} answers" if isinstance(answers, list | tuple) else f"a {type(answers).__name__}"
        raise UsageError(f"{who} returned {found} for {len(samples)} images; one tasks.base.Answer per image is needed")
    for answer in answers:
        if not (isinstance(answer, Answer) and isinstance(answer.text, str)):
            raise UsageError(f"{who} answered {answer!r:.80}; a tasks.base.Answer with a text is needed")
    return list(answers)


def score_of(task: Task, answer: Answer, sample: Sample) -> float:
    """A task's score of an answer.

    Raises:
        UsageError: it is no number.
    """
    score = task.score(answer.text, sample)
    try:
        return float(score)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{type(task).__module__}.{type(task).__qualname__}.score returned {score!r:.80}, which is no number"
        ) from error


@contextmanager
def blaming_plugins() -> Iterator[None]:
    """Turn an error that a plugin's code raises into one line that names the plugin.

    Raises:
        UsageError: in place of such an error; others pass.
    """
    try:
        yield
    except (UsageError, RecordsError):
        raise
    except Exception as error:
        if (where := _in_a_plugin(error.__traceback__)) is None:
            raise
        raise UsageError(f"{where} raised {type(error).__name__}: {error}") from error


def _in_a_plugin(trace: TracebackType | None) -> str | None:
    """The innermost place of a plugin's own code that an error came through, in words."""
    points = [point for group in registry.groups() for point in registry.plugins(group).values()]
    packages = {point.module.partition(".")[0] for point in points}
    found = None
    while trace is not None:
        module, code = str(trace.tb_frame.f_globals.get("__name__", "")), trace.tb_frame.f_code
        if module.partition(".")[0] in packages:
            found = f"code of a plugin ({module}.{code.co_qualname}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found
