"""The shell blocks of the manual: what is in them, and which of them run anywhere."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
_FENCE = re.compile(
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)
_INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; its title says what it needs, if anything. One without a language is there to be read."""

    text: str
    language: str
    title: str | None

    @property
    def offline(self) -> bool:
        """Whether it is to be run, with nothing but this repository."""
        return self.language == "sh" and not (self.title or "").startswith(("Needs", "Takes"))


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order, but those in another language."""
    return [
        Block(found["text"], found["language"], found["title"])
        for found in _FENCE.finditer(page.read_text(encoding="utf-8"))
    ]


def commands(text: str) -> list[list[str]]:
    """The `bench` commands in shell text as lists of words, without ``bench``; "..." stands for what is left out."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = (part.strip() for line in joined.splitlines() for part in re.split(r"&&|;", line))
    words = (shlex.split(line, comments=True) for line in lines if re.match(r"(?:\$ )?bench ", line))
    return [[word for word in found[1:] if word != "..."] for found in words]


def readme_commands() -> list[list[str]]:
    """The `bench` commands in the README's indented blocks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [found for block in _INDENTED.findall(text) for found in commands(block.replace("\n    ", "\n").strip())]
