"""nftables by its library: a transaction without a process.

The library is the one that ``nft`` itself consists of, so commands are the same JSON. Always holds: a transaction is applied
as a whole or not at all; the object belongs to the network namespace in which it was made, and to one thread at a time.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

_LIBRARY = "libnftables.so.1"
_JSON = 1 << 4


class NftError(Exception):
    """The kernel or the library refused a transaction; the message is nftables' own."""


class Nftables:
    """Made in the namespace whose tables are meant. Raises NftError where the machine has no libnftables."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise NftError(f"nftables' library cannot be loaded ({error})") from error
        calls = self._library
        calls.nft_ctx_new.restype = ctypes.c_void_p
        calls.nft_ctx_new.argtypes = [ctypes.c_uint32]
        calls.nft_ctx_free.argtypes = [ctypes.c_void_p]
        calls.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        calls.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for name in ("output", "error"):
            getattr(calls, f"nft_ctx_buffer_{name}").argtypes = [ctypes.c_void_p]
            getter = getattr(calls, f"nft_ctx_get_{name}_buffer")
            getter.argtypes, getter.restype = [ctypes.c_void_p], ctypes.c_char_p
        self._context = calls.nft_ctx_new(0)
        if not self._context:
            raise NftError("nftables cannot be opened: the process needs CAP_NET_ADMIN")
        calls.nft_ctx_buffer_output(self._context)
        calls.nft_ctx_buffer_error(self._context)
        calls.nft_ctx_output_set_flags(self._context, _JSON)
        self._lock = threading.Lock()

    def run(self, commands: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One transaction; what ``list`` commands answer. Blocks; the interpreter's lock is free meanwhile. Raises NftError."""
        return self._run(json.dumps({"nftables": list(commands)}, separators=(",", ":")))

    def run_text(self, commands: str) -> None:
        """One transaction in nft's own language. Blocks; raises NftError."""
        self._run(commands)

    def _run(self, text: str) -> list[dict[str, Any]]:
        with self._lock:
            failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
            said = self._library.nft_ctx_get_output_buffer(self._context) or b""
            why = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftError(_reason(why.decode(errors="replace")))
        return list(json.loads(said)["nftables"]) if said.strip() else []

    def close(self) -> None:
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None


def _reason(said: str) -> str:
    """The library's errors without the commands, which it repeats as a whole."""
    lines = [line.partition("Error: ")[2] for line in said.splitlines() if "Error: " in line]
    return "; ".join(lines[:3]) or "nftables gave no reason"
