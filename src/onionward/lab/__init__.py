"""A private Tor network and hosts to protect, in namespaces, without internet.

`build` makes it, `find` finds one that was built, `destroy` removes it. Everything lives in
network, mount, pid, uts and ipc namespaces; the machine's own network, files and processes stay
as they are, but for the directory /run/onionward-lab/NAME and the cache of `onionward.lab.keys`.
"""

from onionward.lab.builder import build, destroy, find
from onionward.lab.host import Host
from onionward.lab.lab import Lab
from onionward.lab.topology import TorNetwork

__all__ = ["Host", "Lab", "TorNetwork", "build", "destroy", "find"]
