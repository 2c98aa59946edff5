"""What `ip -j` prints (ip(8))."""

from __future__ import annotations

import json
from typing import Any


def entries(text: str) -> list[dict[str, Any]]:
    """Its objects; none where it prints nothing.

    Names of interfaces stand in it as they are, control characters included, which is no JSON.
    """
    found: list[dict[str, Any]] = json.loads(text.strip() or "[]", strict=False)
    return found
