"""docs/reference/record.md: its tables of fields are written from the forms that a record is read with.

Always holds: every field that is read has a description there.
"""

from __future__ import annotations

from typing import Literal, get_origin

from pydantic import BaseModel

from moyai.core.ids import CLUSTER_RECORD
from moyai.lifecycle.record_format import ObjectForm, RecordForm, RotationForm, UpgradeForm

_HEAD = f"""\
<!-- Written by `python -m moyai.cli.reference docs/reference`; edit src/moyai/cli/reference/record.py. -->

# The cluster's record

The record is what moyai remembers about a cluster, on the machine where `moyai up` ran. It is the folder
`~/.local/state/moyai/clusters/<name>/`. The environment variable `MOYAI_STATE_DIR` replaces `~/.local/state/moyai`.
[State and ownership](../explanation/state-and-ownership.md) explains what the record is for.

The folder has the mode 0700, its files 0600. Each file is written under another name, synced to disk and renamed. A
file is therefore always complete.

## Files

| file | content |
| --- | --- |
| `record.json` | identity, spec, indices and zones of nodes, objects |
| `secrets.json` | secrets that cannot be read from the cloud again |
| `kubeconfig` | the administrator's access to the cluster |
| `pki/` | authorities (`ca`, `front-proxy-ca`, `etcd/ca`), and the key of service accounts (`sa.key`, `sa.pub`) |
| `pki/next/` | during a rotation: the keys and authorities that come |
| `backups.json` | when the youngest scheduled backup was made, and when a rehearsal last succeeded |
| `id_ed25519`, `id_rsa` | the private SSH key for all nodes; the second on a cloud that takes RSA keys only |
| `id_start` | on a cloud that takes a small script as user data: the private SSH key that hands machines their start |
| `machines/` | of each node, on such a cloud: its metadata, its public address, and its start until it has run it |
| `known_hosts` | the SSH host keys that `moyai ssh` has seen |
| `pause` | a request to pause the upgrade that is under way |
| `mode-change.json` | where a change of the pod network's mode stands, from its begin to its end |
| `cluster-copy.json` | which copy in the cluster this record last agreed with |
| `restore/` | during a restore: the backup's snapshot of etcd, and the data that are made from it |

The file `~/.local/state/moyai/clusters/.<name>.lock`, outside the folder, is the lock. While a process holds it,
another `up` or `down` of the same cluster ends with an error.

## The copy in the cluster

Once the API has answered, the cluster holds a copy of these files but `kubeconfig`, `known_hosts`, `backups.json`, `pause`,
`cluster-copy.json` and `restore/`. It is Secret `{CLUSTER_RECORD}` of kube-system. Its annotations say who wrote it
(`moyai.dev/written-by`), when (`moyai.dev/written-at`), and the number of the write (`moyai.dev/serial`).
Lease `{CLUSTER_RECORD}` of kube-system says who works on the cluster.
[State and ownership](../explanation/state-and-ownership.md#two-copies-of-a-record) says which copy counts.

## Other files

The folder `~/.local/state/moyai/restores/<name>.before` is the record whose place a restore has taken. Below
`~/.local/state/moyai/rehearsals` is the record of a throw-away cluster while `moyai restore --rehearse` runs.

`moyai down` deletes both folders when nothing of the cluster is left in the cloud.

## `record.json`

"""

_UPGRADE = """
`upgrade` has these fields ([how a cluster is upgraded](../how-to/kubernetes-version.md)):

"""

_ROTATION = """
`rotation` has these fields ([how keys are replaced](../how-to/certificates.md)):

"""

_OBJECT = """
An object has these fields:

"""

_TAIL = """\

The kinds of objects:

| `kind` | `of` | object |
| --- | --- | --- |
| `network`, `subnet`, `router` | | the cluster's network, subnet and router |
| `security group` | `control-plane`, `worker` | the security groups |
| `port`, `server` | the node's name | port and server of a node |
| `floating ip` | | the API's floating IP |
| `key pair` | | the SSH key pair |
| `credential` | `controllers`, `volumes` | the credentials of the cloud controller manager and of the CSI driver |
| `secret` | as `credential` | the credential's secret is in `secrets.json`; with `id`: it is the user's own |
| `node` | the node's name | a mark that the node's machine was started, until `up` has seen the node Ready |

When a node or an object is removed, its entry is deleted.

## `secrets.json`

| key | content |
| --- | --- |
| `credential`, `volumes-credential` | secrets of the credentials, which the cloud shows only once |
| `credential-next`, `volumes-credential-next` | during their rotation: id, name and secret of those that come |
| `token`, `token made` | bootstrap token for joining nodes, and when it was created |
| `key` | key of the encrypted part of the control plane's user data |
| `encryption-key` | key that encrypts Secrets in etcd; a copy of etcd needs it. During a rotation there are two |

## Compatibility

A newer moyai reads records of version 1 that an older one wrote. A field that the older version did not write has its
default, and in `spec.security` the value that clusters had before there was the field. If a record has another version,
moyai refuses it with an error and changes nothing.

Do not edit these files. To continue work on another machine, copy the whole folder.

A record of format 1 named an object by one text, such as `port <node>` or `key-pair`. moyai reads such a record and
writes it in format 2 at its next change. An older moyai refuses a record of format 2.
"""


def render() -> str:
    """The page as Markdown. Raises ValueError for a field without a description."""
    return "".join(
        [
            _HEAD,
            _table(RecordForm),
            _UPGRADE,
            _table(UpgradeForm),
            _ROTATION,
            _table(RotationForm),
            _OBJECT,
            _table(ObjectForm),
            _TAIL,
        ]
    )


def _table(form: type[BaseModel]) -> str:
    rows = ["| field | type | content |", "| --- | --- | --- |"]
    for name, field in form.model_fields.items():
        if not field.description:
            raise ValueError(f"{form.__name__}.{name} has no description")
        rows.append(f"| `{field.alias or name}` | {_type(field.annotation)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _type(annotation: object) -> str:
    known: dict[object, str] = {str: "text", int: "number", float: "number", Literal: "text", list: "list", dict: "mapping"}
    return known.get(get_origin(annotation) or annotation, "mapping")
