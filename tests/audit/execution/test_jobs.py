"""Jobs that several share are each done once, and all see the same. A lock parts threads as it parts processes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hardroute.audit.execution.jobs import Job, carry_out
from hardroute.audit.execution.journal import Journal, Member, ToldElsewhere
from hardroute.runtime.errors import HardrouteError

MEMBERS, JOBS = 4, 30


@dataclass(frozen=True)
class Number:
    value: np.ndarray


class Crew:
    """Members of one run, each with the same jobs."""

    def __init__(self, folder: Path, run: str = "first") -> None:
        self.folder, self.run = folder, run
        self.done: Counter[int] = Counter()
        self.by: Counter[int] = Counter()
        self.together = threading.Barrier(MEMBERS)

    def work(self, member: int, broken: int | None = None) -> list[int]:
        journal = Journal(self.folder, "k", Member(f"member {member}", self.run, reports=member == 0))

        def job(number: int) -> Number:
            self.done[number] += 1
            self.by[member] += 1
            if number == broken and self.done[number] == 1:  # whoever tried again would not notice
                raise HardrouteError(f"planted in job {number}")
            time.sleep(0.002)
            return Number(np.array(number))

        jobs = [Job("a", 0.1, np.array([n]), lambda n=n: job(n)) for n in range(JOBS)]  # type: ignore[misc]
        self.together.wait()
        return [int(result.value) for _, result in carry_out(jobs, Number, journal)]

    def works(self, broken: int | None = None) -> list[list[int] | BaseException]:
        with ThreadPoolExecutor(MEMBERS) as pool:
            futures = [pool.submit(self.work, member, broken) for member in range(MEMBERS)]
            return [future.exception() or future.result() for future in futures]


def test_each_job_is_done_once_and_all_yield_the_same_in_order(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    assert crew.works() == [list(range(JOBS))] * MEMBERS
    assert crew.done == dict.fromkeys(range(JOBS), 1) and len(crew.by) > 1
    again = Crew(tmp_path, "second")
    assert again.works() == [list(range(JOBS))] * MEMBERS and not again.done


def test_an_error_ends_all_and_the_one_that_reports_has_its_words(tmp_path: Path) -> None:
    first, *others = Crew(tmp_path).works(broken=17)
    assert isinstance(first, HardrouteError) and str(first) == "planted in job 17"
    assert all(isinstance(other, ToldElsewhere) for other in others)
    # What is mended goes on where it was, and takes no offence at what the claims say of the run before.
    mended = Crew(tmp_path, "second")
    assert mended.works() == [list(range(JOBS))] * MEMBERS
    assert mended.done[17] == 1 and set(mended.done.values()) == {1} and len(mended.done) < JOBS


def test_alone_a_job_is_done_when_its_result_is_asked_for() -> None:
    ran: list[int] = []
    jobs = [Job("a", 0.1, np.array([n]), lambda n=n: Number(np.array(ran.append(n) or n))) for n in range(3)]  # type: ignore[func-returns-value,misc]
    for n, (_, result) in enumerate(carry_out(jobs, Number, None)):
        assert ran == list(range(n + 1)) and result.value == n


def test_a_folder_that_cannot_hold_claims_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file", "k", member := Member("alone", "r", reports=True))
    with pytest.raises(HardrouteError, match="choose another folder"), journal.claim("a", 0.1, np.array([1]), member):
        pass
