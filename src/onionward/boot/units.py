"""Texts of the systemd units and init scripts; nothing here touches the machine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from onionward.boot.program import Program

BLOCK_UNIT = "onionward-block.service"
UP_UNIT = "onionward.service"
BLOCK_SCRIPT = "onionward-block"
UP_SCRIPT = "onionward"
OURS = "# made by `onionward enable`, removed by `onionward disable`"
_TITLE = "Network blocked by onionward (open it with: onionward down)"

# nothing that takes a mount namespace (ProtectSystem=, PrivateDevices= and their like): it cannot
# always be made where others mount at the same moment, and a machine without a block has no network
_HARDENED_BLOCK = """\
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
RestrictAddressFamilies=AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
KeyringMode=private
UMask=0077
"""

# tor, its helpers and what `up` calls inherit all of this and live on in it
HARDENED_UP = """\
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID
CapabilityBoundingSet=CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_KILL
CapabilityBoundingSet=CAP_LINUX_IMMUTABLE CAP_SYS_PTRACE
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
ProtectSystem=strict
ReadWritePaths=/etc /run /var
ProtectHome=read-only
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
PrivateDevices=yes
PrivateMounts=yes
UMask=0077
"""


def block_unit(nft: str, first: str, rules: str, *, directories: Sequence[str] = ()) -> str:
    """The unit that blocks, with nothing but nft.

    Args:
        nft: path of the program.
        first: commands that block without any exception (`render.nftables.boot`).
        rules: the file with the rest.
        directories: made for the files of the boot, and removed with them.

    """
    return f"""\
{OURS}
{directories_line(directories)}
[Unit]
Description={_TITLE}
Documentation=man:nft(8)
DefaultDependencies=no
# both flush what there is, before any interface is up
After=nftables.service netfilter-persistent.service ufw.service
Before=network-pre.target shutdown.target
Wants=network-pre.target
# stopping it takes no rules away, and it is started again after a soft reboot
Conflicts=shutdown.target
# without a block no network: a shell on the console is all there is then
OnFailure=emergency.target
OnFailureJobMode=isolate
# by hand it would block a machine that is routed, and `onionward up` has no say then
RefuseManualStart=yes
RefuseManualStop=yes

[Service]
Type=oneshot
RemainAfterExit=yes
# twice, for there is no network if nft fails
ExecStartPre=-{_quoted(nft, first)}
ExecStartPre={_quoted(nft, first)}
# a damaged file leaves what these have blocked
ExecStart=-{_quoted(nft, "--file", rules)}
# there is no way to stop it: rules stay until `onionward up` or `onionward down` takes them away
StandardOutput=journal+console
StandardError=journal+console
{_HARDENED_BLOCK}
[Install]
WantedBy=sysinit.target
"""


def up_unit(program: Program) -> str:
    """The unit that routes."""
    environment = "".join(
        f"Environment={_quoted(f'{name}={value}')}\n" for name, value in program.environment.items()
    )
    return f"""\
{OURS}
[Unit]
Description=Traffic routed through Tor by onionward (blocked until then; way out: onionward down)
Wants={BLOCK_UNIT} network-online.target
After={BLOCK_UNIT} network.target network-online.target
StartLimitIntervalSec=0

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={_quoted(*program.argv)}
{environment}Restart=on-failure
RestartSec=10
TimeoutStartSec=infinity
# tor and its helpers are no concern of this unit: stopping it, also at shutdown, opens nothing
KillMode=process
StandardOutput=journal+console
StandardError=journal+console
{HARDENED_UP}
[Install]
WantedBy=multi-user.target
"""


def directories_line(directories: Sequence[str]) -> str:
    """A comment that remembers directories."""
    return f"# directories: {' '.join(directories)}".rstrip()


def directories_of(text: str) -> tuple[str, ...]:
    """What `directories_line` has written into a text."""
    for line in text.splitlines():
        if line.startswith("# directories:"):
            return tuple(line.split()[2:])
    return ()


def block_script(nft: str, first: str, rules: str, *, directories: Sequence[str] = ()) -> str:
    """The init script that blocks before interfaces are up (LSB; insserv(8) orders it)."""
    return f"""\
#!/bin/sh
{OURS}
{directories_line(directories)}
### BEGIN INIT INFO
# Provides:          {BLOCK_SCRIPT}
# Required-Start:    mountkernfs $local_fs
# Required-Stop:
# Should-Start:      nftables netfilter-persistent ufw
# X-Start-Before:    networking ifupdown ifupdown-clean
# Default-Start:     S
# Default-Stop:
# Short-Description: {_TITLE}
### END INIT INFO

case "$1" in
start | restart | force-reload)
    {shlex.join([nft, first])} || {{
        echo "onionward: the network cannot be blocked; leaving this shell goes on without" >&2
        /sbin/sulogin || /bin/sh
        exit 1
    }}
    {shlex.join([nft, "--file", rules])} || true
    ;;
stop) ;;
*)
    echo "usage: $0 start" >&2
    exit 2
    ;;
esac
"""


def up_script(program: Program) -> str:
    """The init script that routes, trying again until it succeeds."""
    variables = [f"{name}={value}" for name, value in program.environment.items()]
    command = shlex.join(["env", *variables, *program.argv] if variables else program.argv)
    return f"""\
#!/bin/sh
{OURS}
### BEGIN INIT INFO
# Provides:          {UP_SCRIPT}
# Required-Start:    $remote_fs $network {BLOCK_SCRIPT}
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: Traffic routed through Tor by onionward (way out: onionward down)
### END INIT INFO

case "$1" in
start | restart | force-reload)
    (
        trap "" HUP
        trap 'kill "$child"; exit' TERM
        while :; do
            {command} &
            child=$!
            wait "$child" && break
            sleep 10 &
            child=$!
            wait "$child"
        done
    ) </dev/null >/dev/console 2>&1 &
    echo $! >/run/onionward-boot.pid
    ;;
stop)
    # ends the attempts; what is in force stays in force
    if [ -e /run/onionward-boot.pid ]; then
        kill "$(cat /run/onionward-boot.pid)" 2>/dev/null
        rm /run/onionward-boot.pid
    fi
    ;;
*)
    echo "usage: $0 start" >&2
    exit 2
    ;;
esac
"""


def _quoted(*argv: str) -> str:
    """A command line as systemd reads it (systemd.service(5), command lines)."""
    return " ".join(_word(word) for word in argv)


def _word(word: str) -> str:
    text = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace("'", "\\'")
    return (
        text if text.isascii() and text.replace("/", "").replace("-", "").isalnum() else f"'{text}'"
    )
