"""Local copies of objects, on a real store."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from storage.copies import DamagedObject, LocalCopies, Wanted
from storage.objects import ObjectMissing, ObjectStore


async def put(store: ObjectStore, key: str, size: int) -> Wanted:
    content = key.encode() * size
    await store.write(key, content, "text/plain")
    return Wanted("file.txt", key, hashlib.sha256(content).hexdigest())


async def test_the_longest_unused_copy_makes_room(store: ObjectStore, tmp_path: Path) -> None:
    copies = LocalCopies(store, tmp_path, limit_bytes=2000)
    first, second, third = [await put(store, f"copies/{n}", 100) for n in "abc"]
    folders = [await copies.folder(first), await copies.folder(second)]
    await copies.folder(first)

    newest = await copies.folder(third)

    assert set(os.listdir(tmp_path)) == {folders[0].name, newest.name}
    assert (await copies.folder(second) / "file.txt").read_bytes() == b"copies/b" * 100


async def test_many_at_once_fetch_once_and_a_second_process_fetches_nothing(store: ObjectStore, tmp_path: Path) -> None:
    wanted = await put(store, "copies/once", 10)
    copies = LocalCopies(store, tmp_path)

    folders = await asyncio.gather(*(copies.folder(wanted) for _ in range(8)))
    await store.delete([wanted.key])

    assert set(folders) == {await LocalCopies(store, tmp_path).folder(wanted)}
    assert [path.name for path in folders[0].iterdir()] == ["file.txt"]


async def test_nothing_is_kept_of_an_object_that_is_damaged_or_gone(store: ObjectStore, tmp_path: Path) -> None:
    wanted = await put(store, "copies/damaged", 10)
    copies = LocalCopies(store, tmp_path)

    with pytest.raises(DamagedObject):
        await copies.folder(wanted._replace(sha256="0" * 64))
    with pytest.raises(ObjectMissing):
        await copies.folder(wanted._replace(key="copies/none"))

    assert os.listdir(tmp_path) == []
