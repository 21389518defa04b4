"""The pages of docs/reference that are written from code: the commands, cloud.conf, and the record.

``python -m moyai.cli.reference FOLDER`` writes them into FOLDER; a unit test compares the pages with the code. No command
imports this package.
"""

from __future__ import annotations

from moyai.cli.reference import cloud_conf, commands, record

#: File name → the page as Markdown.
PAGES = {"commands.md": commands.render, "cloud-conf.md": cloud_conf.render, "record.md": record.render}
