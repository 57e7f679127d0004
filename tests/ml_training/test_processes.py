"""Whatever a child does, its parent gets an answer or a typed exception, and the next call works."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from ml import training
from ml.artifact import sha256_of
from ml.messages import (
    DataProblem,
    DigestMismatch,
    Ended,
    LogLine,
    ModelUnreadable,
    Phase,
    ResourceUsage,
    RoundDone,
    SchemaMismatch,
    Stop,
)
from ml.processes import (
    ChildDied,
    ChildFailure,
    ChildPool,
    ChildRaised,
    Killed,
    OutOfMemory,
    Template,
    TimedOut,
    run_in_child,
)
from ml.spec import Task
from tests.ml_training import targets


async def gone(pid: int) -> None:
    """Wait until the process is no more than a zombie."""
    async with asyncio.timeout(20):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_function_runs_in_another_process(template: Template) -> None:
    assert await run_in_child(template, targets.add, 1, 2) == 3
    first, second = [await run_in_child(template, targets.pid) for _ in range(2)]
    assert len({first, second, os.getpid(), template.pid}) == 4


async def test_children_see_neither_secrets_nor_scikit_learn(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADAI_S3_SECRET_KEY", "hush")
    assert "hush" not in (await run_in_child(template, targets.environment)).values()
    loaded = await run_in_child(template, targets.modules)
    assert "lightgbm" in loaded
    assert "sklearn" not in loaded


async def test_exceptions_arrive_with_their_traceback(template: Template) -> None:
    with pytest.raises(ChildRaised, match="ZeroDivisionError: by zero") as caught:
        await run_in_child(template, targets.fail)
    assert "targets.py" in caught.value.traceback
    with pytest.raises(DataProblem) as own:
        await run_in_child(template, targets.refuse)
    assert own.value.path == ("input", "spec", "target")


async def test_a_killed_child_is_told_with_its_last_words(template: Template) -> None:
    with pytest.raises(ChildDied) as caught:
        await run_in_child(template, targets.die)
    assert (caught.value.signal, caught.value.exit_code, caught.value.output) == (signal.SIGKILL, None, "last words")
    with pytest.raises(ChildDied) as left:
        await run_in_child(template, targets.leave, 3)
    assert (left.value.signal, left.value.exit_code) == (None, 3)


async def test_a_child_that_grows_too_large_is_out_of_memory(template: Template) -> None:
    with pytest.raises(OutOfMemory, match="more than its 300 MB"):
        await run_in_child(template, targets.grow, 4000, memory_limit_mb=300)
    with pytest.raises(OutOfMemory):
        await run_in_child(template, targets.grow_at_once, memory_limit_mb=300)
    assert await run_in_child(template, targets.grow, 10, memory_limit_mb=300) == 10


async def test_a_child_that_hangs_or_spins_is_timed_out(template: Template) -> None:
    with pytest.raises(TimedOut, match=r"longer than 0\.2 s"):
        await run_in_child(template, targets.hang, wall_timeout=0.2)
    with pytest.raises(TimedOut, match="CPU"):
        await run_in_child(template, targets.spin, cpu_seconds=1)


async def test_a_child_cannot_make_its_parent_run_code(template: Template) -> None:
    with pytest.raises(ChildFailure, match=r"unreadable: A child answered with posix\.system"):
        await run_in_child(template, targets.sneak)


async def test_a_run_streams_and_stops_when_asked(template: Template) -> None:
    messages: list[Any] = []
    sampled = asyncio.Event()

    def on_message(message: Any) -> None:
        messages.append(message)
        if isinstance(message, ResourceUsage):
            sampled.set()

    run = await template.run(targets.count_until_stopped, controlled=True, on_message=on_message, sample_seconds=0.05)
    await sampled.wait()
    run.stop(Stop.KEEP_BEST)
    count, asked = await run.result()
    assert asked == "KEEP_BEST"
    assert messages.count(Phase("counting", None)) == count > 0
    assert next(m for m in messages if isinstance(m, ResourceUsage)).rss_bytes > 2**20


async def test_what_a_child_writes_becomes_log_lines(template: Template) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    run = await template.run(targets.write_lines, controlled=True, on_message=heard.put_nowait)
    await run.result()
    lines = []
    while len(lines) < 2:
        message = await heard.get()
        if isinstance(message, LogLine):
            lines.append((message.level, message.stream, message.text))
    assert sorted(lines) == [("INFO", "STDOUT", "to stdout"), ("WARNING", "STDERR", "to stderr")]


async def test_a_kill_takes_the_whole_process_group(template: Template) -> None:
    messages: asyncio.Queue[Any] = asyncio.Queue()
    run = await template.run(targets.spawn_and_hang, controlled=True, on_message=messages.put_nowait)
    grandchild = int((await messages.get()).name)
    run.kill()
    with pytest.raises(Killed):
        await run.result()
    await gone(grandchild)


async def test_a_cancelled_caller_takes_its_child_along(template: Template) -> None:
    run = await template.run(targets.hang)
    assert run.pid is not None
    task = asyncio.create_task(run.result())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(run.pid)


async def test_a_dead_template_takes_its_children_along_and_starts_again(template: Template) -> None:
    run = await template.run(targets.hang)
    assert run.pid is not None
    assert template.pid is not None
    os.kill(template.pid, signal.SIGKILL)
    with pytest.raises(ChildDied):
        await run.result()
    await gone(run.pid)
    assert await run_in_child(template, targets.add, 2, 2) == 4


async def test_children_die_with_their_parent(tmp_path: Path) -> None:
    script = (
        "import asyncio\n"
        "from ml.processes import Template\n"
        "from tests.ml_training import targets\n"
        "async def main():\n"
        "    template = Template()\n"
        "    run = await template.run(targets.spin)\n"
        "    print(template.pid, run.pid, flush=True)\n"
        "    await run.result()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    pids = [int(pid) for pid in (await process.stdout.readline()).split()]
    assert len(pids) == 2
    process.kill()
    await process.wait()
    for pid in pids:
        await gone(pid)


async def test_training_in_a_child_equals_training_here(template: Template, job: Any) -> None:
    here = training.train(job(Task.BINARY_CLASSIFICATION), lambda _: None, lambda: None)
    messages: list[Any] = []
    run = await template.run(
        training.train_in_child, job(Task.BINARY_CLASSIFICATION), controlled=True, on_message=messages.append
    )
    there = await run.result()
    assert (there.ended, there.rounds, there.best_metrics) == (here.ended, here.rounds, here.best_metrics)
    assert there.files[0] == here.files[0]
    assert [m.step for m in messages if isinstance(m, RoundDone)] == list(range(20))


async def test_a_training_is_cancelled_in_its_child(template: Template, job: Any) -> None:
    stopped: list[Any] = []
    made = job(Task.BINARY_CLASSIFICATION, num_rounds=100_000)
    holder: list[Any] = []

    def on_message(message: Any) -> None:
        if isinstance(message, RoundDone) and not stopped and holder:
            stopped.append(message.step)
            holder[0].stop(Stop.KEEP_BEST)

    holder.append(await template.run(training.train_in_child, made, controlled=True, on_message=on_message))
    result = await holder[0].result()
    assert result.ended is Ended.CANCELED
    assert 0 < result.rounds < 100_000
    assert result.files[0].sha256 == sha256_of(f"{made.output}/model.txt")


@pytest.fixture
def model(job: Any) -> tuple[str, str, dict[str, float]]:
    made = job(Task.BINARY_CLASSIFICATION)
    result = training.train(made, lambda _: None, lambda: None)
    return made.output, result.files[0].sha256, dict.fromkeys(made.spec.features, 1.0)


async def test_a_pool_starts_nothing_before_its_first_call_and_keeps_its_child(
    template: Template, model: tuple[str, str, dict[str, float]]
) -> None:
    folder, sha256, row = model
    pool = ChildPool(template)
    assert template.pid is None
    one = await pool.score(folder, sha256, [row], probabilities=True)
    many = await pool.score(folder, sha256, [row] * 500, probabilities=True)
    assert many == one * 500
    assert await pool.call(targets.pid) == await pool.call(targets.pid)
    with pytest.raises(SchemaMismatch) as caught:
        await pool.score(folder, sha256, [row, {**row, "more": 1}])
    assert (caught.value.row, caught.value.unexpected) == (1, ("more",))
    with pytest.raises(DigestMismatch):
        await pool.score(folder, "0" * 64, [row])
    await pool.close()


async def test_a_pool_survives_its_children(template: Template, model: tuple[str, str, dict[str, float]]) -> None:
    folder, sha256, row = model
    pool = ChildPool(template, size=2, timeout=30, memory_limit_mb=400)
    expected = await pool.score(folder, sha256, [row])
    with pytest.raises(ChildDied):
        await pool.call(targets.die)
    with pytest.raises(TimedOut):
        await pool.call(targets.hang, timeout=0.1)
    with pytest.raises(OutOfMemory):
        await pool.call(targets.grow, 4000)
    os.kill(await pool.call(targets.pid), signal.SIGKILL)
    answers = await asyncio.gather(*(pool.score(folder, sha256, [row]) for _ in range(20)), return_exceptions=True)
    assert [a for a in answers if not isinstance(a, ChildDied)] == [expected] * (
        20 - sum(isinstance(a, ChildDied) for a in answers)
    )
    assert sum(isinstance(a, ChildDied) for a in answers) <= 1
    await pool.close()


async def test_damaged_models_never_hurt_the_parent(
    template: Template, model: tuple[str, str, dict[str, float]]
) -> None:
    """Each damage comes with the digest of the damaged text, so that LightGBM does see it."""
    folder, sha256, row = model
    text = (Path(folder) / "model.txt").read_bytes()
    pool = ChildPool(template, timeout=2.0, memory_limit_mb=500)
    expected = await pool.score(folder, sha256, [row])
    chance = random.Random(5)
    damaged = [text[: len(text) * i // 9] for i in range(9)]
    for _ in range(21):
        broken = bytearray(text)
        for _ in range(30):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        damaged.append(bytes(broken))
    outcomes = []
    for content in damaged:
        (Path(folder) / "model.txt").write_bytes(content)
        try:
            await pool.score(folder, hashlib.sha256(content).hexdigest(), [row])
            outcomes.append("answered")
        except (ChildFailure, ModelUnreadable) as error:
            outcomes.append(type(error).__name__)
    assert "ChildDied" in outcomes
    (Path(folder) / "model.txt").write_bytes(text)
    assert await pool.score(folder, sha256, [row]) == expected
    await pool.close()


def test_it_works_on_uvloop(model: tuple[str, str, dict[str, float]]) -> None:
    folder, sha256, row = model

    async def main() -> list[dict[str, Any]]:
        template = Template()
        pool = ChildPool(template)
        with pytest.raises(ChildDied):
            await pool.call(targets.die)
        answer = await pool.score(folder, sha256, [row])
        await pool.close()
        await template.close()
        return answer

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert len(runner.run(main())) == 1


def test_the_parent_imports_none_of_the_learning_stack() -> None:
    script = (
        "import sys, ml.processes, ml.algorithm, ml.messages, ml.spec, ml.template\n"
        "print([m for m in ('lightgbm', 'numpy', 'polars', 'pyarrow', 'scipy', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
