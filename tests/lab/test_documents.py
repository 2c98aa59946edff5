"""All that the documents have somebody type is typed, in their order, and is as they show it.

    docs/lab.md makes the lab, and removes it when the other documents have been followed in it

What needs a booted Debian is in tests/machines/test_documents.py; that nothing is left out, in
tests/unit/test_documents.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from onionward.lab import destroy, find
from onionward.system import System
from tests.documents.in_lab import InLab, make
from tests.documents.session import (
    INDEX,
    Session,
    blocks,
    documents,
    substitutions,
)

DOCUMENTS = {document.name: document for document in documents()}
LAST = "docs/lab.md"
IN_LAB = blocks(debian=False)


@pytest.fixture(scope="module")
def place() -> Iterator[InLab]:
    """The machines of a lab of these documents' own."""
    name = f"documents-{os.getpid()}"
    made = make(name)
    try:
        assert made.status == 0, made.output
        yield InLab(find(name), made)
    finally:
        destroy(System(), name)


@pytest.mark.parametrize("name", sorted(IN_LAB, key=lambda name: name == LAST))
def test_it_is_as_the_document_says(place: InLab, name: str) -> None:
    table = substitutions(DOCUMENTS[INDEX])
    session = Session(place, "host", table, place.lab.onion)
    if name == LAST:
        session.follow(IN_LAB[name])
    else:
        with place.left_as_found():
            session.follow(IN_LAB[name])
    assert session.ran
