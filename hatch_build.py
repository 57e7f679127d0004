"""Puts the explorer's built pages and the printed schema into the wheel, so that an installed Head AI has both.

An editable install builds nothing: it reads the pages from `explorer/dist`, where `make explorer` puts them.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ExplorerHook(BuildHookInterface[Any]):
    """Builds the pages before a wheel or an sdist; the sdist carries them, so its wheel needs no Node."""

    def dependencies(self) -> list[str]:
        explorer = _explorer(Path(self.root))
        if explorer.is_up_to_date():
            return []
        try:
            explorer.node_and_npm()
        except explorer.BuildFailed:
            return [explorer.NODE_WHEEL]
        return []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        explorer = _explorer(Path(self.root))
        try:
            pages = explorer.build()
        except explorer.BuildFailed as failure:
            sys.exit(f"explorer: {failure}")
        if self.target_name == "wheel":
            build_data["force_include"][str(pages)] = "headai/pages"
            build_data["force_include"][str(Path(self.root) / "schema.graphql")] = "headai/schema.graphql"


def _explorer(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("explorer_build", root / "explorer" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
