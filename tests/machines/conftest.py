"""What takes minutes is collected only when it is asked for."""

from __future__ import annotations

import os

collect_ignore = [] if "ONIONWARD_SWEEP" in os.environ else ["test_firewall_managers.py"]
