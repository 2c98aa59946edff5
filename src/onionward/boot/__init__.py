"""Protection from the boot on: a block before there are interfaces, then `up`.

    before network-pre.target   onionward-block.service   nft alone; no Python, no shell
    after network-online        onionward.service         `onionward up`, until it succeeds

`units` writes the texts, `install` puts them in place and takes them away.
"""
