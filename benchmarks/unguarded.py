"""Head AI without guards and without conditions on what its caller may see: `python -m benchmarks.unguarded`.

What access costs is measured against it. It serves as `headai api` does, by the same settings.
"""

import inspect
from collections.abc import Sequence
from typing import Any

from sqlalchemy import true

from db import sight

for _name in [name for name in vars(sight) if name.endswith(("in_sight", "_known"))]:
    setattr(sight, _name, lambda *_: true())

from dataloaders import batching  # noqa: E402  (every statement is made of what was replaced above)
from headai.serving import serve  # noqa: E402
from headai.settings import Settings  # noqa: E402
from schema import access  # noqa: E402


async def _fetch(self: batching.Loader, context: Any, keys: Sequence[Any], args: Any) -> Any:
    return await self._fetch(context, keys, args)


async def _pass(self: object, next_: Any, source: Any, info: Any, **arguments: Any) -> Any:
    result = next_(source, info, **arguments)
    return await result if inspect.isawaitable(result) else result


if __name__ == "__main__":
    for kind in (access.Viewer, access.Requires):
        kind.denial = lambda *_: None  # type: ignore[method-assign]
    access.RequiresAt.resolve_async = _pass  # type: ignore[method-assign]
    batching.Loader.fetch = _fetch  # type: ignore[method-assign]
    serve(Settings.load())
