"""What tor's events tell, added up: streams, circuits, bytes, complaints (control-spec, 4.1)."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from onionward.printable import printable
from onionward.watch.owners import Owner, Owners

EVENTS = ("BW", "STREAM", "STREAM_BW", "CIRC", "SIGNAL", "NOTICE", "WARN", "ERR")
"""What it wants to hear."""

_NEWS = 50  # messages that are kept
# what `status` and this screen cause themselves
_NOISE = ("New control connection opened",)
_ONE_HOP = "ONEHOP_TUNNEL"
_IDLE_PURPOSES = ("HS_VANGUARDS", "CONFLUX_UNLINKED", "TESTING", "MEASURE_TIMEOUT")


class Hop(NamedTuple):
    """A relay of a circuit: its fingerprint, its nickname, and the country it is in, or ""."""

    fingerprint: str
    name: str
    country: str = ""


class Circuit(NamedTuple):
    """A path through the network.

    Attributes:
        number: tor's.
        owner: whose streams it has carried; None while it has not carried any.
        hops: the first is the guard.
        streams: how many it carries now.
        state: "BUILT", or how far it is.

    """

    number: int
    owner: Owner | None
    hops: tuple[Hop, ...]
    streams: int
    state: str


class Stream(NamedTuple):
    """A connection or look-up.

    Attributes:
        number: tor's.
        owner: who has opened it.
        target: where to, by name as far as tor knows one.
        circuit: number of what it is on; 0 for none yet.

    """

    number: int
    owner: Owner
    target: str
    circuit: int


class News(NamedTuple):
    """A message of tor's: seconds since the epoch, "notice", "warn" or "err", and its words."""

    time: float
    level: str
    words: str


class Bytes(NamedTuple):
    """So many in the last second, to whoever asks and from them."""

    down: int = 0
    up: int = 0


class Told(NamedTuple):
    """A moment of the ledger.

    Attributes:
        total: what tor has read and written in the last second, cells and all.
        by: the same of streams, by owner.
        circuits: in the order in which they were made.
        streams: the latest first.
        news: the latest last.

    """

    total: Bytes = Bytes()
    by: Mapping[Owner, Bytes] = {}
    circuits: tuple[Circuit, ...] = ()
    streams: tuple[Stream, ...] = ()
    news: tuple[News, ...] = ()


class Ledger:
    """Hears events, one line each."""

    def __init__(self, owners: Owners) -> None:
        self.owners = owners
        self.circuits_changed = True
        self._streams: dict[int, Stream] = {}
        self._paths: dict[int, tuple[str, tuple[Hop, ...], str]] = {}  # state, hops, conflux
        self._owned: dict[int, Owner] = {}
        self._countries: dict[str, str] = {}
        self._news: deque[News] = deque(maxlen=_NEWS)
        self._counting: Counter[tuple[Owner, bool]] = Counter()
        self._by: dict[Owner, Bytes] = {}
        self._total = Bytes()
        self.identities = 0  # that tor has given

    def hear(self, event: tuple[str, ...], now: float) -> None:
        """One event, by line."""
        kind, _, rest = event[0].partition(" ")
        words = rest.split()
        match kind:
            case "BW" if len(words) >= 2:
                self._second(Bytes(int(words[0]), int(words[1])))
            case "STREAM" if len(words) >= 4:
                self._stream(words)
            case "STREAM_BW" if len(words) >= 3:
                if (stream := self._streams.get(int(words[0]))) is not None:
                    # by the program's side: what it has written goes up
                    self._counting[stream.owner.scope, True] += int(words[1])
                    self._counting[stream.owner.scope, False] += int(words[2])
            case "CIRC":
                self.circuits_changed = True
            case "SIGNAL" if words[:1] == ["NEWNYM"]:
                self.identities += 1
            case "NOTICE" | "WARN" | "ERR":
                said = printable(" ".join((rest, *event[1:])).removesuffix(" OK"))
                if said and not said.startswith(_NOISE):
                    self._news.append(News(now, kind.lower(), said))

    def _second(self, total: Bytes) -> None:
        """Bytes are told once a second, of each stream before the sum."""
        self._total = total
        owners = {owner for owner, _ in self._counting}
        self._by = {o: Bytes(self._counting[o, False], self._counting[o, True]) for o in owners}
        self._counting.clear()

    def _stream(self, words: list[str]) -> None:
        number, status, circuit, target = int(words[0]), words[1], int(words[2]), words[3]
        known = self._streams.get(number)
        if status in ("CLOSED", "FAILED"):
            self._streams.pop(number, None)
            return
        if known is None:
            more = dict(word.split("=", 1) for word in words[4:] if "=" in word)
            owner = self.owners.of_source(more.get("SOURCE_ADDR", ""), more.get("PURPOSE", ""))
            known = Stream(number, owner, _target(target), circuit)
        elif status == "REMAP" and ".onion" in target:
            known = known._replace(target=_target(target))
        if circuit and known.owner.kind:
            self._owned[circuit] = known.owner
        self._streams[number] = known._replace(circuit=circuit)

    def begin(self, streams: Iterable[str]) -> None:
        """Streams that are open already, as `stream-status` has them: nobody says whose."""
        for words in (line.split() for line in streams):
            if len(words) >= 4:
                self._streams[int(words[0])] = Stream(
                    int(words[0]), Owner(""), _target(words[3]), int(words[2])
                )

    def look(self, circuits: Iterable[str]) -> None:
        """Circuits, as `circuit-status` has them."""
        self.circuits_changed = False
        found: dict[int, tuple[str, tuple[Hop, ...], str]] = {}
        for line in circuits:
            words = line.split()
            if len(words) < 3 or _ONE_HOP in line or any(p in line for p in _IDLE_PURPOSES):
                continue
            hops = tuple(map(_hop, words[2].split(","))) if words[2].startswith("$") else ()
            conflux = re.search(r"CONFLUX_ID=(\S+)", line)
            found[int(words[0])] = (words[1], hops, conflux[1] if conflux else "")
        self._paths = found
        self._owned = {n: owner for n, owner in self._owned.items() if n in found}

    def unplaced(self) -> tuple[str, ...]:
        """Fingerprints of relays whose country was not asked for yet."""
        hops = (hop.fingerprint for _, path, _ in self._paths.values() for hop in path)
        return tuple(dict.fromkeys(f for f in hops if f not in self._countries))

    def place(self, fingerprint: str, country: str) -> None:
        """Where a relay is: two letters, or "" when nobody knows."""
        self._countries[fingerprint] = country

    def told(self) -> Told:
        """All of it, at this moment."""
        carried = Counter(stream.circuit for stream in self._streams.values())
        legs = {c: self._owned[n] for n, (_, _, c) in self._paths.items() if c and n in self._owned}
        circuits = tuple(
            Circuit(
                number,
                self._owned.get(number) or legs.get(conflux),
                tuple(hop._replace(country=self._countries.get(hop[0], "")) for hop in hops),
                carried[number],
                state,
            )
            for number, (state, hops, conflux) in self._paths.items()
        )
        return Told(
            self._total,
            dict(self._by),
            circuits,
            tuple(reversed(self._streams.values())),
            tuple(self._news),
        )


def _hop(text: str) -> Hop:
    """One of `$FINGERPRINT~nickname`."""
    fingerprint, _, name = text.lstrip("$").partition("~")
    return Hop(fingerprint, printable(name) or fingerprint[:8])


def _target(text: str) -> str:
    """Where a stream goes; a look-up has port 0."""
    host, _, port = printable(text).rpartition(":")
    return f"name {host}" if port == "0" else f"{host}:{port}"
