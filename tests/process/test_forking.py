"""The init has threads and forks: what it forks must not wait for a thread that the fork did not copy."""

import base64
import subprocess
import sys
from pathlib import Path

from tests.process.harness import Launcher

SECRET = "ein-geheimnis-mit-ümlaut-3f1c9a7be2d84d0c"

# Writes down each import by a thread of the init that does not keep the init from forking.
WATCH = """
import os, sys, threading
init = os.getpid()
def hook(event, arguments):
    if event == "import" and os.getpid() == init and threading.current_thread() is not threading.main_thread():
        lock = sys.modules["agent.fork_lock"].FORK_LOCK
        if not lock.locked():
            with open({path!r}, "a") as file:
                file.write(threading.current_thread().name + " imports " + arguments[0] + "\\n")
sys.addaudithook(hook)
"""

# Instead of the library that searches large pieces of output: on a slow disk, its import takes a while.
SLOW_LIBRARY = """
import time
open({path!r}, "a").close()
time.sleep(0.5)
raise ImportError
"""


def test_a_fork_waits_for_the_imports_of_other_threads(launch: Launcher, tmp_path: Path) -> None:
    """The game writes much at once, so that the capture imports what it needs while the agent's process is forked."""
    modules, unsafe, imported = tmp_path / "modules", tmp_path / "unsafe", tmp_path / "imported"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(WATCH.format(path=str(unsafe)))
    (modules / "ahocorasick_rs.py").write_text(SLOW_LIBRARY.format(path=str(imported)))
    wrapped = base64.encodebytes((SECRET * 3).encode()).decode()
    text = tmp_path / "text"
    text.write_text(wrapped + "a line of the log\n" * 5000)
    run = launch(
        ["sh", "-c", f"cat {text}; read line; echo heard"],
        env={
            "PYTHONPATH": str(modules),
            "ARBITRIUM_DELETE_TOKEN": SECRET,
            "AGENT_STOP": "stdin:stop",
            "AGENT_SPOOL_MAX": "64KiB",
            "AGENT_LOG_URL": f"file://{tmp_path}/store",
        },
    )
    assert run.is_ready_to_answer()
    done = run.stop()
    assert imported.exists(), "the capture needed the library"
    assert not unsafe.exists(), unsafe.read_text()
    assert "restarting the agent" not in done.stderr
    assert list(tmp_path.glob("store/**/exit.json")), done.stderr


def test_an_import_that_hangs_holds_up_a_fork_for_a_moment_only() -> None:
    """In the forked process the lock is free, whoever had it."""
    program = (
        "import os, threading\n"
        "from agent import fork_lock\n"
        "fork_lock.MOST_SECONDS = 0.05\n"
        "for held in (False, True):\n"
        "    if held:\n"
        "        threading.Thread(target=fork_lock.FORK_LOCK.acquire).start()\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os._exit(not fork_lock.FORK_LOCK.acquire(timeout=1))\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
        "    assert fork_lock.FORK_LOCK.locked() is held\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
