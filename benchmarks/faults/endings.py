"""Try every way in which a sweep can be stopped or disturbed, and print how each ended.

Run ``python -m benchmarks.faults.endings``; cases that need a mount (a full disk, a read-only store) need root.
Prints a Markdown table: what was done, the exit code, and the last line that the program wrote.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from search.store.studies import StudyFiles

LONG = ["--methods", "magnitude", "--set", "finetune.epochs=20"]
SHORT = ["--methods", "magnitude", "--set", "finetune.epochs=1"]
COMMON = ["--trials", "3", "--seed", "5", "--executor", "inline", "--set", "dense.epochs=1"]


def run(store: Path, *words: str, shell: str = "") -> tuple[int, str]:
    """Run the product, with something of the shell behind it; return exit code and last line."""
    line = subprocess.list2cmdline([sys.executable, "-m", "paretoprune", *words, "--directory", str(store)])
    done = subprocess.run(["bash", "-c", f"{line} {shell}"], capture_output=True, text=True, timeout=600)
    return done.returncode, _last(done.stderr or done.stdout)


def stopped_by(number: signal.Signals) -> Callable[[Path], tuple[int, str]]:
    """Make a case: a signal once the second trial runs."""

    def case(store: Path) -> tuple[int, str]:
        words = [sys.executable, "-m", "paretoprune", "sweep", "--name", "s", *COMMON, *LONG, "--directory", str(store)]
        driver = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed)
        while driver.poll() is None and not (store / "studies" / "s" / "trials" / "0000").exists():
            time.sleep(0.1)
        driver.send_signal(number)
        _, said = driver.communicate(timeout=120)
        return driver.returncode, _last(said)

    return case


def closed_stderr(store: Path) -> tuple[int, str]:
    """The reader of stderr goes away after two lines."""
    code, _ = run(store, "sweep", "--name", "s", *COMMON, *SHORT, shell="2> >(head -2 >/dev/null)")
    return code, f"{len(StudyFiles.open(store, 's').numbers())} of 3 trials finished"


def hostile(name: str, *more: str) -> Callable[[Path], tuple[int, str]]:
    """Make a case: a method that takes its process with it; the sweep is resumed as often as it ends so."""

    def case(store: Path) -> tuple[int, str]:
        method = ["--methods", f"benchmarks.faults.hostile:{name}", "--set", "finetune.epochs=1", *more]
        code, said = run(store, "sweep", "--name", "s", *COMMON, "--trials", "1", *method)
        starts = 1
        while code < 0 or code > 130:
            code, said = run(store, "resume", "s")
            starts += 1
        outcome = StudyFiles.open(store, "s").outcome(0)
        return code, f"{outcome.state} after {starts} starts: {_last(outcome.error or '')}"

    return case


def full_disk(store: Path) -> tuple[int, str]:
    """The store lies on a disk of 3 MB."""
    with _mounted(store, "-t", "tmpfs", "-o", "size=3m", "tmpfs"):
        return run(store, "sweep", "--name", "s", *COMMON, *SHORT)


def read_only(store: Path) -> tuple[int, str]:
    """A finished store becomes read-only and is looked at."""
    run(store, "sweep", "--name", "s", *COMMON, *SHORT)
    with _mounted(store, "--bind", "-o", "ro", str(store)):
        codes = [run(store, *words.split())[0] for words in ("status s", "front s", "show s 0", "list")]
        return max(codes), "status, front, show and list answered"


class _mounted:
    """A mount for as long as the block lasts."""

    def __init__(self, place: Path, *words: str) -> None:
        self._place, self._words = place, words

    def __enter__(self) -> None:
        subprocess.run(["mount", *self._words, str(self._place)], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self._place)], check=True)


CASES: dict[str, Callable[[Path], tuple[int, str]]] = {
    "SIGINT": stopped_by(signal.SIGINT),
    "SIGTERM": stopped_by(signal.SIGTERM),
    "SIGHUP": stopped_by(signal.SIGHUP),
    "the reader of stderr goes away": closed_stderr,
    "a trial that aborts": hostile("Aborts"),
    "a trial that exits": hostile("Exits"),
    "a trial that hangs, --trial-timeout 20": hostile("Hangs", "--trial-timeout", "20"),
    "a full disk": full_disk,
    "a read-only store is looked at": read_only,
}


def _heed() -> None:
    """Have the new process hear of all signals, some of which background jobs are started without."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _last(text: str) -> str:
    lines = text.strip().splitlines() or [""]
    return lines[-1].strip()


def main() -> None:
    """Run the cases and print the table."""
    wanted = sys.argv[1:] or list(CASES)
    print("| what was done | exit code | last word |\n|---|---|---|", flush=True)
    for name in wanted:
        with tempfile.TemporaryDirectory() as scratch:
            store = Path(scratch, "mlruns")
            store.mkdir()
            try:
                code, said = CASES[name](store)
            except (OSError, subprocess.SubprocessError) as error:
                print(f"| {name} | not tried | {error} |", flush=True)
                continue
            print(f"| {name} | {code} | {said.replace(scratch, '')} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
