"""NIFCLOUD's computing protocol: bytes of a request to arguments, answers and refusals to bytes. Pure."""
