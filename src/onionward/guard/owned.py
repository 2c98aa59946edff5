"""nftables tables that belong to this process, by libnftables (libnftables(3), nft(8)).

The kernel ties a table with the owner flag to the netlink socket that made it. The nft program
ends, and its tables with it; a library keeps its socket for as long as it is used.
"""

from __future__ import annotations

import ctypes

from onionward.errors import CommandError, StepError
from onionward.system import System
from onionward.tables import LOCK_EGRESS_TABLE, LOCK_TABLE

_LIBRARY = "libnftables.so.1"


class OwnedTables:
    """Tables that nobody else can change.

    Args:
        system: the seam, to which changes are announced.
        tables: their families and names.

    Raises:
        StepError: the library is missing.

    """

    def __init__(
        self,
        system: System,
        tables: tuple[tuple[str, str], ...] = (LOCK_TABLE, LOCK_EGRESS_TABLE),
    ) -> None:
        self._system = system
        self._tables = tables
        try:
            self._library = _declared(ctypes.CDLL(_LIBRARY))
        except OSError as error:
            raise StepError(
                f"{_LIBRARY} is missing: {error}", "it comes with the nft program: install nftables"
            ) from error
        self._context = self._library.nft_ctx_new(0)
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        # a copy that somebody has restored belongs to nobody and is in the way; another guard's
        # is not touched by this
        for table in tables:
            self._library.nft_run_cmd_from_buffer(
                self._context, f"delete table {' '.join(table)}\n".encode()
            )

    def load(self, text: str) -> None:
        """Replace all of them in one transaction.

        Raises:
            CommandError: refused; what was there before is still there.

        """
        self._system.effect(f"load tables of our own: {', '.join(n for _, n in self._tables)}")
        whole = "".join(map(_fresh, self._tables)) + text
        if self._library.nft_run_cmd_from_buffer(self._context, whole.encode()):
            words = self._library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
            raise CommandError(["nft", "--file", "-"], 1, words.strip())

    def close(self) -> None:
        """Give them up; they are gone when this returns."""
        self._library.nft_ctx_free(self._context)

    def has(self, table: tuple[str, str]) -> bool:
        """Whether there is a table, whoever made it."""
        words = f"list chains {table[0]}\n".encode()
        self._library.nft_run_cmd_from_buffer(self._context, words)
        held = self._library.nft_ctx_get_output_buffer(self._context).decode(errors="replace")
        return f"table {' '.join(table)} {{" in held


def _fresh(table: tuple[str, str]) -> str:
    name = " ".join(table)
    # adding first makes the deletion succeed always; an owned table is named with its flag only
    return f"table {name} {{ flags owner; }}\ndelete table {name}\n"


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    context, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("nft_ctx_new", context, [ctypes.c_uint32]),
        ("nft_ctx_buffer_output", number, [context]),
        ("nft_ctx_buffer_error", number, [context]),
        ("nft_ctx_get_error_buffer", text, [context]),
        ("nft_ctx_get_output_buffer", text, [context]),
        ("nft_ctx_free", None, [context]),
        ("nft_run_cmd_from_buffer", number, [context, text]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
