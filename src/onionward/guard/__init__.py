"""What lives while onionward is on: a second ruleset that nobody else can flush, and a watch.

    up ──start, tell──► guard ──owns──► lock tables (owner flag: they end with it)
                          │
       nftables events ───┤  rules not those of the journal ─► loaded again from /run, at once
       link, address ─────┤  ┐
       tor ended ─────────┤  ├─► a child does what `up` does with the configuration in force
       resolv.conf ───────┤  │
       clock was set ─────┘  ┘

It sleeps until one of these happens. It acts under the lock that `up` and `down` take, and only on
what `up` has finished; what fails leaves the machine as closed as it is, and is tried again.
"""
