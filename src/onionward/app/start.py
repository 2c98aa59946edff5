"""`onionward run` from its words to the command's end; what both modes have in common."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from onionward.app import allow, environment, mounts, stage
from onionward.app.environment import Identity
from onionward.app.reading import text_of
from onionward.app.request import Request, parse
from onionward.errors import OnionwardError, RefusedError


class Prepared(NamedTuple):
    """A run before its network is there.

    Attributes:
        request: what was typed.
        identity: whom the command runs as.
        variables: the command's.
        directory: working directory.

    """

    request: Request
    identity: Identity
    variables: Mapping[str, str]
    directory: str


def main(arguments: list[str]) -> NoReturn:
    """Run what was typed after `onionward run`; ends with the command's status.

    Raises:
        RefusedError: wrong usage; nothing was touched.

    """
    request = parse(arguments)
    try:
        prepared = prepare(request)
        if os.geteuid() == 0:
            from onionward.app.root import launch

            status = launch.run(prepared)
        else:
            from onionward.app.rootless import launch as rootless

            status = rootless.run(prepared)
    except (OnionwardError, OSError) as error:
        if isinstance(error, RefusedError):
            raise
        os.write(2, f"onionward: {error}\n".encode(errors="replace"))
        os._exit(stage.FAILED)
    stage.leave(status)


def prepare(request: Request) -> Prepared:
    """Whom a command runs as, and with what.

    Raises:
        RefusedError: there is no such account, or somebody who is not root names another one.
        ConfigError: the configuration that is named cannot be read, or is wrong.

    """
    if request.config:
        from pathlib import Path

        from onionward.config import load

        # what is wrong with it is said before anything is there; the time is taken only when asked
        load(Path(request.config))
    identity, is_other = _identity(request)
    kept = allow.descriptors(request.allowed)
    for descriptor in kept:
        try:
            os.fstat(descriptor)
        except OSError:
            raise RefusedError(f"--allow fd:{descriptor}: it is not open") from None
    own = mounts.runtime_directory(identity.uid)
    variables = environment.variables(
        identity,
        request,
        os.environ,
        is_other=is_other,
        has_runtime=os.path.isdir(own),  # noqa: PTH112  # pathlib takes long
    )
    try:
        directory = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        raise RefusedError("the working directory is gone") from None
    return Prepared(request, identity, variables, directory)


def _identity(request: Request) -> tuple[Identity, bool]:
    """The account, and whether it is another than ours."""
    import pwd

    uid = os.geteuid()
    if uid == 0:
        wanted = request.account or os.environ.get("SUDO_UID", "0")
    else:
        wanted = request.account or str(uid)
    try:
        if wanted.isascii() and wanted.isdecimal():
            found = pwd.getpwuid(int(wanted))
        else:
            found = pwd.getpwnam(wanted)
    except KeyError:
        if wanted != str(uid):
            raise RefusedError(f"there is no account {wanted}; nothing was touched") from None
        return Identity(uid, os.getegid(), tuple(os.getgroups()), "", "/", "/bin/sh"), False
    if uid != 0:
        if found.pw_uid != uid:
            raise RefusedError(
                f"only root can run a command as {wanted}; nothing was touched", "use sudo"
            )
        groups = tuple(os.getgroups())
        return Identity(
            uid, os.getegid(), groups, found.pw_name, found.pw_dir, found.pw_shell
        ), False
    groups = tuple(os.getgrouplist(found.pw_name, found.pw_gid))
    account = Identity(
        found.pw_uid, found.pw_gid, groups, found.pw_name, found.pw_dir, found.pw_shell
    )
    return account, found.pw_uid != 0


def view(prepared: Prepared, name_server: str) -> mounts.View:
    """What the plan of mounts wants to know of the machine, read now.

    Args:
        prepared: the run.
        name_server: whom it asks for names.

    Raises:
        RefusedError: a file of the run's own has no place: /etc/resolv.conf leads nowhere.

    """
    uid, allowed = prepared.identity.uid, prepared.request.allowed
    names = mounts.candidates(uid, prepared.variables, allowed)
    files = ("/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/hosts")
    return mounts.View(
        uid=uid,
        environment=prepared.variables,
        allowed=allowed,
        sockets=_as_they_are(mounts.sockets_of(text_of("/proc/self/net/unix"))),
        present=frozenset(name for name in names if os.path.exists(name)),  # noqa: PTH110
        targets=tuple(_target(file) for file in files),  # type: ignore[arg-type]
        nsswitch=text_of("/etc/nsswitch.conf"),
        host_name=os.uname().nodename,
        name_server=name_server,
    )


def _as_they_are(bound: tuple[str, ...]) -> tuple[str, ...]:
    """Where sockets are to be found that were bound to these paths.

    ssh(1) and others bind a socket to one name, and then link or rename it to the one by which it
    is known: a name that does not tell all of it stands for all sockets of its directory.
    """
    found = set()
    for path in bound:
        directory, name = os.path.split(path)
        # a directory of its own on some machines, and then it is not hidden
        if path.startswith("/var/run/"):
            directory = os.path.realpath(directory)
        found.add(os.path.join(directory, name))  # noqa: PTH118  # pathlib takes long
        # what is below /run is hidden with it
        if not f"{directory}/".startswith("/run/") and not _is_all_of_it(path):
            found |= _sockets_in(directory)
    return tuple(sorted(found))


def _is_all_of_it(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_nlink == 1


def _sockets_in(directory: str) -> set[str]:
    try:
        with os.scandir(directory) as entries:
            return {entry.path for entry in entries if _is_socket(entry)}
    except OSError:
        return set()


def _is_socket(entry: os.DirEntry[str]) -> bool:
    # the kind that the directory knows rules out most of them without a further call
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
        return False
    try:
        return stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return False


def _target(file: str) -> str:
    """Where a file's own one has to be put; "" where the machine has none."""
    leads_to = os.path.realpath(file)
    # what is below /run is hidden, and made again
    if os.path.exists(leads_to) or leads_to.startswith("/run/"):  # noqa: PTH110
        return leads_to
    if file == "/etc/resolv.conf":
        raise RefusedError(
            "/etc/resolv.conf is missing or leads nowhere, so that a run cannot have its own",
            "make it: touch /etc/resolv.conf",
        )
    return ""
