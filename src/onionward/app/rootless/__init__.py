"""Runs of other accounts: a user namespace, and a forwarder outside of it.

network        the network inside, as text for ip(8) and nft(8); pure
namespace      leaves the namespaces, sets the network up, opens the sockets inside
refusals       why the kernel forbids it, and what to change; pure
forwarder      carries connections to tor's SOCKS port: a process outside
flow           one connection
diagnosis      whether a socket of the command is still open
names          a virtual address for every name, and DNS messages; pure
name_server    answers queries
socks          SOCKS messages; pure
own_tor        the account's tor, or the machine's
keeper         the process that tor lives under
launch         all of it in its order
"""
