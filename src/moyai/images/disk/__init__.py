"""The node image as a disk that boots on a hypervisor: Debian with a kernel, boot loaders, the node image's content.

Always holds: the same inputs give the same bytes, nothing is mounted, and the host needs neither loop devices nor any program
of disk images: the programs are Debian packages that are only unpacked.
"""
