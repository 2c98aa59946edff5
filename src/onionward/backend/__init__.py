"""One module per packet filter: check, apply, verify, remove; no policy."""
