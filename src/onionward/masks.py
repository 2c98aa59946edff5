"""Closes services that would act in the network for a routed account, to that account alone.

Sockets are closed by an entry in the access control list of their directory, which lasts when the
service is restarted, and of the socket itself; D-Bus services by a policy of the system bus
(dbus-daemon(1), busconfig). Both name the account; nobody else is concerned. What appears later on
the bus is closed from the beginning; a socket that appears later is closed by the next `apply` with
a new survey, and `open_places` tells of it until then. Connections made before are not cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

from onionward import acl
from onionward.accounts import User
from onionward.deputies import DEPUTIES
from onionward.errors import CommandError, StepError
from onionward.exposure import RELOAD, Bus, Found
from onionward.system import System, find_tool, temporary_name

# by this line a file is known to be ours, whichever accounts it names
_MARK = "<!-- Made by `onionward up`, removed by `onionward down`. -->"

# accept lists, by account: (account, names that are left open to it)
Routed = tuple[User, tuple[str, ...]]


class SavedList(TypedDict):
    """What was in the access control list of one path.

    Attributes:
        path: of the directory or socket.
        had_list: whether it had a list at all.
        before: by uid, the permissions that the list gave it; None when it did not name it.
        closed: uids that are refused.

    """

    path: str
    had_list: bool
    before: dict[str, int | None]
    closed: list[int]


class SavedPolicy(TypedDict):
    """What stood where the policy of the bus is put.

    Attributes:
        path: of the file.
        was: its text, or None when there was none.
        ours: the text that is put there.
        socket: where the bus listens.
        made: whether its directory has to be removed again.

    """

    path: str
    was: str | None
    ours: str
    socket: str
    made: bool


class Saved(TypedDict):
    """How to undo everything; JSON in the journal."""

    lists: list[SavedList]
    policy: SavedPolicy | None


def policy_text(users: Iterable[Routed]) -> str:
    """The policy of the bus that refuses accounts to send to these services (dbus-daemon(1))."""
    lines = [
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"',
        ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">',
        _MARK,
        "<busconfig>",
    ]
    for user, accept in users:
        names = [name for d in DEPUTIES if d.name not in accept for name in d.bus_names]
        # an id instead of the name, which may hold what XML does not like
        lines.append(f'  <policy user="{user.account.uid}">')
        lines += [f'    <deny send_destination="{name}"/>' for name in names]
        lines.append("  </policy>")
    return "\n".join([*lines, "</busconfig>", ""])


def survey(found: Found, users: Sequence[Routed], before: Saved | None = None) -> Saved:
    """What undoes `apply`, read before anything changes.

    Args:
        found: what there is.
        users: routed accounts, each with the names that are left open to it.
        before: what an earlier `apply` that is still in force has saved.

    """
    lists = {entry["path"]: _forgetting(entry) for entry in (before or {"lists": []})["lists"]}
    for deputy in DEPUTIES:
        uids = [user.account.uid for user, accept in users if deputy.name not in accept]
        for place in found.of(deputy):
            if place.obstacle or not uids:
                continue
            path = str(place.path)
            entry = lists.setdefault(
                path, SavedList(path=path, had_list=place.has_list, before={}, closed=[])
            )
            for uid in uids:
                entry["closed"].append(uid)
                own = acl.permissions_of(place.way[-1].entries, uid)
                entry["before"].setdefault(str(uid), own)
    return Saved(lists=list(lists.values()), policy=_survey_policy(found.bus, users, before))


def _forgetting(entry: SavedList) -> SavedList:
    """The same path with the same past, before it is known who is refused from now on."""
    return SavedList(
        path=entry["path"], had_list=entry["had_list"], before=dict(entry["before"]), closed=[]
    )


def _survey_policy(
    bus: Bus | None, users: Sequence[Routed], before: Saved | None
) -> SavedPolicy | None:
    earlier = before["policy"] if before is not None else None
    if bus is None or bus.obstacle or not (users or earlier):
        return earlier
    ours = policy_text(users)
    if earlier is not None:
        return {**earlier, "ours": ours}
    is_ours = bus.policy is not None and _MARK in bus.policy
    was = None if is_ours else bus.policy
    return SavedPolicy(
        path=str(bus.file),
        was=was,
        ours=ours,
        socket=str(bus.socket),
        made=not bus.has_directory,
    )


def apply(system: System, saved: Saved) -> None:
    """Close everything that was surveyed; can be repeated.

    Raises:
        StepError: the bus does not take the policy.
        OSError: a list cannot be written.

    """
    for entry in saved["lists"]:
        _write_list(system, entry, entry["closed"])
    if (policy := saved["policy"]) is not None:
        path = Path(policy["path"])
        if policy["made"]:
            system.make_directory(path.parent)
        system.write_file(path, policy["ours"])
        try:
            _reload(system, policy)
        except CommandError as error:
            raise StepError(
                f"the system bus does not read its policy again: {error.stderr.strip()}",
                f"the policy is {path}; is the bus well (systemctl status dbus)?",
            ) from error


def _write_list(system: System, entry: SavedList, closed: Iterable[int]) -> None:
    """Refuse some of the accounts and put back the own entries of the others."""
    path = Path(entry["path"])
    if (permissions := acl.permissions(path)) is None:
        return  # the service is gone, and with it what was closed
    entries = permissions.entries
    for uid, before in entry["before"].items():
        if int(uid) in closed:
            entries = acl.denied(entries, int(uid))
        elif acl.permissions_of(entries, int(uid)) == 0:
            entries = acl.readmitted(entries, int(uid), before)
    if entries == permissions.entries:
        return
    plain = not entry["had_list"] and not acl.names_somebody(entries)
    system.set_attribute(path, acl.ATTRIBUTE, None if plain else acl.encode(entries))


def _reload(system: System, policy: SavedPolicy) -> None:
    """Have the bus read its policies again; it answers when it has."""
    tool = next((name for name in RELOAD if find_tool(name)), None)
    if tool is not None and Path(policy["socket"]).exists():
        system.change(RELOAD[tool], words="have the system bus read its policies again")


def restore(system: System, saved: Saved) -> str:
    """Put back every list and the policy, whatever `apply` had come to; can be repeated.

    Entries that others have made meanwhile stay.

    Returns:
        What was left alone and why, or "".

    """
    for entry in saved["lists"]:
        _write_list(system, entry, ())
    if (policy := saved["policy"]) is None:
        return ""
    note = _restore_policy(system, policy)
    try:
        # even when the file is back already: an earlier attempt may have ended in between
        _reload(system, policy)
    except CommandError as error:
        return f"the system bus holds its old policy until it is reloaded: {error.stderr.strip()}"
    return note


def _restore_policy(system: System, policy: SavedPolicy) -> str:
    path = Path(policy["path"])
    system.remove_file(temporary_name(path))
    now = path.read_text(errors="replace") if path.is_file() else None
    if now is not None and now != policy["was"]:
        if _MARK not in now:
            return f"{path} was changed by somebody else meanwhile and is left as it is"
        if policy["was"] is None:
            system.remove_file(path)
        else:
            system.write_file(path, policy["was"])
    if policy["made"] and path.parent.is_dir() and not any(path.parent.iterdir()):
        system.remove_tree(path.parent)
    return ""


def open_places(found: Found, users: Iterable[Routed]) -> tuple[str, ...]:
    """What should be closed and is not (any more), for `status`; one sentence each."""
    wanted = tuple(users)
    words = [
        f"{place.path} is open to {user.account.name}: {deputy.does} for others"
        for user, accept in wanted
        for deputy in DEPUTIES
        if deputy.name not in accept
        for place in found.of(deputy)
        if not place.obstacle and place.is_open_to(user)
    ]
    bus = found.bus
    if wanted and bus is not None and not bus.obstacle and bus.policy != policy_text(wanted):
        words.append(f"{bus.file} is not what was put there")
    return tuple(words)
