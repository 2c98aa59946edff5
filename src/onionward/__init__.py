"""Route traffic through Tor at the packet filter, and prove that nothing escapes."""

__version__ = "0.1.0"
