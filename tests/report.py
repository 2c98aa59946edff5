"""What was tried and what came of it, counted over all tests: a pytest plugin.

A test that does something to a machine which must not open it takes the fixture `faults` and says
what it saw, first says it and then asserts, so that a leak is counted and not only a failed test:

    def test_nothing_escapes(trial: Trial, faults: Faults) -> None:
        faults.record("ways out of a routed host", tried=len(PLAIN), clear=len(trial.escaped()))
        assert trial.escaped() == ()

or, when there is more to be seen of each fault, in steps that assert by themselves:

    with faults.tried("SIGKILL in up", f"{number}: {words}") as fault:
        ...
        with fault.status():            # what fails in here is a status that is not true
            assert_status_is_true(machine)
        fault.saw(wire.packets(blocked, opened))              # in clear; none may be
        fault.restored(difference(before, machine.snapshot()))    # "" when it is as it was

Every run of pytest prints the sums at its end. `--report DIRECTORY` (`make report`) runs the test
files only that have such tests, writes report.md and report.json into the directory, and ends with
1 if anything has leaked, was not restored or not true, or if nothing was tried. Long sweeps read
ONIONWARD_SWEEP (1: all of it), see lifecycle_effects.strided; what they draw comes from
ONIONWARD_SEED, which is printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

SWEEP, SEED = "ONIONWARD_SWEEP", "ONIONWARD_SEED"
_PROPERTY = "faults"  # under this name outcomes come from the processes that run tests
_TELLING = 20.0  # seconds between words on how far a test is
_SHOWN = 300  # characters of an error


@dataclass
class Tally:
    """Sums of one class of faults.

    Attributes:
        tried: how many.
        clear: packets in clear, None where nobody looked.
        restored: machines exactly as before, out of those that were compared.
        true: statuses that told the truth, out of those that were compared.
        seconds: how long it took.
        failed: what went wrong, in words.

    """

    tried: int = 0
    clear: int | None = None
    restored: tuple[int, int] = (0, 0)
    true: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.tried += other.tried
        if other.clear is not None:
            self.clear = (self.clear or 0) + other.clear
        self.restored = (self.restored[0] + other.restored[0], self.restored[1] + other.restored[1])
        self.true = (self.true[0] + other.true[0], self.true[1] + other.true[1])
        self.seconds += other.seconds
        self.failed += other.failed

    def is_good(self) -> bool:
        """Nothing has leaked, everything is as it was, nothing was said that is not so."""
        whole = self.restored[0] == self.restored[1] and self.true[0] == self.true[1]
        return not self.clear and whole and not self.failed


class Fault:
    """One fault that is being tried; see the module.

    Attributes:
        fault_class: may become another when it is known better; "" when there was no fault.

    """

    def __init__(self, fault_class: str) -> None:
        self.fault_class = fault_class
        self.tally = Tally(tried=1)

    def saw(self, packets: Sequence[object]) -> None:
        """Packets in clear that the witness saw while there may be none."""
        self.tally.add(Tally(clear=len(packets)))
        shown = "\n".join(map(str, packets[:20]))
        assert not packets, f"{len(packets)} packets left in clear:\n{shown}"

    def restored(self, remains: str) -> None:
        """What is not as it was before; "" when all is."""
        self.tally.add(Tally(restored=(int(remains == ""), 1)))
        assert remains == ""

    @contextlib.contextmanager
    def restoring(self) -> Iterator[None]:
        """Around what puts right what is wrong, and looks whether it is."""
        self.tally.add(Tally(restored=(0, 1)))
        yield
        self.tally.add(Tally(restored=(1, 0)))

    @contextlib.contextmanager
    def status(self) -> Iterator[None]:
        """Around what compares a status with the machine."""
        self.tally.add(Tally(true=(0, 1)))
        yield
        self.tally.add(Tally(true=(1, 0)))


class Faults:
    """What one test tries, by class; `tell` hears of it now and then."""

    def __init__(self, tell: Callable[[str], object] = lambda _: None) -> None:
        self.tallies: dict[str, Tally] = {}
        self._tell = tell
        self._since = self._told = time.monotonic()

    def record(
        self,
        fault_class: str,
        *,
        tried: int = 1,
        clear: int | None = None,
        restored: int | None = None,
        true: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Say what came of some faults of one class; before asserting it.

        Args:
            fault_class: what was done, as the report names it.
            tried: how often.
            clear: packets in clear, or None when nobody looked.
            restored: after how many of them the machine was as before; None: not compared.
            true: after how many of them the status was true; None: not compared.
            seconds: how long it took; None: since the last record of the test.

        """
        now = time.monotonic()
        took, self._since = now - self._since, now
        tally = Tally(tried, clear, seconds=took if seconds is None else seconds)
        if restored is not None:
            tally.restored = (restored, tried)
        if true is not None:
            tally.true = (true, tried)
        self.tallies.setdefault(fault_class, Tally()).add(tally)

    @contextlib.contextmanager
    def tried(self, fault_class: str, words: str) -> Iterator[Fault]:
        """One fault; what its block raises is a failure of it, too."""
        fault, since = Fault(fault_class), time.monotonic()
        try:
            yield fault
        except BaseException as error:
            fault.tally.failed.append(f"{words}: {str(error)[:_SHOWN] or type(error).__name__}")
            raise
        finally:
            self._since = time.monotonic()
            fault.tally.seconds = self._since - since
            if fault.fault_class or fault.tally.failed:
                name = fault.fault_class or fault_class
                self.tallies.setdefault(name, Tally()).add(fault.tally)
                self._say_how_far()

    def _say_how_far(self) -> None:
        if time.monotonic() - self._told > _TELLING:
            self._told = time.monotonic()
            for name, tally in self.tallies.items():
                self._tell(f"{name}: {tally.tried} tried, {len(tally.failed)} failed")


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    """Where a test says what it has tried; see the module."""
    config = request.config

    def tell(words: str) -> None:
        if config.getoption("--report"):
            with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
                sys.stderr.write(f"{time.strftime('%H:%M:%S')} {words}\n")

    made = Faults(tell)
    request.node.user_properties.append((_PROPERTY, made.tallies))
    return made


def chance(name: str) -> random.Random:
    """What a test draws; the same again with the seed that the run has printed."""
    return random.Random(f"{os.environ[SEED]} {name}")  # noqa: S311  # moments, not secrets


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report", metavar="DIRECTORY", help="see tests/report.py")


def pytest_configure(config: pytest.Config) -> None:
    # inherited by the processes that run the tests
    os.environ.setdefault(SEED, str(int(time.time()) % 100_000))
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Collector(config), "onionward-report")


def pytest_report_header() -> str:
    return f"{SEED}={os.environ[SEED]} {SWEEP}={os.environ.get(SWEEP, '')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--report"):
        return
    wanted = {item.path for item in items if "faults" in getattr(item, "fixturenames", ())}
    config.hook.pytest_deselected(items=[item for item in items if item.path not in wanted])
    items[:] = [item for item in items if item.path in wanted]


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Outcomes go to the process that prints as plain values, once, when the test is over."""
    outcome: Any = yield
    report = outcome.get_result()
    plain = [(name, _plain(value)) for name, value in item.user_properties]
    report.user_properties = plain if report.when == "teardown" else []


def _plain(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {name: asdict(t) if isinstance(t, Tally) else t for name, t in value.items()}


class _Collector:
    """Adds up what all tests have recorded."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._directory: str | None = config.getoption("--report")
        self._began = time.time()
        self._passed = 0
        self._failed: list[str] = []
        self._tallies: dict[str, Tally] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.append(report.nodeid)
        elif report.when == "call":
            self._passed += 1
        for name, value in report.user_properties:
            if name == _PROPERTY and isinstance(value, dict):
                self._add(value)

    def _add(self, recorded: dict[str, dict[str, Any]]) -> None:
        for fault_class, fields in recorded.items():
            pairs = {key: tuple(fields[key]) for key in ("restored", "true")}
            self._tallies.setdefault(fault_class, Tally()).add(Tally(**{**fields, **pairs}))

    def is_good(self) -> bool:
        good = all(tally.is_good() for tally in self._tallies.values())
        return good and bool(self._tallies) and not self._failed

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._directory is None or self._config.option.collectonly:
            return
        directory = Path(self._directory)
        directory.mkdir(parents=True, exist_ok=True)
        document = self.document()
        (directory / "report.json").write_text(json.dumps(document, indent=1) + "\n")
        (directory / "report.md").write_text(to_markdown(document))
        if not self.is_good() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def document(self) -> dict[str, Any]:
        return {
            "good": self.is_good(),
            "began": time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(self._began)),
            "seconds": round(time.time() - self._began),
            "seed": os.environ[SEED],
            "sweep": os.environ.get(SWEEP, ""),
            "processors": os.cpu_count(),
            "versions": versions(),
            "tests": {"passed": self._passed, "failed": sorted(set(self._failed))},
            "faults": {name: asdict(self._tallies[name]) for name in sorted(self._tallies)},
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._tallies:
            return
        terminalreporter.section("what was tried, and what came of it")
        for row in rows({name: asdict(t) for name, t in sorted(self._tallies.items())}):
            widths = (46, 7, 10, 13, 13, 8)
            terminalreporter.write_line(
                "".join(
                    c.ljust(w) if n == 0 else c.rjust(w)
                    for n, (c, w) in enumerate(zip(row, widths, strict=True))
                )
            )
        if self._directory is not None:
            terminalreporter.write_line(f"written: {self._directory}/report.md, report.json")


def versions() -> dict[str, str]:
    """What a result depends on."""

    def first_line(*argv: str) -> str:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return (done.stdout.splitlines() or ["not there"])[0]

    return {
        "kernel": platform.release(),
        "nft": first_line("nft", "--version"),
        "tor": first_line("tor", "--version"),
        "python": platform.python_version(),
        "onionward": first_line("git", "rev-parse", "--short", "HEAD"),
    }


_HEAD = ("fault class", "tried", "in clear", "restored", "status true", "time")


def rows(faults_by_class: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table, its head and its sum included."""
    total = Tally()
    found: list[tuple[str, ...]] = [_HEAD]
    for name, fields in faults_by_class.items():
        tally = Tally(**fields)
        total.add(tally)
        found.append(_row(name, tally))
    return [*found, _row("all", total)]


def _row(name: str, tally: Tally) -> tuple[str, ...]:
    def pair(good: int, of: int) -> str:
        return f"{good} of {of}" if of else "-"

    return (
        name,
        str(tally.tried),
        "-" if tally.clear is None else str(tally.clear),
        pair(*tally.restored),
        pair(*tally.true),
        f"{tally.seconds:.0f} s",
    )


def to_markdown(document: dict[str, Any]) -> str:
    """For people."""
    used = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    tests = document["tests"]
    lines = [
        "# Test report",
        "",
        f"{document['began']}, {document['seconds']} s on {document['processors']} processors. "
        f"{used}. {SEED}={document['seed']} {SWEEP}={document['sweep']}.",
        f"{tests['passed']} tests passed, {len(tests['failed'])} failed.",
        "",
    ]
    head, *others = rows(document["faults"])
    rule = ("---", *("---:" for _ in head[1:]))
    lines += [f"| {' | '.join(row)} |" for row in (head, rule, *others)]
    wrong = [f"{name}: {w}" for name, t in document["faults"].items() for w in t["failed"]]
    if wrong or tests["failed"]:
        lines += ["", "## What went wrong", ""]
        lines += [f"- {' '.join(words.split())}" for words in (*wrong, *tests["failed"])]
    return "\n".join(lines) + "\n"
