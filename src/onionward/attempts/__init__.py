"""Who tried what and was stopped: counted by the rules, told to the guard, put into words.

    a stopped packet ─► rules: counter of its account or client   (exact; `nft list table`)
                           └─► nflog group, at a limited rate ─► guard ─► a file in /run

`group` is what rules and guard agree on, `packet` reads what the kernel sends, `owners` finds the
process, `record` adds up in bounded memory; `known` reads that, `counted` what the rules have
counted, and `words` says it.
"""
