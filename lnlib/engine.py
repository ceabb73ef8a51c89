"""An engine for papermill that writes a notebook at its start and at its end only.

papermill's own writes it all before and after each cell: a seventh of a quick run.
"""

from __future__ import annotations

from typing import Any

from papermill.engines import NBClientEngine, papermill_engines


class Engine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine, without its writes between start and end.

    A run also comes to its end when its kernel dies, or when a cell takes too long.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, *words: Any, **more: Any) -> Any:
        """Run the cells of the notebook that papermill's `nb_man` keeps."""
        nb_man.save = lambda **_: None
        try:
            return super().execute_managed_notebook(nb_man, *words, **more)
        finally:
            del nb_man.save  # papermill saves next


papermill_engines.register(Engine.__name__, Engine)
