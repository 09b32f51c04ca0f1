"""Workers share a folder: one does a job, the dead are found, clocks do not matter."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from greenasr.shrinking.board import Board, Job
from greenasr.shrinking.claims import Held, Owner, Superseded, Watch, newest


class Clock:
    """A monotonic clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def elsewhere(folder: Path, number: int = 0) -> Path:
    """The claim of a worker on another machine, which counts no more."""
    folder.mkdir(exist_ok=True)
    claim = folder / f"claim.{number}"
    claim.write_text(json.dumps(asdict(replace(Owner.here(), machine="far away"))))
    (folder / f"claim.{number}.beat").write_text("7")
    return claim


def test_a_job_is_claimed_once(tmp_path: Path) -> None:
    held = Watch().take(tmp_path)
    assert held is not None and Watch().take(tmp_path) is None
    held.release()
    again = Watch().take(tmp_path)
    assert again is not None
    again.release()
    assert not list(tmp_path.iterdir())


def test_of_many_that_find_a_claim_dead_one_takes_it(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    clocks = [Clock() for _ in range(5)]
    watches = [Watch(clock) for clock in clocks]
    assert [watch.take(tmp_path) for watch in watches] == [None] * 5
    for clock in clocks:
        clock.now = 100.0
    taken = [held for watch in watches if (held := watch.take(tmp_path))]
    assert len(taken) == 1 and newest(tmp_path) == 1
    taken[0].release()


def test_a_worker_that_counts_is_alive_however_long_it_takes(tmp_path: Path) -> None:
    elsewhere(tmp_path)
    watch = Watch(clock := Clock())
    for count in range(5):
        (tmp_path / "claim.0.beat").write_text(str(count))
        assert watch.take(tmp_path) is None
        clock.now += 50


def test_the_time_of_day_and_the_files_times_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = elsewhere(tmp_path)
    watch = Watch(clock := Clock())
    assert watch.take(tmp_path) is None
    monkeypatch.setattr(time, "time", lambda: 4e9)  # the clock jumps by decades
    import os

    os.utime(claim, (1, 1))
    clock.now = 10
    assert watch.take(tmp_path) is None


def test_a_process_of_this_machine_that_is_gone_is_known_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from greenasr.shrinking.claims import Watch\n"
        "Watch().take(Path(sys.argv[1])); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2])
    assert newest(tmp_path) == 0
    held = Watch().take(tmp_path)
    assert held is not None and newest(tmp_path) == 1
    held.release()


def test_a_worker_that_was_taken_for_dead_stops(tmp_path: Path) -> None:
    held = Watch().take(tmp_path)
    assert held is not None
    held.check()
    elsewhere(tmp_path, 1)
    with pytest.raises(Superseded):
        held.check()
    held.release()
    assert newest(tmp_path) == 1


def test_a_damaged_claim_is_given_time_and_then_taken(tmp_path: Path) -> None:
    (tmp_path / "claim.0").write_text('{"mach')
    watch = Watch(clock := Clock())
    assert watch.take(tmp_path) is None
    clock.now = 61
    held = watch.take(tmp_path)
    assert isinstance(held, Held)
    held.release()


def test_a_board_waits_for_another_worker_and_works_ahead_meanwhile(tmp_path: Path) -> None:
    elsewhere(tmp_path / "one")
    order: list[str] = []

    def job(name: str) -> Job:
        return Job(name, lambda folder, tell: order.append(name) or {"name": name})

    def other_finishes(seconds: float) -> None:
        (tmp_path / "one" / "result.json").write_text('{"name": "one", "by": "another"}')

    board = Board(tmp_path, sleep=other_finishes)
    found = board.do([job("one"), job("two")], lambda: [job("ahead")])
    assert [each["name"] for each in found] == ["one", "two"]
    assert order == ["two", "ahead"] and found[0]["by"] == "another"


def test_a_job_that_fails_is_free_again(tmp_path: Path) -> None:
    def fails(folder: Path, tell: object) -> dict[str, str]:
        raise ValueError("no luck")

    for _ in range(2):
        with pytest.raises(ValueError, match="no luck"):
            Board(tmp_path).do([Job("one", fails)])
    assert newest(tmp_path / "one") is None
