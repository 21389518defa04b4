"""Cinder's driver `moyai`: volumes are files of this host."""
