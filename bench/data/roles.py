"""Roles: what the columns of a table are for, and which column has which."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench import registry
from bench.data.column_maps import ColumnMap
from bench.data.prompts import FIELDS
from bench.errors import UsageError

BY_NAME = ("id", "image", "image_id", "question", "answers", "captions", "label")
"""Roles of the columns that are called like them, unless others are named."""
NAMED = ("choices", "answer", "yes_no", "hint", "ocr", "category")
"""Roles of columns that must be named."""
ROLES = (*BY_NAME, *NAMED)
_OPTIONAL = ("image_id", "hint", "ocr", "category")  # columns that a published table may lack
TASKS = {"choices": "scienceqa", "yes_no": "pope", "answers": "vqa", "captions": "captioning", "label": "zeroshot"}
"""What a table is for, by the first of these roles that it has."""
_SPARE = {
    "choices": ("yes_no", "answers", "captions", "label"),
    "yes_no": ("answers", "captions", "label", "answer"),
    "answers": ("captions", "label", "answer"),
    "captions": ("label", "question", "answer"),
    "label": ("question", "answer"),
}


class Columns(NamedTuple):
    """The column of each role that a table has.

    Attributes:
        kind: the role that says what the table is for.
        options: the columns of the choices.
        notes: what to know of columns that are not there.
    """

    of_role: dict[str, str]
    kind: str
    options: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, dataset: str, present: Sequence[str], facts: ColumnMap, named: Mapping[str, str], *, joined: bool
    ) -> "Columns":
        """The columns named, those of the map, and those that are called like a role.

        Raises:
            UsageError: a role or column is not known, or one that is needed is not there.
        """
        for role in named:
            if role not in ROLES:
                raise registry.unknown(f"role of a column of {dataset}", role, ROLES)
        missing = [
            role for role in _OPTIONAL if role not in named and facts.columns.get(role, "") not in ("", *present)
        ]
        mapped = {role: column for role, column in {**facts.columns, **named}.items() if role not in missing}
        options = _options(dataset, present, mapped.get("choices"))
        for role, column in mapped.items():
            if column not in present and role != "choices" and not (joined and role == "image"):
                raise registry.unknown(f"column of {dataset}", column, present)
        by_name = ("id",) if facts.columns else BY_NAME
        chosen = {
            role: mapped.get(role, role) for role in ROLES if role in mapped or (role in by_name and role in present)
        }
        if joined:
            chosen.setdefault("image", "image")
        notes = tuple(f"there is no column {facts.columns[role]!r}, so no {role}" for role in missing)
        return cls._checked(dataset, present, chosen, options, notes)

    @classmethod
    def _checked(
        cls,
        dataset: str,
        present: Sequence[str],
        chosen: dict[str, str],
        options: tuple[str, ...],
        notes: tuple[str, ...],
    ) -> "Columns":
        if "image" not in chosen:
            raise UsageError(f"{dataset} has no column 'image'; say which: image=COLUMN of {', '.join(present)}")
        kind = next((role for role in TASKS if role in chosen), None)
        if kind is None:
            raise UsageError(
                f"{dataset} has no column 'answers', 'captions' or 'label'; say which of {', '.join(present)} "
                "is one, e.g. answers=COLUMN"
            )
        if kind in ("choices", "yes_no", "answers") and "question" not in chosen:
            raise UsageError(f"{dataset} has {kind} but no column 'question'; say which: question=COLUMN")
        if kind == "choices" and "answer" not in chosen:
            raise UsageError(f"{dataset} has choices, but no column says which is right; say which: answer=COLUMN")
        return cls({r: c for r, c in chosen.items() if r not in _SPARE[kind]}, kind, options, notes)

    @property
    def image(self) -> str:
        """The column of the images."""
        return self.of_role["image"]

    @property
    def texts(self) -> list[str]:
        """All columns but that of the images."""
        plain = [column for role, column in self.of_role.items() if role not in ("image", "choices")]
        return list(dict.fromkeys([*plain, *(self.options if self.kind == "choices" else ())]))

    @property
    def fields(self) -> list[str]:
        """The fields that a prompt's template may have."""
        return [role for role in FIELDS if role in self.of_role]

    @property
    def template(self) -> str:
        """The prompt of such a table."""
        return "{question}\n{choices}" if self.kind == "choices" else "{question}" if "question" in self.of_role else ""


def _options(dataset: str, present: Sequence[str], named: str | None) -> tuple[str, ...]:
    """The columns of the choices that are there: one of lists, or several, of which a table may lack the last."""
    columns = tuple(part.strip() for part in named.split(",")) if named else ()
    found = tuple(column for column in columns if column in present)
    if columns and (not found or found != columns[: len(found)]):
        raise registry.unknown(f"column of {dataset}", next(c for c in columns if c not in present), present)
    return found
