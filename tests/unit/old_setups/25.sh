ifconfig lo1 create up 127.0.0.2
