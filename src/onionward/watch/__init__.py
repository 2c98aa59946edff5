"""A live screen: what is routed, through whom, who was stopped; keys that act.

    owners     whose a stream is, by the address under which tor knows it; pure
    ledger     what tor's events tell, added up; pure
    view       all of it as one frozen value, made of status, ledger and what was typed; pure
    text       the value as lines for a size; pure
    plain      the value as lines for something that is no terminal, one per change; pure
    sources    the machine, read when something about it has changed
    screen     the terminal, which is put back whatever happens
    loop       waits for keys, tor, children and signals in one place

Nothing of it is written to disk.
"""
