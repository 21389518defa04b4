"""gRPC as CSI speaks it: the server on its socket, calls that are serial per object."""
