"""Try every way in which a sweep can be stopped or disturbed, and print how each ended.

Run ``python -m benchmarks.faults.endings [NAME ...]``; cases that need a mount (a full disk, a read-only store) need
root.
Prints a Markdown table: what was done, the exit code, the processes that are left five seconds later, and the last line
that the program wrote.
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
COMMON = ["--trials", "3", "--seed", "5", "--set", "dense.epochs=1", "--set", "exports=[]"]
INLINE = ["--executor", "inline"]
RAY = ["--executor", "ray", "--max-concurrent", "1"]

MARK = "PARETOPRUNE_FAULTS"
"""Variable of the environment by which processes of a case are found."""

Ended = tuple[int, str]
"""Exit code and last line."""


def run(store: Path, *words: str, shell: str = "", before: str = "") -> Ended:
    """Run the product, with something of the shell around it; return exit code and last line."""
    line = subprocess.list2cmdline([sys.executable, "-m", "paretoprune", *words, "--directory", str(store)])
    done = subprocess.run(["bash", "-c", f"{before} {line} {shell}"], capture_output=True, timeout=600)
    return done.returncode, _take_last_line((done.stderr or done.stdout).decode(errors="replace"))


def make_stopped_by(number: signal.Signals, where: list[str], times: int = 1) -> Callable[[Path], Ended]:
    """Make a case: a signal once the second trial runs, a second one while the sweep winds down."""

    def case(store: Path) -> Ended:
        words = [sys.executable, "-m", "paretoprune", "sweep", "--name", "s", *COMMON, *where, *LONG]
        words += ["--directory", str(store)]
        driver = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_restore_signals
        )
        while driver.poll() is None and not (store / "studies" / "s" / "trials" / "0000").exists():
            time.sleep(0.1)
        driver.send_signal(number)
        for _ in range(times - 1):
            time.sleep(1.05)  # sooner, it is taken for an echo of the first
            driver.send_signal(number)
        _, said = driver.communicate(timeout=120)
        return driver.returncode, _take_last_line(said)

    return case


def make_without_reader(shell: str, before: str = "") -> Callable[[Path], Ended]:
    """Make a case: a stream whose reader goes away, or that is closed from the start."""

    def case(store: Path) -> Ended:
        code, _ = run(store, "sweep", "--name", "s", *COMMON, *INLINE, *SHORT, shell=shell, before=before)
        return code, f"{len(StudyFiles.open(store, 's').numbers())} of 3 trials finished"

    return case


def run_with_full_log(store: Path) -> Ended:
    """What is written to stderr goes into a file on a full disk."""
    logs = store.parent / "logs"
    logs.mkdir()
    with _mounted(logs, "-t", "tmpfs", "-o", "size=8k", "tmpfs"):
        shell = f"2>{logs}/log; code=$?; wc -c <{logs}/log >&2; exit $code"
        (logs / "other").write_bytes(bytes(8192))
        code, size = run(store, "sweep", "--name", "s", *COMMON, *INLINE, *SHORT, shell=shell)
    return code, f"{len(StudyFiles.open(store, 's').numbers())} of 3 trials finished, the log ends at {size} bytes"


def run_in_plain_terminal(store: Path) -> Ended:
    """A terminal that knows Latin-1 alone, and one that knows ASCII alone."""
    run(store, "sweep", "--name", "s", *COMMON, *INLINE, *SHORT)
    codes = [
        run(store, *words.split(), before=before)[0]
        for words in ("front s", "compare s s", "status s", "show s 0")
        for before in ("PYTHONIOENCODING=latin-1", "PYTHONUTF8=0 LC_ALL=C PYTHONIOENCODING=ascii")
    ]
    return max(codes), "front, compare, status and show answered"


def make_hostile(name: str, *more: str) -> Callable[[Path], tuple[int, str]]:
    """Make a case: a method that takes its process with it; the sweep is resumed as often as it ends so."""

    def case(store: Path) -> tuple[int, str]:
        method = ["--methods", f"benchmarks.faults.hostile:{name}", "--set", "finetune.epochs=1", *more]
        code, said = run(store, "sweep", "--name", "s", *COMMON, *INLINE, "--trials", "1", *method)
        starts = 1
        while code < 0 or code > 130:
            code, said = run(store, "resume", "s")
            starts += 1
        outcome = StudyFiles.open(store, "s").outcome(0)
        return code, f"{outcome.state} after {starts} starts: {_take_last_line(outcome.error or '')}"

    return case


def make_full_disk(where: list[str]) -> Callable[[Path], Ended]:
    """Make a case: the store lies on a disk of 2 MB."""

    def case(store: Path) -> Ended:
        with _mounted(store, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
            return run(store, "sweep", "--name", "s", *COMMON, *where, *SHORT, "--set", 'exports=["safetensors"]')

    return case


def read_only(store: Path) -> Ended:
    """A finished store becomes read-only and is looked at."""
    run(store, "sweep", "--name", "s", *COMMON, *INLINE, *SHORT)
    with _mounted(store, "--bind", "-o", "ro", str(store)):
        codes = [run(store, *words.split())[0] for words in ("status s", "front s", "show s 0", "list", "check s")]
        return max(codes), "status, front, show, list and check answered"


def run_in_read_only_store(store: Path) -> Ended:
    """A sweep is to be kept where nothing can be written."""
    with _mounted(store, "-t", "tmpfs", "-o", "ro", "tmpfs"):
        return run(store, "sweep", "--name", "s", *COMMON, *INLINE, *SHORT)


class _mounted:
    """A mount for as long as the block lasts."""

    def __init__(self, place: Path, *words: str) -> None:
        self._place, self._words = place, words

    def __enter__(self) -> None:
        subprocess.run(["mount", *self._words, str(self._place)], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self._place)], check=True)


CASES: dict[str, Callable[[Path], Ended]] = {
    "SIGINT": make_stopped_by(signal.SIGINT, INLINE),
    "SIGTERM": make_stopped_by(signal.SIGTERM, INLINE),
    "SIGHUP": make_stopped_by(signal.SIGHUP, INLINE),
    "SIGINT twice": make_stopped_by(signal.SIGINT, INLINE, 2),
    "SIGINT, Ray": make_stopped_by(signal.SIGINT, RAY),
    "SIGTERM, Ray": make_stopped_by(signal.SIGTERM, RAY),
    "SIGHUP, Ray": make_stopped_by(signal.SIGHUP, RAY),
    "SIGINT twice, Ray": make_stopped_by(signal.SIGINT, RAY, 2),
    "the reader of stderr goes away": make_without_reader("2> >(head -2 >/dev/null)"),
    "the reader of stdout goes away": make_without_reader("| head -1; exit ${PIPESTATUS[0]}"),
    "stdin, stdout and stderr are closed": make_without_reader("<&- >&- 2>&-"),
    "the log file's disk is full": run_with_full_log,
    "a terminal of Latin-1 or ASCII": run_in_plain_terminal,
    "a trial that aborts": make_hostile("Aborts"),
    "a trial that exits": make_hostile("Exits"),
    "a trial that hangs, --trial-timeout 20": make_hostile("Hangs", "--trial-timeout", "20"),
    "a trial that asks for too much memory": make_hostile("Hogs"),
    "a trial that the kernel kills for its memory": make_hostile("Killed"),
    "a full disk": make_full_disk(INLINE),
    "a full disk, Ray": make_full_disk(RAY),
    "a read-only store is looked at": read_only,
    "a read-only store is to be written": run_in_read_only_store,
}


def _count_left(mark: str) -> int:
    """Count the processes of a case, at most five seconds after its end."""
    until = time.monotonic() + 5
    while True:
        found = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                own = folder.name != str(os.getpid())
                found += own and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.2)


def _restore_signals() -> None:
    """Have the new process hear of all signals, some of which background jobs are started without."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _take_last_line(text: str) -> str:
    lines = text.strip().splitlines() or [""]
    return lines[-1].strip()


def main() -> None:
    """Run the cases and print the table."""
    wanted = sys.argv[1:] or list(CASES)
    print("| what was done | exit code | processes left | last word |\n|---|---|---|---|", flush=True)
    for name in wanted:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            store = Path(scratch, "mlruns")
            store.mkdir()
            os.environ[MARK] = scratch
            try:
                code, said = CASES[name](store)
            except (OSError, subprocess.SubprocessError) as error:
                print(f"| {name} | not tried | | {error} |", flush=True)
                continue
            print(f"| {name} | {code} | {_count_left(scratch)} | {said.replace(scratch, '')} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
