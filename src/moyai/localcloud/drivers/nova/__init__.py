"""Nova's driver `moyai`: servers are systemd-nspawn machines of this host."""
