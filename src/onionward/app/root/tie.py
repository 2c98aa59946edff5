"""What ties a run to the keeper of runs: when that ends, another one is called.

Calling may take a while (a keeper is started), and meanwhile signals go to the command as ever: so
a process of its own calls, in the machine's network, and hands the connection over.
"""

from __future__ import annotations

import contextlib
import os
from _socket import (
    AF_UNIX,
    CMSG_LEN,
    MSG_DONTWAIT,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
)
from array import array
from collections.abc import Callable
from socket import socketpair
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from onionward.app import kernel, stage
from onionward.app.root import network
from onionward.errors import OnionwardError

if TYPE_CHECKING:
    from onionward.app.request import Request
    from onionward.app.root.calling import Call

_LONGEST = 4096


class Namespaces(NamedTuple):
    """Descriptors of namespaces.

    Attributes:
        run: the run's network.
        network: the machine's network.
        processes: the machine's processes.

    """

    run: int
    network: int
    processes: int


class Tie:
    """The connection of a run that has begun.

    Args:
        call: the connection.
        request: what was typed.
        uid: the run's account.
        number: of its addresses and device.
        namespaces: this process is in those of the run.
        tell: told when the run has no network any more.

    """

    def __init__(
        self,
        call: Call,
        request: Request,
        uid: int,
        number: int,
        namespaces: Namespaces,
        tell: Callable[[str], None],
    ) -> None:
        self._call = call
        self._again = (request, uid, number, namespaces.run)
        self._namespaces = namespaces
        self._tell = tell
        self._caller: socket | None = None
        self._pid = 0

    def watch(self) -> None:
        """Have SIGIO sent to this process when `noticed` has something to see."""
        stage.have_told(self._call.fileno())
        # what was so already is told to nobody
        self.noticed()

    def noticed(self) -> None:
        """See whether the keeper has ended, or another one is there."""
        if self._caller is not None:
            self._hear(self._caller)
        elif self._call.fileno() >= 0 and stage.is_hung_up(self._call.fileno()):
            self._call_again()

    def _call_again(self) -> None:
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        stage.have_told(ours.fileno())
        # what is started is not to be among the processes of the run, which it would end with
        kernel.setns(self._namespaces.processes, kernel.CLONE_NEWPID)
        starter = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            self._be_caller(theirs, starter)
        theirs.close()
        self._caller = ours
        self._hear(ours)

    def _be_caller(self, channel: socket, starter: int) -> NoReturn:
        try:
            kernel.die_with_parent()
            # rules are loaded, and tor listens, in the machine's network
            kernel.setns(self._namespaces.network, kernel.CLONE_NEWNET)
            if os.getppid() == starter:
                self._call.again(*self._again)
                passed = [(SOL_SOCKET, SCM_RIGHTS, array("i", [self._call.fileno()]))]
                channel.sendmsg([b"there"], passed)
        except (OnionwardError, OSError) as error:
            with contextlib.suppress(OSError):
                channel.send(str(error).encode(errors="replace")[:_LONGEST])
        finally:
            os._exit(0)

    def _hear(self, channel: socket) -> None:
        try:
            said, ancillary, _, _ = channel.recvmsg(_LONGEST, CMSG_LEN(4), MSG_DONTWAIT)
        except BlockingIOError:
            return
        channel.close()
        self._caller = None
        os.waitpid(self._pid, 0)  # it has nothing else to do
        handed = array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                handed.frombytes(data)
        if handed:
            self._call.adopt(handed[0])
            self.watch()
            return
        self._call.close()
        # nobody looks after rules any more
        network.close()
        why = said.decode(errors="replace") or "who has called for it was killed"
        self._tell(f"this run has no network any more: {why}")
