"""The adapter of NIFCLOUD. The only place that imports the cloud's SDK, and only once a call is made."""

from moyai.cloud.nifcloud.nifcloud_adapter import ADAPTER

__all__ = ["ADAPTER"]
