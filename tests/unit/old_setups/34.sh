supersede domain-name-servers 127.0.0.1;
