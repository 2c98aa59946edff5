"""Keys of the authorities, generated once per machine.

Six large RSA keys take seconds; a network that nobody else can reach loses nothing by
having the same authorities every time. The cache may be removed whenever no lab is being built.
"""

from __future__ import annotations

import datetime
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from onionward.lab.render import AuthorityKeys
from onionward.system import System, find_tool

CACHE = Path("/var/cache/onionward-lab")
_MONTHS = 12
_LEAST_LEFT = datetime.timedelta(days=30)
_EXPIRES = re.compile(r"^dir-key-expires (\S+ \S+)$", re.M)
_FINGERPRINT = re.compile(r"^fingerprint ([0-9A-F]{40})$", re.M)


def authority_keys(
    system: System, count: int, *, cache: Path = CACHE
) -> list[tuple[AuthorityKeys, Path]]:
    """Keys of `count` authorities: their fingerprints, and a directory to copy into each `keys/`.

    Raises:
        CommandError: tor or tor-gencert failed.

    """
    system.make_directory(cache, mode=0o700)
    directories = [cache / f"authority{number}" for number in range(1, count + 1)]
    missing = [d for d in directories if not are_usable(d, datetime.datetime.now(datetime.UTC))]
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(_generate, system, directory) for directory in missing]:
            done.result()
    return [(read_fingerprints(directory), directory) for directory in directories]


def read_fingerprints(directory: Path) -> AuthorityKeys:
    """Fingerprints of the keys in a directory of the cache."""
    certificate = (directory / "authority_certificate").read_text()
    v3ident = _FINGERPRINT.search(certificate)
    if v3ident is None:
        raise ValueError(f"{directory}: no fingerprint in the certificate")
    return AuthorityKeys((directory / "fingerprint").read_text().strip(), v3ident[1])


def are_usable(directory: Path, now: datetime.datetime) -> bool:
    """Whether a directory of the cache is complete and valid for a month from `now`."""
    try:
        read_fingerprints(directory)
        expires = _EXPIRES.search((directory / "authority_certificate").read_text())
        complete = (directory / "authority_signing_key").exists()
        complete &= (directory / "secret_id_key").exists()
    except (OSError, ValueError):
        return False
    if not complete or expires is None:
        return False
    return datetime.datetime.fromisoformat(f"{expires[1]}+00:00") > now + _LEAST_LEFT


def _generate(system: System, directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory.parent) as name:
        keys = Path(name) / "keys"
        keys.mkdir(mode=0o700)
        torrc = Path(name) / "torrc"
        torrc.touch()
        identity_key = str(keys / "authority_identity_key")
        make = ["--create-identity-key", "--passphrase-fd", "0"]
        if find_tool("openssl"):
            # tor-gencert itself would make one of 3072 bits, which takes up to ten seconds
            system.change(["openssl", "genrsa", "-out", identity_key, "2048"], timeout=60)
            make = []
        system.change(
            [
                *("tor-gencert", *make, "-m", str(_MONTHS), "-i", identity_key),
                *("-s", str(keys / "authority_signing_key")),
                *("-c", str(keys / "authority_certificate")),
            ],
            stdin="\n",
            timeout=120,
        )
        listed = system.change(
            [
                *("tor", "--defaults-torrc", str(torrc), "-f", str(torrc), "--hush"),
                *("--DataDirectory", name, "--ORPort", "1", "--Nickname", "authority"),
                "--list-fingerprint",
            ],
            timeout=60,
        )
        identity = "".join(listed.strip().splitlines()[-1].split()[1:])
        (keys / "fingerprint").write_text(identity + "\n")
        # the other key files belong to tor, which made them for this relay
        if directory.exists():
            shutil.rmtree(directory)
        keys.replace(directory)
