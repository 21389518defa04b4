"""The record's form on disk, and how records of older versions of moyai are read.

Format 2 names each object by kind and name. Format 1 named it by one string. A record of format 1 is read as it is and written
in format 2 at its next change. Nothing else takes such a string apart. What a spec on record lacks of the
section ``security`` has the value that all clusters had before there was that field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from moyai.core.ids import CLUSTER_TAG
from moyai.core.keys import Key, Kind
from moyai.core.kubernetes_version import is_version
from moyai.plan import keys
from moyai.plan.observed import NodeAllocation
from moyai.plan.rotation import STAGES, Rotated, Rotation, RotationStage
from moyai.plan.versions import Stage, Upgrade
from moyai.spec.security import BEFORE

VERSION = 2
#: Keys of format 1 that stood for one object of a cluster.
_SINGLE: Mapping[str, Key] = {
    "network": keys.NETWORK,
    "subnet": keys.SUBNET,
    "router": keys.ROUTER,
    "floating-ip": keys.FLOATING_IP,
    "key-pair": keys.KEY_PAIR,
    "credential": keys.CONTROLLERS_CREDENTIAL,
    "volumes-credential": keys.VOLUMES_CREDENTIAL,
    "credential secret": keys.secret(keys.CONTROLLERS_CREDENTIAL),
    "volumes-credential secret": keys.secret(keys.VOLUMES_CREDENTIAL),
}
#: First words of the keys of format 1 that were followed by a name.
_NAMED: Mapping[str, Kind] = {"port": Kind.PORT, "server": Kind.SERVER, "group": Kind.SECURITY_GROUP}
#: Names under which secrets stand in secrets.json, the same in both formats.
SECRET_NAMES: Mapping[Key, str] = {keys.CONTROLLERS_CREDENTIAL: "credential", keys.VOLUMES_CREDENTIAL: "volumes-credential"}

#: Under which the credential stands that is to take another one's place: its id, name and secret, as JSON.
NEXT_NAMES: Mapping[Key, str] = {key: f"{name}-next" for key, name in SECRET_NAMES.items()}

#: The name of the key that Secrets are stored with.
ENCRYPTION_KEY = "encryption-key"


@dataclass(frozen=True)
class MadeObject:
    """One object in the record: when its making was begun, and its id and its name in the cloud once known."""

    key: Key
    begun: str
    id: str = ""
    name: str = ""


class ObjectForm(BaseModel):
    """One object of a record. The descriptions are those of the reference."""

    model_config = ConfigDict(strict=True, extra="allow")
    kind: str = Field(description="kind of the object, in the words of `moyai down`'s report")
    of: str = Field("", description="the object's own name, where a cluster has several of a kind")
    begun: str = Field(description="time when its creation was begun; it is on disk before the cloud is asked")
    name: str = Field("", description="its name in the cloud")
    id: str = Field("", description="its id in the cloud; absent while it is not known")


class UpgradeForm(BaseModel):
    """The upgrade of a record. The descriptions are those of the reference."""

    model_config = ConfigDict(strict=True, extra="allow")
    begin: str = Field("", description="version that the cluster had before; empty where there is no upgrade")
    target: str = Field("", description="version that it gets")
    goal: str = Field("", description="version that the series of upgrades leads to")
    stage: Literal["", "under way", "soaking", "rolling back", "finalizing"] = Field("", description="where the upgrade stands")
    soak_hours: float = Field(-1.0, description="hours after which the next command finalizes it; below 0: only on demand")
    done: str = Field("", description="time when all machines had the new version; empty before")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.stage:
            return self
        wrong = next((one for one in (self.begin, self.target, self.goal) if not is_version(one)), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is no version")
        if not math.isfinite(self.soak_hours):
            raise ValueError(f"soak_hours: {self.soak_hours} is no number of hours")
        if (self.stage == Stage.SOAKING or self.done) and datetime.fromisoformat(self.done).tzinfo is None:
            raise ValueError(f"done: {self.done!r} has no time zone")
        return self


class RotationForm(BaseModel):
    """The rotation of a record. The descriptions are those of the reference."""

    model_config = ConfigDict(strict=True, extra="allow")
    what: Literal["", "certificates", "authorities", "service account key", "encryption key", "credentials"] = Field(
        "", description="what is rotated; empty where there is no rotation"
    )
    stage: Literal["", "renew", "trust both", "use the new one", "drop the old one"] = Field(
        "", description="where the rotation stands"
    )
    begun: str = Field("", description="time when it began")
    done: str = Field("", description="time when all machines had the stage; empty before")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.what:
            return self
        if self.stage not in STAGES[Rotated(self.what)]:
            raise ValueError(f"stage: {self.stage!r} is none of a rotation of {self.what}")
        for moment in filter(None, (self.begun or "-", self.done)):
            if datetime.fromisoformat(moment).tzinfo is None:
                raise ValueError(f"{moment!r} has no time zone")
        return self


class _Seat(BaseModel):
    model_config = ConfigDict(strict=True)
    slot: int
    zone: str
    address: str = ""


class _InCloud(BaseModel):
    cloud: Annotated[str, Strict()]


class _Spec(BaseModel):
    """Only what is read without the whole spec being valid: a later version of moyai may have another idea of the rest."""

    spec: _InCloud


class RecordForm(BaseModel):
    """What a record must have on disk, so that nothing that reads it later fails in the middle. The descriptions are those of
    the reference.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    version: int = Field(description=f"version of this format: {VERSION}")
    name: str = Field(description="the cluster's name")
    uid: str = Field(description=f"the cluster's UID, in every tag `{CLUSTER_TAG}=<uid>`")
    created: str = Field(description="time when the record was created")
    ready: str = Field(description="time when the control plane first answered; empty before")
    api_address: str = Field(alias="apiAddress", description="the API's floating IP; empty before it is known")
    serial: int = Field(0, description="how often the record was written; of two copies, the one with more writes is the newer")
    restores: str = Field(
        "", description="time of the backup that the cluster is being restored from; empty or absent for any other cluster"
    )
    upgrade: UpgradeForm = Field(
        default=UpgradeForm.model_construct(),
        description="the upgrade that is under way or not finalized; empty or absent for none",
    )
    rotation: RotationForm = Field(
        default=RotationForm.model_construct(),
        description="the rotation of certificates or keys that is under way; empty or absent for none",
    )
    spec: _Spec = Field(description="the spec of the last `up`, with all defaults, in the form of [the spec](spec.md)")
    seats: dict[str, _Seat] = Field(
        description="for each node: its index in the address ranges (`slot`), its zone (`zone`) and, on a network of "
        "yours, the `address` that the cloud gave it"
    )
    objects: list[ObjectForm] = Field(description="every object whose creation was begun")


class Unreadable(Exception):
    """No record of this version or an earlier one. The message says what is wrong."""


def current(data: object) -> dict[str, Any]:
    """The record in today's format. Raises Unreadable for anything else."""
    if not isinstance(data, dict):
        raise Unreadable("it is no JSON object")
    found = cast("dict[str, Any]", data)
    version = found.get("version")
    if version == 1 and isinstance(found.get("objects") or {}, dict):
        old = cast("dict[str, dict[str, str]]", found.get("objects") or {})
        objects = [write_object(key, entry) for text, entry in old.items() if (key := _old_key(text)) is not None]
        found = {**found, "version": VERSION, "objects": objects}
    elif version != VERSION:
        raise Unreadable(
            f"its version is {version!r}, this moyai knows {VERSION}: a later version has written it, or something else"
        )
    try:
        form = RecordForm.model_validate(found)
        datetime.fromisoformat(form.created)
    except ValidationError as error:
        first = error.errors()[0]
        raise Unreadable(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
    except ValueError as error:
        raise Unreadable(f"created: {error}") from None
    unknown = sorted({one.kind for one in form.objects} - set(Kind))
    if unknown:
        raise Unreadable(f"it names what only a later version of moyai knows: {', '.join(unknown)}")
    return _with_security(found)


def _with_security(data: dict[str, Any]) -> dict[str, Any]:
    inner = cast("dict[str, Any]", data["spec"]["spec"])
    known: object = inner.get("security") or {}
    if not isinstance(known, dict):
        return data
    security = {**BEFORE.model_dump(mode="json", by_alias=True), **cast("dict[str, Any]", known)}
    return {**data, "spec": {**data["spec"], "spec": {**inner, "security": security}}}


def read_objects(rows: list[dict[str, str]]) -> dict[Key, dict[str, str]]:
    """Key → what is known of the object (``begun``, ``id``, ``name``)."""
    return {
        Key(Kind(row["kind"]), row.get("of", "")): {k: v for k, v in row.items() if k not in ("kind", "of")} for row in rows
    }


def write_object(key: Key, entry: Mapping[str, str]) -> dict[str, str]:
    return {"kind": str(key.kind), **({"of": key.name} if key.name else {}), **entry}


def read_allocations(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, NodeAllocation]:
    """Node → its allocation. On disk they are called ``seats``, and a node's index is called ``slot``."""
    return {name: NodeAllocation(row["slot"], row["zone"], row.get("address", "")) for name, row in rows.items()}


def write_allocations(allocations: Mapping[str, NodeAllocation]) -> dict[str, dict[str, Any]]:
    return {name: _seat(one) for name, one in allocations.items()}


def _seat(one: NodeAllocation) -> dict[str, Any]:
    return {"slot": one.index, "zone": one.zone, **({"address": one.address} if one.address else {})}


def read_upgrade(row: Mapping[str, Any] | None) -> Upgrade | None:
    if not row or not row.get("stage"):
        return None
    form = UpgradeForm.model_validate(row)
    stage = Stage(form.stage)
    return Upgrade(form.begin, form.target, form.goal, stage, soak_hours=form.soak_hours, done=form.done)


def write_upgrade(upgrade: Upgrade) -> dict[str, Any]:
    return {**asdict(upgrade), "stage": str(upgrade.stage)}


def read_rotation(row: Mapping[str, Any] | None) -> Rotation | None:
    if not row or not row.get("what"):
        return None
    form = RotationForm.model_validate(row)
    return Rotation(Rotated(form.what), RotationStage(form.stage), form.begun, form.done)


def write_rotation(rotation: Rotation) -> dict[str, Any]:
    return {"what": str(rotation.what), "stage": str(rotation.stage), "begun": rotation.begun, "done": rotation.done}


def _old_key(text: str) -> Key | None:
    if text in _SINGLE:
        return _SINGLE[text]
    first, _, name = text.partition(" ")
    return Key(_NAMED[first], name) if first in _NAMED else None
