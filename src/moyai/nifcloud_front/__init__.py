"""The front: a server that speaks NIFCLOUD's computing API and does the work on another cloud (ADR 0130).

It is written from the service model of the vendor's SDK and from what is known of the service. It shares no code with
moyai's own adapter of NIFCLOUD, so that an error of the adapter shows against it.
"""
