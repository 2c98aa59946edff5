"""Runs of root: a network namespace with a veth, turned to tor by this machine's packet filter."""
