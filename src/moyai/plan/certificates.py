"""How long certificates live, and when the time to renew them has come.

Pure: the time is a fact like any other. A certificate is due when less than a third of its life is left, which leaves months of
failed tries before a certificate of a year ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

#: The share of its life at which a certificate is renewed. The script of the control plane's machine has the same number.
RENEWED_BELOW = 1 / 3
#: The share below which a certificate that should have been renewed is reported: lower, so that a machine that was switched off
#: for some weeks has time to renew its certificates first.
REPORTED_BELOW = 1 / 4
#: The life of a leaf certificate. Some versions of kubeadm let a renewed certificate begin when its authority began: what is
#: older than this was no part of the certificate's life.
YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Life:
    """From when until when a certificate counts."""

    begins: datetime
    ends: datetime

    def left(self, now: datetime) -> timedelta:
        """The time until the end, below zero after it."""
        return self.ends - now

    def share_left(self, now: datetime) -> float:
        """The time that is left as a share of the whole life, a year at most; below zero after the end."""
        return self.left(now) / min(self.ends - self.begins, YEAR)

    def due(self, now: datetime) -> bool:
        """Whether the certificate is to be renewed."""
        return self.share_left(now) < RENEWED_BELOW

    def overdue(self, now: datetime) -> bool:
        """Whether the certificate should have been renewed some time ago."""
        return self.share_left(now) < REPORTED_BELOW

    @property
    def end_day(self) -> str:
        """The day of the end, as people read it."""
        return f"{self.ends:%Y-%m-%d}"
