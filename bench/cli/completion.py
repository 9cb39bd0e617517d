"""What a shell completes: names of encoders, tasks, attacks, suites and datasets. Never imports torch."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from attacks.presets import PRESETS
from bench import registry
from bench.cli.say import say
from bench.config import Suite, load_suite, suite_names
from bench.config.request import NO_ATTACK
from bench.config.run_config import ALL_TASKS
from bench.errors import UsageError
from bench.models.encoders import catalogue

Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
SHELLS: Mapping[str, tuple[str, str]] = {  # the file that a shell reads when it begins, and the line for it
    "bash": ("~/.bashrc", 'eval "$(_BENCH_COMPLETE=bash_source bench)"'),
    "zsh": ("~/.zshrc", 'eval "$(_BENCH_COMPLETE=zsh_source bench)"'),
    "fish": ("~/.config/fish/completions/bench.fish", "_BENCH_COMPLETE=fish_source bench | source"),
}


def _several(known: Callable[[Suite], Iterable[str]]) -> Completion:
    """Completes the last of comma-separated names; those given already are not offered again."""

    def complete(context: click.Context, _: click.Parameter, typed: str) -> list[CompletionItem]:
        before, comma, last = typed.rpartition(",")
        given = before.split(",")
        names = dict.fromkeys(known(_suite(context)))
        return [CompletionItem(before + comma + n) for n in names if n.startswith(last) and n not in given]

    return complete


def _suite(context: click.Context) -> Suite:
    """The suite that the command names so far; the default where it names none that can be read."""
    try:
        return load_suite(context.params.get("suite") or "mini")
    except UsageError:
        return load_suite("mini")


def suites(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """Names of suites, else files: a suite of the user's own."""
    found = [CompletionItem(name) for name in suite_names() if name.startswith(typed)]
    return found or [CompletionItem(typed, type="file")]


encoders = _several(
    lambda suite: [*catalogue.aliases(), *catalogue.rows(suite.encoders), *registry.plugins("bench.encoders")]
)
tasks = _several(lambda suite: [*suite.tasks, *registry.plugins("bench.tasks"), ALL_TASKS])
datasets = _several(lambda suite: [name for plan in suite.tasks.values() for name in (*plan.datasets, *plan.optional)])
attacks = _several(lambda suite: [NO_ATTACK, *PRESETS, *suite.attacks, *registry.plugins("bench.attacks")])


def install_completion(context: click.Context, _: click.Parameter, shell: str | None) -> None:
    """Add the line that makes a shell ask `bench` to the file it reads when it begins, and exit."""
    if shell is None or context.resilient_parsing:
        return
    place, line = SHELLS[shell]
    path = Path(place).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if line not in before.split("\n"):
            with path.open("a", encoding="utf-8") as file:  # so that no full disk takes what was there
                file.write(f"{line}\n" if before == "" or before.endswith("\n") else f"\n{line}\n")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: {error}; add this line by hand: {line}") from error
    say(f"{path} has the line {line!r}; begin a new shell to use it")
    context.exit()
