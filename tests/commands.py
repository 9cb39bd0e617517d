"""Commands in processes of their own that start at once: forked from one that has imported the libraries already."""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from bench.cli import main
from bench.running import forks

PATIENCE = 600


@dataclass
class Command:
    """A process under way or ended, and what it said."""

    process: BaseProcess
    folder: Path

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def poll(self) -> int | None:
        """Its exit code, minus the signal that killed it, or None while it runs."""
        return self.process.exitcode

    def wait(self) -> int:
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {PATIENCE} s: {self.stderr}")
        return self.process.exitcode

    def send(self, number: int) -> None:
        os.kill(self.pid, number)


def start(
    work: Callable[..., object],
    *arguments: Any,
    path: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Command:
    """Begin a function of a module in a process of its own.

    Args:
        work: the function.
        arguments: what it is given.
        path: folders to import from before others.
        environment: of the process, in place of this one's.
        folder: where it works.
    """
    forks.begin()
    said = Path(mkdtemp(dir=_words().name))
    variables = dict(os.environ if environment is None else environment)
    given = (work, arguments, said, [str(one) for one in path], variables, folder)
    process = multiprocessing.get_context("forkserver").Process(target=_carry_out, args=given)
    process.start()
    return Command(process, said)


@cache
def _words() -> "TemporaryDirectory[str]":
    """Where all commands of this process say what they say."""
    return TemporaryDirectory()


def begin(*words: str, **options: Any) -> Command:
    """Begin a `bench` command; options as of `start`."""
    return start(_give, words, **options)


def bench(*words: str, **options: Any) -> Command:
    """A `bench` command that has ended; options as of `start`."""
    command = begin(*words, **options)
    command.wait()
    return command


def together(work: Callable[..., object], *arguments: Any) -> list[Command]:
    """Begin a function in two processes that train together, with the environment that torchrun gives each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    members = [{"RANK": str(k), "LOCAL_RANK": str(k), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"} for k in range(2)]
    return [start(work, *arguments, environment=os.environ | place | one) for one in members]


def _give(words: Sequence[str]) -> None:
    main(list(words))


def _carry_out(
    work: Callable[..., object],
    arguments: Sequence[Any],
    said: Path,
    path: Sequence[str],
    variables: Mapping[str, str],
    folder: Path | None,
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = path
    if folder is not None:
        os.chdir(folder)
    work(*arguments)
