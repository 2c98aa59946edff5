"""OpenBSD and FreeBSD: the life cycle around pf, in modules that need nothing of Linux.

    up:    validate ─► journal ─► lo1 ─► block, pf on ─► cut ─► tor ─► files ─► route ─► read back
    down:  stop tor ─► cut ─► files ─► pf.conf as it was, pf off if it was ─► lo1 ─► journal

It is the order of `onionward.lifecycle`, with the same journal: what undoes a step is on disk
before the step is taken. Tried with a stand-in for pfctl only; docs/bsd.md says what was not.
"""
