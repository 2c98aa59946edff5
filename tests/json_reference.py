"""What docs/json.md says of `onionward status --json`, and whether a real answer keeps to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parents[1] / "docs/json.md"
_ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| (.+) \|$", re.MULTILINE)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "number": (int,),
    "time": (int, float),
    "text": (str,),
    "names": (list,),
    "list": (list,),
    "object": (dict,),
    "null": (type(None),),
    "true": (bool,),
    "false": (bool,),
}


def tables() -> dict[str, dict[str, str]]:
    """For each section with a table: keys and their types."""
    found = {}
    whole = REFERENCE.read_text()
    of_status = whole.partition("## `onionward status --json`")[2].partition("\n## ")[0]
    for part in of_status.split("\n### ")[1:]:
        title, _, body = part.partition("\n")
        if rows := _ROW.findall(body):
            found[title.strip("`")] = {key: kind for key, kind, _ in rows}
    return found


def mismatches(document: Mapping[str, Any]) -> Iterator[str]:
    """What a document has otherwise than the reference says."""
    found = tables()
    yield from _of_object("The object", document, found["The object"])
    for key in found.keys() - {"The object"}:
        for entry in document[key]:
            yield from _of_object(key, entry, found[key])


def _of_object(title: str, entry: Mapping[str, Any], keys: Mapping[str, str]) -> Iterator[str]:
    if entry.keys() != keys.keys():
        yield f"{title}: {sorted(entry.keys() ^ keys.keys())}"
    for key, kind in keys.items():
        accepted = tuple(t for word in kind.split(" or ") for t in _TYPES[word])
        value = entry.get(key)
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            yield f"{title}: {key}: {value!r} is not: {kind}"
        if kind == "names" and not all(isinstance(name, str) for name in entry[key]):
            yield f"{title}: {key}: {value!r}"
