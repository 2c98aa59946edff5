"""Packet rules of other programs that would starve tor, or those who are led to it.

    nft's JSON, iptables-save ──► Chains ──► judge(packet) ──► Obstacles ──► words
     (nft_json, iptables_save)   (chains)        (walk)         (limits)

What they drop is theirs to drop: nothing here changes a rule. `limits` reads them before anything
is touched; `trace` asks the kernel when tor's bootstrap stalls.
"""
