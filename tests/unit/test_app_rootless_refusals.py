"""What stands in the way of user namespaces, from the error and the kernel's settings."""

from __future__ import annotations

import errno

import pytest

from onionward.app.rootless.refusals import explain

DEBIAN = "kernel.unprivileged_userns_clone"
UBUNTU = "kernel.apparmor_restrict_unprivileged_userns"
PLENTY = {
    "user.max_user_namespaces": 96365,
    "user.max_net_namespaces": 96365,
    "user.max_ipc_namespaces": 96365,
}


@pytest.mark.parametrize(
    ("number", "settings", "words", "hint"),
    [
        (errno.EPERM, {DEBIAN: 0}, f"{DEBIAN} = 0", f"sysctl -w {DEBIAN}=1"),
        (errno.EPERM, {DEBIAN: 1, UBUNTU: 1}, f"{UBUNTU} = 1", f"sysctl -w {UBUNTU}=0"),
        (errno.EACCES, {UBUNTU: 1}, f"{UBUNTU} = 1", "/etc/apparmor.d"),
        (
            errno.ENOSPC,
            {"user.max_user_namespaces": 0},
            "user.max_user_namespaces = 0",
            "sysctl -w user.max_user_namespaces=",
        ),
        (
            errno.ENOSPC,
            {"user.max_net_namespaces": 0},
            "user.max_net_namespaces = 0",
            "sysctl -w user.max_net_namespaces=",
        ),
        (errno.ENOSPC, {}, "as many namespaces as", "sysctl -w user.max_user_namespaces="),
        (errno.EINVAL, {}, "CONFIG_USER_NS", "sudo onionward run"),
        (errno.EPERM, {DEBIAN: 1, UBUNTU: 0}, "a filter of system calls", "seccomp"),
    ],
)
def test_the_setting_and_how_to_change_it(
    number: int, settings: dict[str, int], words: str, hint: str
) -> None:
    found = explain(number, (PLENTY | settings).get)
    assert words in found.words
    assert hint in found.hint
