"""What the real kernel does with real packets, in network namespaces of the tests' own; no Tor."""
