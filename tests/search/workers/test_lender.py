"""The process that imports beside the trials: its forks have what it imported, and none outlives the driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from search.records.errors import RunError
from search.workers.lender import Lender


def prepare_nothing() -> None:
    """Import nothing."""


def prepare_badly() -> None:
    raise ImportError("a package is missing")


def import_a_module() -> None:
    import this as _  # noqa: F401  (a module that nothing else imports; what it prints goes elsewhere)


def name_process(part: int) -> tuple[int, int, bool]:
    return part, os.getppid(), "this" in sys.modules


def print_loudly(part: str) -> str:
    print(part)  # what foreign code prints must not be taken for an answer
    return part.upper()


def die(part: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("holds what cannot be sent")
        self.held = sys.stdout


def raise_unpicklable(part: int) -> None:
    raise Unpicklable


def sleep_long(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_parts_are_forks_of_one_process_that_has_imported() -> None:
    with closing(Lender(import_a_module)) as lender:
        found = lender.spread(name_process, [1, 2, 3])
        assert [part for part, _, _ in found] == [1, 2, 3]
        assert len({parent for _, parent, _ in found}) == 1 and all(imported for _, _, imported in found)
        assert found[0][1] != os.getpid()
        assert lender.spread(print_loudly, ["a", "b"]) == ["A", "B"], "it works again, and prints go elsewhere"


def test_what_a_part_raises_is_raised_here_and_a_dead_one_is_told() -> None:
    with closing(Lender(prepare_nothing)) as lender:
        with pytest.raises(ValueError, match="invalid literal"):
            lender.spread(int, ["1", "x"])
        with pytest.raises(RunError, match="killed by signal 9"):
            lender.spread(die, [0])
        with pytest.raises(RunError, match="Unpicklable: holds what cannot be sent"):
            lender.spread(raise_unpicklable, [0])
        assert lender.spread(int, ["1"]) == [1]


def test_what_keeps_it_from_coming_up_is_told() -> None:
    with closing(Lender(prepare_badly)) as lender:
        lender.start()
        with pytest.raises(RunError, match="died: ImportError: a package is missing"):
            lender.spread(int, ["1"])
    with pytest.raises(RunError, match="has been ended"):
        lender.spread(int, ["1"])


def test_it_ends_with_its_forks_when_its_context_does(tmp_path: Path) -> None:
    program = (
        "import sys, threading; from pathlib import Path\n"
        "from contextlib import closing; from search.workers.lender import Lender\n"
        "from tests.search.workers.test_lender import prepare_nothing, sleep_long\n"
        "with closing(Lender(prepare_nothing)) as lender:\n"
        "    lender.spread(sleep_long, [Path(sys.argv[1])] * 2)\n"
    )
    for number in (signal.SIGINT, signal.SIGKILL):
        folder = tmp_path / number.name
        folder.mkdir()
        driver = subprocess.Popen(
            [sys.executable, "-c", "import signal; signal.signal(2, signal.default_int_handler)\n" + program, folder],
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda folder=folder: len(list(folder.iterdir())) == 2)
        driver.send_signal(number)
        driver.wait(30)
        forks = [int(path.name) for path in folder.iterdir()]
        wait_until(lambda forks=forks: not any(is_running(fork) for fork in forks))


def wait_until(holds: object) -> None:
    assert callable(holds)
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
