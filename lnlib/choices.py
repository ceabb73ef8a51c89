"""One way to refuse an unknown name: say what is valid and what was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def choose(kind: str, name: object, valid: Iterable[str]) -> str:
    """Return `name` if it is one of `valid`.

    Raises:
        ValueError: otherwise, with the valid names and the nearest match.
    """
    names = list(valid)
    if isinstance(name, str) and name in names:
        return name
    near = get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names) or "(none)"
    raise ValueError(f"{kind} must be one of {listed}; received {name!r}.{hint}")
