"""The account and the region, its images, and what the cloud says about itself (``Account``, ``Images``, ``Survey``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from moyai.cloud.credentials import DIRECT, Reach
from moyai.cloud.model import BootDisk, Image
from moyai.cloud.nifcloud.error_codes import NoSuchObject
from moyai.cloud.nifcloud.sdk import ApiPlace
from moyai.cloud.nifcloud.wire import Wire
from moyai.cloud.nifcloud.wire_values import rows, text
from moyai.cloud.survey import CloudService, Feature, OwnIdentity, ServerCertificate
from moyai.core.errors import MoyaiError, Terminal, UsageError

_VERSION = "3.0"


class NifcloudAccount:
    def __init__(self, wire: Wire, place: ApiPlace) -> None:
        self._wire, self._place = wire, place

    def project_id(self) -> str:
        """NIFCLOUD has no projects and shows no account's id: a region is what an account has to itself. Asks the cloud, so
        that a key that is refused is refused here."""
        self._wire.read("DescribeRegions")
        return self._place.region

    def region(self) -> str:
        return self._place.region

    def login_url(self) -> str | None:
        return self._place.url

    def reach(self) -> Reach:
        if not self._place.ca:
            return DIRECT
        try:
            return Reach(authorities=Path(self._place.ca).read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"ca: {self._place.ca} cannot be read ({type(error).__name__})") from None

    def image_mirror(self) -> str | None:
        return None


class NifcloudImages:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def images(self, *, name: str | None = None) -> list[Image]:
        """The vendor's and the account's own. Ids of the vendor's change when an image gets a successor: find them by name."""
        found = rows(self._wire.read("DescribeImages"), "ImagesSet")
        images = [
            Image(
                text(one, "ImageId"),
                text(one, "Name"),
                text(one, "ImageState").upper(),
                ready=text(one, "ImageState") == "available",
            )
            for one in found
        ]
        return [one for one in images if name in (None, one.name)]

    def upload(
        self, *, name: str, file: Path, distribution: str, properties: Mapping[str, str], disk: BootDisk | None = None
    ) -> Image:
        hint = "make one from a server, or import a server, in the control panel; the documentation says how"
        raise Terminal(f"NIFCLOUD takes no image {name} as a file", hint=hint)

    def delete_image(self, image_id: str) -> None:
        try:
            self._wire.settle(
                lambda: self._wire.change("DeleteImage", {"ImageId": image_id}, object_id=image_id),
                lambda: all(one.id != image_id for one in self.images()),
            )
        except NoSuchObject:
            return


class NifcloudSurvey:
    def __init__(self, wire: Wire, place: ApiPlace) -> None:
        self._wire, self._place = wire, place

    def login(self) -> OwnIdentity:
        """The API says nothing about who is logged in."""
        return OwnIdentity("access key", "the account", self._place.region)

    def services(self) -> list[CloudService]:
        try:
            self._wire.read("DescribeAvailabilityZones")
        except MoyaiError as error:
            return [CloudService("computing", self._place.url, fault=error.message)]
        return [CloudService("computing", self._place.url, _VERSION)]

    def features(self) -> frozenset[Feature]:
        return frozenset()

    def free_addresses(self, network_id: str) -> int | None:
        return None

    def clock_ahead(self) -> float | None:
        return None

    def certificates(self) -> list[ServerCertificate]:
        return []
