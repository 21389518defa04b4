"""Where the access key of a NIFCLOUD account is found: environment first, then the SDK's own credentials file.

Always holds: no secret is in a repr, in an error or in a log.

Source: the SDK's documentation of its configuration (``NIFCLOUD_*`` variables, ``~/.nifcloud/credentials``).
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moyai.core.errors import UsageError

ID, SECRET = "NIFCLOUD_ACCESS_KEY_ID", "NIFCLOUD_SECRET_ACCESS_KEY"


@dataclass(frozen=True)
class AccessKey:
    id: str
    secret: str = field(repr=False)


def find_access_key(environ: Mapping[str, str], home: Path) -> AccessKey:
    """Raises UsageError where no place has a whole key, or the file cannot be read."""
    own = AccessKey(environ.get(ID, ""), environ.get(SECRET, ""))
    if own.id and own.secret:
        return own
    if own.id or own.secret:
        raise UsageError(f"{ID if own.id else SECRET} is set and {SECRET if own.id else ID} is not", hint="set both")
    file = Path(environ.get("NIFCLOUD_SHARED_CREDENTIALS_FILE") or home / ".nifcloud" / "credentials")
    profile = environ.get("NIFCLOUD_PROFILE") or environ.get("NIFCLOUD_DEFAULT_PROFILE") or "default"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text())
    except FileNotFoundError:
        raise UsageError("there is no access key of NIFCLOUD", hint=f"set {ID} and {SECRET}, or write {file}") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror})") from None
    except (configparser.Error, UnicodeDecodeError):
        # the parser's own words quote the line, which may be the secret
        raise UsageError(f"{file} is no credentials file of NIFCLOUD", hint=f"it has a section [{profile}]") from None
    section: Mapping[str, str] = parser[profile] if parser.has_section(profile) else {}
    found = AccessKey(section.get("nifcloud_access_key_id", ""), section.get("nifcloud_secret_access_key", ""))
    if not (found.id and found.secret):
        hint = "it needs nifcloud_access_key_id and nifcloud_secret_access_key there"
        raise UsageError(f"{file}: section [{profile}] has no whole access key", hint=hint)
    return found
