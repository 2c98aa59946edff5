/etc/init.d/tor restart
