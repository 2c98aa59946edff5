"""up and down as ordered, reversible steps.

    up:    validate ─► journal ─► block ─► cut flows ─► surroundings ─► tor ─► resolver ─► route
    down:  cut clients ─► stop tor ─► cut flows ─► resolver ─► surroundings ─► rules ─► journal

What undoes a step is in the journal before the step is taken. Until `block` nothing has changed;
from then on a failure puts everything back, except on a machine that was routed before: there the
block stays, because opening it is nobody's choice but the user's.
"""

from onionward.lifecycle.activation import Request, up
from onionward.lifecycle.deactivation import down
from onionward.lifecycle.reporter import Reporter
from onionward.lifecycle.validation import validate

__all__ = ["Reporter", "Request", "down", "up", "validate"]
