"""The leak detector: what could escape, how to provoke it, and who watches the wire.

vectors.py   the catalogue: every known way out, what to do and what the wire then shows
model.py     the words: Vector, Attempt, Targets
themes/      the vectors themselves, one module per theme
packets.py   packets as bytes (pure)
tools.py     sockets and raw sends that the themes share
probe.py     `python -m onionward.leaks.probe`: runs vectors, inside the protected host
wire.py      the witness: tcpdump on the far end of the wire
"""
