"""`onionward verify`: try to leak from this very machine, watch its wire, tell what came of it.

conduct.py   what is never tried on somebody's machine, and why (pure)
aims.py      where the probes aim: canaries, this machine's uplink and router
plan.py      vectors and who tries them → trials (pure)
scratch.py   the positive control: a copy of the uplink in a network of its own, watched as well
prober.py    runs trials: a process for each account
judge.py     what was seen → closed, open, not proven, not tried (pure)
traffic.py   what left the wire meanwhile, over time
report.py    the words: Report, Result, Verdict; and the JSON
text.py      the report for a terminal
page.py      the report as one page of HTML
session.py   from the journal to a report
"""
