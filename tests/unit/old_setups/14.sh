sudo -H -u anonymous irssi
