"""Which column of a table plays which role: by its own name, by a usual header, or as a person maps it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from finetuner_core.values import near, quote

# For each role the headers that usually say the same, as `_plain` writes them.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "text": ("texts", "sentence", "caption", "captions"),
    "image": ("images", "image_path", "image_file", "file", "file_name", "filename"),
    "vectors": ("vector", "embedding", "embeddings", "x"),
    "label": ("labels", "class", "category"),
    "labels": ("label", "class", "category", "y"),
    "anchor": ("query", "question", "sentence1", "sentence_1"),
    "positive": ("document", "passage", "answer", "candidate", "candidates", "sentence2", "sentence_2"),
    "negative": ("negatives", "hard_negative", "hard_negatives"),
    "score": ("scores", "similarity"),
}
# What may be there several times: `negative_1`, `negative_2`, or a list in each cell.
_SEVERAL = ("negative", "score")
_CANDIDATE = "candidate"
_NUMBERED = re.compile(r"(.*?)_?(\d+)")


@dataclass(frozen=True)
class Layout:
    """The roles that make a form.

    Args:
        needs: those that must be there.
        may: those that may be there as well.
    """

    needs: tuple[str, ...]
    may: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Whether a name is one of its roles, perhaps with a number behind it."""
        return name in self.needs or role_of(name) in self.may

    def __str__(self) -> str:
        return ",".join(self.needs)


_PAIRS = Layout(("anchor", "positive"), _SEVERAL)

LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "text-to-text": (Layout(("text", "label")), _PAIRS),
    "image-to-image": (Layout(("image", "label")), _PAIRS),
    "text-to-image": (Layout(("text", "image"), _SEVERAL),),
    "all": (Layout(("vectors", "labels")), _PAIRS),
}


@dataclass(frozen=True)
class Roles:
    """What was found.

    Args:
        layout: which form's roles.
        headers: for each role the headers of its columns, in order.
    """

    layout: Layout
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def role_of(name: str) -> str:
    """The role in a name that may have a number behind it.

    >>> role_of("negative_2"), role_of("scores"), role_of("anchor")
    ('negative', 'score', 'anchor')
    """
    plain = _plain(name)
    for role in _SEVERAL:
        if _number(plain, (role, *ALIASES[role])) is not None:
            return role
    return name


def find_roles(
    headers: Iterable[str], layouts: Iterable[Layout], mapped: Mapping[str, str]
) -> tuple[Roles | None, list[str]]:
    """The first layout whose roles are all there: by their own names before by usual headers.

    A mapping that names all that a layout needs is taken as it stands. What it leaves open is looked for.

    Args:
        headers: of the table.
        layouts: those that fit the model.
        mapped: for roles the headers that a person gave.

    Returns:
        What was found, or None; and for a message, which roles more than one column could play.
    """
    found, unclear = list(headers), []
    fitting = [layout for layout in layouts if all(layout.has(name) for name in mapped)]
    for usual in (False, True):
        for layout in fitting:
            free = [header for header in found if header not in mapped.values()]
            roles: dict[str, tuple[str, ...]] = {}
            for role in layout.needs:
                matches = [mapped[role]] if role in mapped else _matches(free, role, usual)
                if role == "positive" and not matches and usual:
                    matches = _several(free, (_CANDIDATE,))
                elif len(matches) > 1:
                    unclear.append(f"{' and '.join(map(quote, matches))} could both be {role}.")
                    continue
                if matches:
                    roles[role] = tuple(matches)
            if len(roles) < len(layout.needs):
                continue
            taken = {header for matches in roles.values() for header in matches}
            for role in layout.may:
                given = _ordered({name: header for name, header in mapped.items() if role_of(name) == role})
                if not given and not {*layout.needs} <= {*mapped}:
                    rest = [header for header in free if header not in taken]
                    given = _several(rest, (role, *ALIASES[role]))
                if given:
                    roles[role] = tuple(given)
            return Roles(layout, roles), []
    return None, list(dict.fromkeys(unclear))


def unknown_name(name: str, layouts: Iterable[Layout]) -> str | None:
    """What is wrong with the left side of a mapping, or None."""
    known = list(dict.fromkeys(role for layout in layouts for role in (*layout.needs, *layout.may)))
    if name in known or role_of(name) in known:
        return None
    return (
        f"{near(name, known)}\n"
        f"A mapping has one of {', '.join(known)} on its left, and the file's own header on its right."
    )


def could_be(header: str, role: str) -> bool:
    """Whether a header is a role's own name, or a usual one for it."""
    return _plain(header) in (role, *ALIASES[role])


def _matches(headers: list[str], role: str, usual: bool) -> list[str]:
    own = [header for header in headers if header == role] or [header for header in headers if _plain(header) == role]
    return own or [header for header in headers if usual and could_be(header, role)]


def _several(headers: list[str], names: tuple[str, ...]) -> list[str]:
    """The numbered columns of a role in order; a single one without a number stands first."""
    return _ordered({header: header for header in headers if _number(_plain(header), names) is not None})


def _ordered(header_of: Mapping[str, str]) -> list[str]:
    def place(name: str) -> int:
        match = _NUMBERED.fullmatch(_plain(name))
        return int(match[2]) if match else -1

    return [header_of[name] for name in sorted(header_of, key=place)]


def _number(plain: str, names: tuple[str, ...]) -> int | None:
    if plain in names:
        return -1
    match = _NUMBERED.fullmatch(plain)
    return int(match[2]) if match and match[1] in names else None


def _plain(header: str) -> str:
    return header.strip().lower().replace(" ", "_").replace("-", "_")
