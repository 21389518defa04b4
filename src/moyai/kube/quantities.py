"""Kubernetes quantities (``500m``, ``2Gi``, ``1e3``) as numbers.

lightkube reads them, and is imported with the first one: the import takes longer than everything else that ``moyai status`` and
``moyai kubectl`` do before their first call, and neither of them reads a quantity.
"""

from __future__ import annotations

from moyai.core.errors import Terminal


def parse_quantity(text: object) -> float:
    """``text`` as the API has it, a number or a string. Terminal for what is no quantity: 0 would be a wrong answer."""
    from lightkube.utils import quantity

    word = str(text).strip()
    # the API keeps these two suffixes, and lightkube does not know them; both are finer than anything that is compared here
    if word[-1:] in ("n", "u"):
        return parse_quantity(word[:-1]) * (1e-9 if word.endswith("n") else 1e-6)
    try:
        number = quantity.parse_quantity(word)
    except ValueError:
        number = None
    if number is None:
        raise Terminal(f"{word!r} is no quantity of Kubernetes", hint="should be such as 500m, 2 or 2Gi")
    return float(number)
