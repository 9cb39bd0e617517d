"""Every command in the manual and the README is one that there is."""

import click
import pytest

from bench.cli.root import main
from tests.docs.pages import PAGES, blocks, commands, readme_commands

COMMANDS = [
    pytest.param(words, id=f"{page.stem}: {' '.join(words)[:60]}")
    for page in PAGES
    for block in blocks(page)
    for words in commands(block.text)
]


def parsed(words: list[str]) -> click.Context:
    """The context of a command line that has been read and not carried out."""
    command, context, words = main, click.Context(main, info_name="bench"), list(words)
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)
        assert command is not None, name
        if not isinstance(command, click.Group):
            return command.make_context(name, words, parent=context)
        context = click.Context(command, info_name=name, parent=context)
    raise AssertionError(words)


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_the_manual_is_understood(words):
    parsed(words)


@pytest.mark.parametrize("words", readme_commands(), ids=" ".join)
def test_a_command_of_the_readme_is_understood(words):
    parsed(words)


def test_what_is_not_a_command_is_not_understood():
    for words in (["run", "--encodr", "clip"], ["tabel"], ["train", "fare", "--arch", "x", "--steps", "many"]):
        with pytest.raises(click.ClickException):
            parsed(words)


def test_commands_are_found():
    assert commands("bench run --a 1 \\\n  --b 2   # why\npip install x && bench table ...\n") == [
        ["run", "--a", "1", "--b", "2"],
        ["table"],
    ]
    assert len(COMMANDS) > 20
    assert ["run", "--encoder", "fare", "--task", "vqa"] in readme_commands()
