"""NIFCLOUD's wire for unit tests: the real SDK up to the socket, and behind it a small account.

The SDK serializes, signs and parses; a handler of botocore's event ``before-send`` stands where the socket would be. Only
calls that the adapter's tests make are there, in the forms of the SDK's service model. It is no cloud: it checks little.
"""

from __future__ import annotations

import functools
import urllib.parse
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

from moyai.cloud.nifcloud.access_keys import AccessKey
from moyai.cloud.nifcloud.nifcloud_cloud import NifcloudCloud
from moyai.cloud.nifcloud.nifcloud_limits import Terms
from moyai.cloud.nifcloud.sdk import ApiPlace, Sdk
from tests.fakes.clock import FakeClock
from tests.fakes.nifcloud_account import WireAccount
from tests.fakes.nifcloud_calls import Call, Refused

PLACE = ApiPlace("jp-east-1")


_EVENT, _UNIQUE = "before-send.computing.*", "wire-of-tests"


@functools.cache
def _sdk() -> Sdk:
    """Making a client reads the whole model, which takes half a second."""
    return Sdk(PLACE, AccessKey("key-of-tests", "secret-of-tests"))


class NifcloudWire:
    """``calls``: the operations that arrived, in order. ``clock``: the account's time, and that of clouds from ``cloud``."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.account = WireAccount(self.clock)
        self.calls: list[Call] = []
        #: What happens to a call besides orders: empty, or one of ``_TROUBLES``.
        self.trouble: Callable[[Call], str] = lambda _: ""
        self._orders: dict[str, list[Callable[[Call], None]]] = {}

    def cloud(self, *, zone: str = "east-11") -> NifcloudCloud:
        """A new process's: nothing is remembered but what the account has."""
        return NifcloudCloud(self.sdk(), PLACE, name="nifcloud:jp-east-1", terms=Terms(zone), clock=self.clock)

    def sdk(self) -> Sdk:
        """The process's one client, whose calls come here from now on."""
        sdk = _sdk()
        events = sdk.client.meta.events
        events.unregister(_EVENT, unique_id=_UNIQUE)
        events.register(_EVENT, self._answer, unique_id=_UNIQUE)
        return sdk

    # ---- orders

    def lose(self, operation: str, *, done: bool = True, times: int = 1) -> None:
        """The next replies of an operation are lost; ``done``: it has its effect all the same."""

        def order(call: Call) -> None:
            from botocore.exceptions import ReadTimeoutError  # pyright: ignore[reportMissingTypeStubs]

            if done:
                self.account.do(call)
            raise ReadTimeoutError(endpoint_url=PLACE.url)

        self._orders.setdefault(operation, []).extend([order] * times)

    def refuse(self, operation: str, code: str, *, times: int = 1) -> None:
        def order(_: Call) -> None:
            raise Refused(code, "as the test says")

        self._orders.setdefault(operation, []).extend([order] * times)

    def let(self, operation: str) -> None:
        """Nothing happens to the next call, so that the next order is for the one after it."""
        self._orders.setdefault(operation, []).append(lambda _: None)

    @property
    def count(self) -> Counter[str]:
        return Counter(call.operation for call in self.calls)

    def sent(self, operation: str) -> list[dict[str, str]]:
        """The parameters of each call of an operation."""
        return [call.parameters for call in self.calls if call.operation == operation]

    # ---- the place of the socket

    def _answer(self, request: Any, **_: Any) -> Any:
        assert request.url == f"{PLACE.url}/api/"
        query = dict(urllib.parse.parse_qsl(request.body, keep_blank_values=True))
        call = Call(query["Action"], query)
        self.calls.append(call)
        try:
            orders = self._orders.get(call.operation, [])
            if orders:
                orders.pop(0)(call)
            elif trouble := self.trouble(call):
                return self._troubled(call, trouble, url=request.url)
            body = _written(call.operation, self.account.do(call))
            return _response(request.url, status=200, body=body)
        except Refused as error:
            # every refusal as the cloud's controllers have seen it: the status says nothing
            return _response(request.url, status=500, body=_refusal(error))

    def _troubled(self, call: Call, trouble: str, *, url: str) -> Any:
        from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError  # pyright: ignore[reportMissingTypeStubs]

        if trouble == "busy" and "Describe" not in call.operation:
            raise Refused("Server.ResourceIncorrectState.Object.Processing", "it is being changed")
        if trouble == "died":
            raise Refused("Client.Died.Here", "the process ends here")
        if trouble == "not sent":
            raise ConnectTimeoutError(endpoint_url=url)
        if trouble in ("lost after its effect", "half an answer"):
            try:
                self.account.do(call)
            except Refused:
                trouble = "lost"
        if trouble == "half an answer":
            return _response(url, status=200, body=b"<Half><an>")
        raise ReadTimeoutError(endpoint_url=url)


def _response(url: str, *, status: int, body: bytes) -> Any:
    from botocore.awsrequest import AWSResponse  # pyright: ignore[reportMissingTypeStubs]

    class Raw:
        def stream(self, *_: Any, **__: Any) -> Any:
            yield body

    return AWSResponse(url, status, {"Content-Type": "text/xml"}, Raw())


def _refusal(error: Refused) -> bytes:
    root = ElementTree.Element("Response")
    inner = ElementTree.SubElement(ElementTree.SubElement(root, "Errors"), "Error")
    ElementTree.SubElement(inner, "Code").text = error.code
    ElementTree.SubElement(inner, "Message").text = error.words
    ElementTree.SubElement(root, "RequestID").text = "request-1"
    return ElementTree.tostring(root, "utf-8", xml_declaration=True)


def _written(operation: str, answer: Mapping[str, Any]) -> bytes:
    """An answer as XML, in the names of the operation's output in the model."""
    model = _sdk().client.meta.service_model
    shape = model.operation_model(operation).output_shape
    root = ElementTree.Element(f"{operation}Response", xmlns=model.metadata["xmlNamespace"])
    _write(root, shape, value=answer)
    return ElementTree.tostring(root, "utf-8", xml_declaration=True)


def _write(node: ElementTree.Element, shape: Any, *, value: Any) -> None:
    if shape.type_name == "structure":
        for key, one in value.items():
            member = shape.members[key]
            _write(ElementTree.SubElement(node, member.serialization.get("name", key)), member, value=one)
    elif shape.type_name == "list":
        for one in value:
            _write(ElementTree.SubElement(node, shape.member.serialization.get("name", "member")), shape.member, value=one)
    else:
        node.text = str(value).lower() if isinstance(value, bool) else str(value)
