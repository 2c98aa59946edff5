# echo "inet 127.0.0.2" > /etc/hostname.lo1
