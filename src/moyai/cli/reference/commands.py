"""docs/reference/commands.md, written from click: every command with its arguments, options, defaults and exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from moyai.cli.main import HIDDEN, cli

_HEAD = """\
<!-- Written by `python -m moyai.cli.reference docs/reference`; edit the commands in src/moyai/cli. -->

# Commands

`moyai COMMAND --help` prints the same facts. Progress goes to standard error, results go to standard output.

## Exit codes

| exit code | meaning |
| --- | --- |
| 0 | The command is done. |
| 1 | The command failed. One line on standard error says why. |
| 2 | The input is wrong. Nothing was changed. |
| 130 | The command was interrupted. The same command continues the work. |

Commands with further meanings of an exit code say so below.

## Environment

| variable | meaning |
| --- | --- |
| `MOYAI_CLUSTER` | The cluster of commands that are called without one. |
| `OS_CLOUD` | The cloud of a spec without `spec.cloud`, and of `moyai openstack`. |
| `OS_AUTH_URL` and other `OS_*` | A cloud named `envvars`. Without `OS_CLOUD` it has the same effect. |
| `KUBECONFIG` | The kubeconfig that `moyai kubeconfig` and `moyai down` change. |
| `MOYAI_CACHE_DIR` | The folder of components and images (default: `~/.cache/moyai`). |
| `MOYAI_STATE_DIR` | The folder of records and local clouds (default: `~/.local/state/moyai`). |
"""

_INSIDE = """\
## Commands that run inside a cluster

The manifests of a cluster call these commands. Users do not. A command ends with 0 after a signal, and with 1 when a part of
it fails.
"""

#: Command → what its exit codes mean beyond the general table.
EXIT_CODES = {
    "moyai status": "1 when something in the cluster does not work.",
    "moyai explain": "0 when the command found an answer, even if the answer is that the pod cannot run.",
    "moyai kubectl": "that of kubectl.",
    "moyai openstack": "that of the OpenStack client.",
    "moyai ssh": "that of ssh, which is that of the command on the node.",
    "moyai down": "1 when an object of the cluster is left.",
    "moyai cloud status": "1 unless the cloud runs and all of its parts are well.",
    "moyai cloud down": "1 when something is left on the host.",
}
_DEFAULT = re.compile(r"\s*\[default: (.*)\]$")


def render() -> str:
    """The page as Markdown."""
    root = click.Context(cli, info_name="moyai")
    parts = [_HEAD, "## Commands for users\n", *_commands(root, hidden=False), _INSIDE, *_commands(root, hidden=True)]
    return "\n".join(parts)


def paths() -> list[str]:
    """All commands that do something, as a user types them."""
    root = click.Context(cli, info_name="moyai")
    return [context.command_path for hidden in (False, True) for context in _walk(root, hidden=hidden)]


def _commands(root: click.Context, *, hidden: bool) -> Iterator[str]:
    return (_command(context) for context in _walk(root, hidden=hidden))


def _walk(context: click.Context, *, hidden: bool) -> Iterator[click.Context]:
    group = context.command
    assert isinstance(group, click.Group)
    names = [*sorted(HIDDEN)] if hidden else group.list_commands(context)
    for name in names:
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if not isinstance(command, click.Group):
            yield inner
            continue
        if command.invoke_without_command:
            yield inner
        yield from _walk(inner, hidden=False)


def _command(context: click.Context) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = [" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n")]
    parts = [f"### {context.command_path}", f"```\n{usage}\n```", *text]
    options = [param for param in command.params if isinstance(param, click.Option)]
    if options:
        rows = ["| option | value | default | meaning |", "| --- | --- | --- | --- |"]
        parts.append("\n".join([*rows, *(_row(option, context) for option in options)]))
    if codes := EXIT_CODES.get(context.command_path):
        parts.append(f"Exit code: {codes}")
    return "\n\n".join(parts) + "\n"


def _row(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    meaning = option.help or ""
    default = ""
    if found := _DEFAULT.search(meaning):
        default, meaning = found[1], meaning[: found.start()]
    elif option.required:
        default = "(required)"
    elif not option.is_flag or option.secondary_opts:
        default = _word(option.get_default(context))
    cells = (names, _type(option), default, meaning.rstrip())
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _word(value: object) -> str:
    """A default as it is typed; empty where the option has none."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    # an option without a default has a marker of click's in its place
    return f"`{value}`" if value != "" and isinstance(value, str | int | Path) else ""


def _type(option: click.Option) -> str:
    kind = option.type
    if option.is_flag:
        return ""
    if isinstance(kind, click.Choice):
        return " or ".join(f"`{word}`" for word in kind.choices)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if isinstance(kind, click.IntRange):
        return f"{kind.min} to {kind.max}"
    words = {"text": "text", "integer": "number", "float range": "number", "boolean": "true or false", "file": "path"}
    return words.get(kind.name, kind.name)
