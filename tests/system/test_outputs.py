"""No output ends a program with a traceback: no encoding, closed pipe or descriptor, no full disk; nor does no HOME."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.checkout import CHECKOUT, PYTHONPATH
from support.waiting import HANG_SECONDS
from tslrec.system import outputs

PROGRAM = (
    "from tslrec.system.exits import run_program; run_program(lambda: print('Größe …', *'x' * 70_000, flush=True))"
)
PYTHON = f'"{sys.executable}" -c "{PROGRAM}"'


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash; it ends with the code of the line's first program."""
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **variables}
    line += "; exit ${PIPESTATUS[0]}"
    return subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )


@pytest.mark.parametrize(
    ("encoding", "printed"), [("ascii", "Gr??e ?"), ("latin-1", "Gr\udcf6\udcdfe ?"), ("utf-8", "Größe …")]
)
def test_a_sign_that_the_encoding_lacks_is_a_question_mark(encoding: str, printed: str) -> None:
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONIOENCODING": encoding}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, timeout=HANG_SECONDS, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.decode("utf-8", "surrogateescape").startswith(printed)


@pytest.mark.parametrize("both", ["", "2>&1"])
def test_a_closed_pipe_ends_a_program_without_a_word(both: str) -> None:
    ran = shell(f"{PYTHON} {both} | head -c 2")
    assert (ran.returncode, ran.stderr) == (outputs.EXIT_CLOSED_PIPE, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_outputs_are_no_files_that_are_opened_later(closed: str, tmp_path: Path) -> None:
    program = (
        "from tslrec.system.exits import run_program; import sys; "
        "run_program(lambda: (open('later', 'w').write('mine'), print('lost'), print('lost', file=sys.stderr)))"
    )
    ran = shell(f'cd {tmp_path}; "{sys.executable}" -c "{program}" {closed}')
    assert ran.returncode == 0
    assert (tmp_path / "later").read_text() == "mine"


def test_a_full_disk_below_the_output_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    ran = shell(f"{PYTHON} > /dev/full")
    assert ran.returncode == 2
    assert ran.stderr == "error: standard output: No space left on device; free space, or send it to another place\n"


@pytest.mark.parametrize("home", ["-u HOME", "HOME="])
def test_a_process_without_a_home_has_that_of_its_user(home: str) -> None:
    ran = shell(f'env -u TSLREC_CACHE -u TERM {home} "{sys.executable}" "{CHECKOUT}/train.py" --cfg job --resolve')
    assert (ran.returncode, ran.stderr) == (0, "")
    (cache,) = (line for line in ran.stdout.splitlines() if line.startswith("cache: "))
    assert cache.endswith("/.cache/tslrec")
    assert cache != "cache: /.cache/tslrec"


def test_a_user_without_a_home_gets_a_folder_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.setattr(outputs.pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    assert "set TSLREC_CACHE=FOLDER or cache=FOLDER" in (outputs.set_home() or "")
    assert Path(os.environ["HOME"]).name == f"tslrec-{os.getuid()}"
