"""`onionward run`: one application whose only way to the network is Tor.

    request       what was typed, as one value; pure
    allow         what may be let through to the application by name
    mounts        which files of the machine the application sees otherwise; pure
    environment   which variables it gets; pure
    kernel        the system calls that Python has no names for
    reading       files that may not be there
    stage         processes: the first of a process namespace, the application, their ends
    start         chooses between the two modes:
    root          a network namespace with a veth, turned to tor by the packet filter
    rootless      a user namespace with a forwarder in it

Imports are few and late: what happens before the application's first instruction is waited for.
"""
