"""What a run without root gets: Tor for TCP and names, a quick refusal for the rest.

    internet ── host0 (witness) ── eth0 host: alice's tor, alice's runs

The witness watches the host's cable during every test of this file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from onionward.lab import Lab
from onionward.lab.services import checksum
from tests.lab.app_rootless_account import CLIENT, HERE, PYTHON, Account, account_of
from tests.lab.app_rootless_wire import assert_only_tor, watched
from tests.lab.lifecycle_effects import repeated

AT_ONCE = 0.5
RUNS = repeated(8, 50)


@pytest.fixture(scope="module")
def account(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with account_of(lab) as made, watched(lab, tmp_path_factory.mktemp("wire")) as capture:
        # the positive control: what alice sends without a run is seen
        plain = made.command("curl", "-sS", "--fail", "-m", "20", f"http://{lab.web4}/")
        assert json.loads(subprocess.check_output(plain))["client"] == lab.host4
        started = time.time()
        yield made
    assert capture.packets(f"dst host {lab.web4}")
    assert_only_tor(lab, capture, since=started)


def send(account: Account, kind: str, address: str, port: int) -> tuple[str, float]:
    result = json.loads(account.output(*CLIENT, "send", kind, address, str(port)))
    return result["error"], result["seconds"]


def test_server_sees_an_exit_for_addresses_and_names(account: Account) -> None:
    lab = account.lab
    for url, options, server in (
        (f"http://{lab.web4}/", (), lab.web4),
        (f"http://[{lab.web6}]/", (), lab.web6),
        ("http://v4.example.test/", (), lab.web4),
        ("http://v6.example.test/", (), lab.web6),
        ("http://www.example.test/", ("-4",), lab.web4),
        ("http://www.example.test/", ("-6",), lab.web6),
        # an exit finds what there is, whichever address stands for the name
        ("http://v6.example.test/", ("-4",), lab.web6),
    ):
        page = account.page(url, *options)
        assert (page["client"] in lab.exits, page["server"]) == (True, server), (url, options)


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_onion_service_answers(account: Account, family: str) -> None:
    page = account.page(f"http://{account.lab.onion}/", family)
    assert (page["client"], page["host"]) == ("127.0.0.1", account.lab.onion)


def test_names_are_virtual_addresses_whoever_is_asked(account: Account) -> None:
    lab = account.lab
    script = f"""
        dig() {{ command dig +time=10 +tries=1 "$@"; }}
        for at in 127.0.0.1 127.0.0.53 ::1 {lab.dns4} {lab.dns6} 203.0.113.1; do
            dig +short @$at www.example.test A
        done
        echo; dig +short www.example.test AAAA; dig +short +tcp www.example.test
        echo; dig +short -x {lab.web4}; dig +short -x {lab.web6}
        dig +short -x $(dig +short www.example.test)
        echo; dig +short +tcp @{lab.dns4} example.test MX
        for name in example.test host; do dig $name MX | grep -o 'status: [A-Z]*'; done
        dig host | grep -o 'status: [A-Z]*'
        getent ahostsv4 www.example.test | cut -d ' ' -f 1 | sort -u
    """
    first, second, third, fourth = account.output("sh", "-c", script).split("\n\n")
    (virtual,) = set(first.split())
    assert virtual.startswith("10.")
    assert re.fullmatch(r"fd5a:7011::\S+\n" + re.escape(virtual), second)
    assert third.split() == ["www.example.test."] * 3
    mail, *statuses, resolved = fourth.splitlines()
    assert mail == "10 www.example.test."
    assert statuses == ["status: NOTIMP", "status: NOTIMP", "status: NXDOMAIN"]
    assert resolved == virtual


def test_two_hundred_requests_at_once(account: Account) -> None:
    lab = account.lab
    for address in ("www.example.test", lab.web4):
        answers = json.loads(account.output(*CLIENT, "many", "200", address))
        assert len(answers) == 200
        for path, page in answers.items():
            assert (page["path"], page["host"]) == (path, address)
            assert page["client"] in lab.exits


def test_fifty_megabytes_arrive_intact(account: Account) -> None:
    size = 50_000_000
    url = f"http://{account.lab.web4}/bytes/{size}"
    argv = account.run_command("curl", "-sS", "--fail", "--noproxy", "*", "-m", "100", url)
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        digest = hashlib.file_digest(process.stdout, "sha256")  # type: ignore[arg-type]
    assert process.returncode == 0
    assert digest.hexdigest() == checksum(size)


COLLECTOR = (
    "import socket,sys;s=socket.create_server((sys.argv[1],2223));print('ready',flush=True)\n"
    "while True:\n c,_=s.accept();n=0\n while d:=c.recv(65536): n+=len(d)\n print(n,flush=True)"
)


def test_what_a_command_has_sent_arrives_although_it_has_ended(account: Account) -> None:
    lab, internet = account.lab, account.lab.hosts["internet"]
    argv = internet.command(["python", "-c", COLLECTOR, lab.web4])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as collector:
        try:
            assert collector.stdout
            assert collector.stdout.readline() == "ready\n"
            for size in (1, 1_000_000):
                script = f"exec 3<>/dev/tcp/{lab.web4}/2223; head -c {size} /dev/zero >&3"
                for _ in range(5):  # a circuit may fail
                    assert account.run("bash", "-c", script).returncode == 0
                    if select.select([collector.stdout], [], [], 20)[0]:
                        break
                assert collector.stdout.readline() == f"{size}\n"
        finally:
            collector.terminate()


def test_a_half_closed_connection_gets_its_answer(account: Account) -> None:
    # 7 echoes; tor alone would throw the answer away
    half = (
        "import socket,sys;s=socket.create_connection((sys.argv[1],7));s.sendall(b'x'*100000);"
        "s.shutdown(1);n=0\nwhile d:=s.recv(65536): n+=len(d)\nprint(n)"
    )
    assert account.output(PYTHON, "-c", half, account.lab.web4) == "100000\n"


def test_other_protocols_and_unreachable_addresses_are_refused_at_once(account: Account) -> None:
    lab = account.lab
    tries = [(kind, address) for kind in ("udp", "udplite") for address in (lab.web4, lab.web6)]
    tries += [("udp", lab.neighbour4), ("udp", "255.255.255.255")]
    for kind, address in tries:
        error, seconds = send(account, kind, address, 443)
        assert error in ("EPERM", "EACCES", "EHOSTUNREACH"), (kind, address)
        assert seconds < AT_ONCE, (kind, address)
    for address in ("10.1.2.3", "192.168.7.7", "169.254.1.1", "fd00::1"):
        error, seconds = send(account, "tcp", address, 80)
        assert error == "ECONNREFUSED", address
        assert seconds < AT_ONCE, address


def test_a_static_program_that_makes_its_own_system_calls(
    account: Account, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = account.lab
    program = tmp_path_factory.mktemp("static") / "raw_calls"
    subprocess.run(
        ["gcc", "-static", "-O1", "-o", str(program), str(HERE / "app_raw_calls.c")], check=True
    )
    inside = account.root / "srv/raw_calls"
    inside.write_bytes(program.read_bytes())
    inside.chmod(0o755)
    page, *rest = account.output("/srv/raw_calls", lab.web4, "80", lab.web4).splitlines()
    assert json.loads(page)["client"] in lab.exits
    results = dict(line.split() for line in rest)
    assert set(results) == {
        *("udp", "udplite", "icmp", "raw", "packet", "vsock", "io_uring", "keyring"),
    }
    assert results["io_uring"] == results["keyring"] == str(errno.ENOSYS)
    assert results["vsock"] == str(errno.EAFNOSUPPORT)
    assert "0" not in results.values(), results


def test_git_and_ssh_work_by_name(account: Account) -> None:
    lab, internet = account.lab, account.lab.hosts["internet"]
    serve = (
        "d=$(mktemp -d); trap 'rm -rf $d' EXIT; cd $d; git init -q --bare r.git; echo ready;"
        f"exec git daemon --reuseaddr --export-all --base-path=$d --listen={lab.web4} $d"
    )
    banner = (
        "import socket;s=socket.create_server(('{}',2222));print('ready',flush=True);"
        "c,a=s.accept();c.sendall(b'SSH-2.0-lab\\r\\n');print(a[0],c.recv(99).decode(),flush=True)"
    )
    with (
        subprocess.Popen(internet.command(["sh", "-c", serve]), stdout=subprocess.PIPE) as git,
        subprocess.Popen(
            internet.command(["python", "-c", banner.format(lab.web4)]),
            stdout=subprocess.PIPE,
            text=True,
        ) as ssh,
    ):
        try:
            assert git.stdout
            assert ssh.stdout
            assert git.stdout.readline() == b"ready\n"
            assert ssh.stdout.readline() == "ready\n"
            script = (
                "for i in $(seq 50); do git ls-remote git://v4.example.test/r.git && break; done;"
                "ssh -v -p 2222 -F none -o BatchMode=yes v4.example.test 2>&1"
            )
            words = account.run("sh", "-c", script).stdout
            assert "remote software version lab" in words
            client, _, said = ssh.stdout.readline().partition(" ")
            assert client in lab.exits
            assert said.startswith("SSH-2.0-")
            listed = account.run("git", "ls-remote", "git://v4.example.test/r.git")
            assert listed.returncode == 0, listed.stderr
        finally:
            git.terminate()
            ssh.terminate()


def test_the_command_s_end_is_the_run_s(account: Account) -> None:
    assert account.run("sh", "-c", "exit 7").returncode == 7
    assert account.run("sh", "-c", "kill -TERM $$").returncode in (-signal.SIGTERM, 143)
    assert account.run("no-such-command").returncode == 127
    done = account.run("cat", stdin="through")
    assert (done.stdout, done.stderr) == ("through", "")


def test_nothing_of_the_account_is_root_inside(account: Account) -> None:
    script = (
        "id -u; grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Groups)' /proc/self/status;"
        "ls /sys/class/net; ls /proc | grep -c '^[0-9]'; ls /srv/home/.local/state/onionward;"
        "for p in /proc/1/root /proc/1/cwd /proc/1/ns/net; do readlink $p; done;"
        "nft list ruleset 2>&1; ip link set tor0 down 2>&1; ip link add x type veth 2>&1"
    )
    words = account.run("sh", "-c", script).stdout
    assert words.startswith(f"{account.uid}\n")
    assert set(re.findall(r"Cap\w+:\s*(\w+)", words)) == {"0" * 16}
    assert "NoNewPrivs:\t1" in words
    assert "eth0" not in words
    assert words.count("Operation not permitted") >= 3


def test_runs_have_circuits_of_their_own_and_names_share(account: Account) -> None:
    lab = account.lab
    argv = ("curl", "-sS", "--fail", "--noproxy", "*", "-m", "60", f"http://{lab.web4}/")

    def at_once(*options: tuple[str, ...]) -> set[str]:
        before = circuits(account)
        running = [
            subprocess.Popen(
                account.run_command(*argv, options=chosen), stdout=subprocess.PIPE, text=True
            )
            for chosen in options
        ]
        for process in running:
            words = process.communicate(timeout=120)[0]
            assert process.returncode == 0
            assert json.loads(words)["client"] in lab.exits
        return circuits(account) - before

    assert len(at_once(*[()] * RUNS)) == RUNS
    assert len(at_once(*[("--name", "one")] * 3)) == 1
    assert len(at_once(("--name", "one"))) == 0
    assert len(at_once(("--name", "one", "--new-circuits"))) == 1
    assert len(at_once(("--name", "one"), ("--name", "a name with spaces/and more"))) == 1


def circuits(account: Account) -> set[str]:
    """The words by which tor tells circuits apart, of those that were built for somebody."""
    script = (
        "import socket,sys;s=socket.socket(socket.AF_UNIX);d=sys.argv[1];s.connect(d+'/control');"
        "c=open(d+'/control.authcookie','rb').read().hex();"
        "s.sendall(f'AUTHENTICATE {c}\\r\\nGETINFO circuit-status\\r\\nQUIT\\r\\n'.encode());"
        "sys.stdout.write(s.makefile().read())"
    )
    directory = f"{account.variables['XDG_RUNTIME_DIR']}/onionward/tor"
    words = subprocess.check_output(account.command(PYTHON, "-c", script, directory), text=True)
    return set(re.findall(r'SOCKS_PASSWORD="(\w+)"', words))
