"""moyai (舫い): Kubernetes clusters on a cloud that is yours, moored to it.

Importing this package imports nothing else: it is also loaded by OpenStack's own processes (see localcloud/drivers).
"""

__version__ = "0.1.0"
