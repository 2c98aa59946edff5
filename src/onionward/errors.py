"""Everything onionward can raise on purpose.

OnionwardError             one sentence, a hint, an exit status
├── RefusedError           found before anything was touched (exit 2)
│   └── ConfigError        all the problems of one configuration, each with file:line
├── NotRoutedError         nothing is routed, which this needs (exit as `status`)
├── CommandError           a tool failed: its arguments, status and words
├── StepError              a step of `up` or `down` failed; says what state the machine is in
├── JournalError           the journal on disk cannot be read
├── LockedError            another onionward is at work
├── LanError               the DHCP server for clients does not start or end
├── ResolverError          the machine's resolver cannot be led to tor for .onion
├── TorError               tor does not start, bootstrap or answer
├── VerifyError            what the kernel holds is not what was loaded
└── LabError               the private network on this machine cannot be built or used
"""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST = 1000  # characters of a command in a message


class OnionwardError(Exception):
    """A failure to tell the user about.

    Args:
        message: what happened, and where.
        hint: what to do about it, or "" when there is nothing to suggest.

    """

    exit_status: int = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

    def add_hint(self, words: str) -> None:
        """Say this, too."""
        self.hint = f"{self.hint}\n  {words}" if self.hint else words


class RefusedError(OnionwardError):
    """Bad input or a machine that cannot do this; nothing was touched."""

    exit_status = 2


class NotRoutedError(OnionwardError):
    """The machine is off, blocked or open, and what was asked for needs a routed one.

    Args:
        message: what was asked for, and how the machine is.
        hint: what to do.
        exit_status: that of `onionward status`.

    """

    def __init__(self, message: str, hint: str, exit_status: int) -> None:
        super().__init__(message, hint)
        self.exit_status = exit_status


class ConfigError(RefusedError):
    """Every problem of a configuration at once, one per line, each as `file:line: key: words`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


_NOT_RUN = (
    "{} is missing or cannot be executed: install its package. Packet rules that are loaded stay "
    "in force without it"
)


class CommandError(OnionwardError):
    """A command ended with a status that was not expected, or did not end in time."""

    def __init__(self, argv: Sequence[str], status: int | None, stderr: str) -> None:
        import shlex

        ending = "did not end in time" if status is None else f"ended with status {status}"
        words = shlex.join(argv)
        shown = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
        hint = _NOT_RUN.format(argv[0]) if status in (126, 127) else ""
        super().__init__(f"{shown} {ending}: {stderr.strip() or 'it printed no reason'}", hint)
        self.argv = tuple(argv)
        self.status = status
        self.stderr = stderr


class StepError(OnionwardError):
    """A step of `up` or `down` failed; the message ends with the state the machine is in now."""


class JournalError(OnionwardError):
    """The journal on disk is not one that this program wrote."""


class LockedError(OnionwardError):
    """Another onionward holds the lock."""


class ResolverError(OnionwardError):
    """What resolves names on this machine does not take what onionward tells it."""


class TorError(OnionwardError):
    """Tor did not start, did not bootstrap or does not answer."""


class LanError(OnionwardError):
    """The server that gives addresses to clients does not start or end."""


class VerifyError(OnionwardError):
    """The kernel's rules are not the ones that were loaded."""


class LabError(OnionwardError):
    """The lab cannot be built, found or used."""


def words_of(error: BaseException) -> tuple[str, str]:
    """What happened and what to do, of any error."""
    if isinstance(error, OnionwardError):
        return error.message, error.hint
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", ""
    return (str(error) if isinstance(error, OSError) else repr(error)), ""
