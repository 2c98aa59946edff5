"""The real firehol in a namespace: unpacked, never installed, seen by nobody outside."""

from __future__ import annotations

import subprocess
from pathlib import Path

_CACHE = Path("/var/cache/onionward-trees/firehol")
_PACKAGES = ("firehol", "firehol-common", "iprange")

# what firehol writes goes to file systems in memory, which end with the mount namespace
_SCRIPT = """
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir -p /mnt/usr /mnt/usrwork /mnt/etc /mnt/etcwork
mount -t overlay none -o lowerdir={tree}/usr:/usr,upperdir=/mnt/usr,workdir=/mnt/usrwork /usr
mount -t overlay none -o lowerdir={tree}/etc:/etc,upperdir=/mnt/etc,workdir=/mnt/etcwork /etc
mount -t tmpfs none /run
mount -t tmpfs none /var
mkdir -p /var/spool /var/lib /var/run /var/cache /run/lock
echo START_FIREHOL=YES > /etc/default/firehol
cat > /etc/firehol/firehol.conf <<'EOF_OF_FIREHOL'
{conf}
EOF_OF_FIREHOL
/usr/lib/firehol/firehol start > /run/firehol.log 2>&1 || {{ cat /run/firehol.log >&2; exit 1; }}
"""


def unpacked() -> Path:
    """firehol's files, from packages that tools/install-dependencies fetches."""
    tree = _CACHE / "tree"
    if not (tree / "usr/lib/firehol/firehol").exists():
        for name in _PACKAGES:
            found = sorted(_CACHE.glob(f"{name}_*.deb"))
            assert found, f"{name} is not in {_CACHE}: run tools/install-dependencies"
            subprocess.run(["dpkg", "-x", found[-1], tree], check=True)
    return tree


def script(conf: str) -> str:
    """A shell script that has firehol load its file."""
    inner = _SCRIPT.format(tree=unpacked(), conf=conf)
    return f"unshare --mount sh -eu <<'EOF_OF_INNER'\n{inner}\nEOF_OF_INNER\n"
