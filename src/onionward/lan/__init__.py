"""What clients behind an interface need besides packet rules: addresses, a router, quiet ARP."""
