"""Start scripts in the shapes that studios and distributions use, and what the doctor has to say of each.

Each stands with everything that is no "ok": an empty set means that nothing is wrong with it, and nothing is said.
"""

# ruff: noqa: E501 - a script or a Dockerfile a row
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.doctor import shell
from agent.doctor.findings import Level
from tests.doctor_tree import Tree, program

Expected = set[str]

# name: (script, what is found as "check level")
SCRIPTS: dict[str, tuple[str, Expected]] = {
    "the vendor's Unreal start script": (
        """#!/bin/bash
printenv
terminate() {
  echo "SIGTERM received"
  kill -SIGTERM $$
}
trap terminate SIGTERM
/game/ArenaServer.sh -log
curl --silent -X DELETE -H "authorization: $ARBITRIUM_DELETE_TOKEN" "$ARBITRIUM_DELETE_URL"
sleep infinity
""",
        {"secrets warning", "signals warning", "end warning"},
    ),
    "the vendor's Unity start script": (
        "#!/bin/bash\nprintenv\n/game/server -batchmode -nographics $UNITY_COMMANDLINE_ARGS\n",
        {"secrets warning"},
    ),
    "Unreal's packager": (
        """#!/bin/sh
UE_TRUE_SCRIPT_NAME=$(echo \\"$0\\" | xargs readlink -f)
UE_PROJECT_ROOT=$(dirname "$UE_TRUE_SCRIPT_NAME")
chmod +x "$UE_PROJECT_ROOT/Arena/Binaries/Linux/ArenaServer"
"$UE_PROJECT_ROOT/Arena/Binaries/Linux/ArenaServer" Arena "$@"
""",
        set(),
    ),
    "lines continued by a backslash": ("#!/bin/sh\nexec /game/server \\\n  -batchmode \\\n  -port $PORT\n", set()),
    "its own directory, one way": ('#!/bin/sh\ncd "$(dirname "$0")"\nexec ./server "$@"\n', set()),
    "its own directory, another way": ('#!/bin/sh\nexec "$(dirname "$0")"/server "$@"\n', set()),
    "its own directory, a third way": (
        ('#!/usr/bin/env bash\nDIR="$( cd -- "$( dirname -- "${BASH_SOURCE[0]}" )" &> /dev/null && pwd )"\n'
        'exec "${DIR}/server" "$@"\n'),
        set(),
    ),
    "its own directory, by parameter": ('#!/bin/sh\nhere=${0%/*}\nexec "$here/server"\n', set()),
    "a variable in front": ("#!/bin/sh\nLD_LIBRARY_PATH=/game/lib SDL_VIDEODRIVER=dummy exec /game/server\n", set()),
    "library path extended": (
        ("#!/bin/sh\nexport LD_LIBRARY_PATH=./linux64:$LD_LIBRARY_PATH\nexport SteamAppId=892970\ncd /game\n"
        "exec ./server -name x -port 2456\n"),
        set(),
    ),
    "variables with defaults": (
        ('#!/bin/bash\nset -euo pipefail\nGAME_DIR="${GAME_DIR:-/game}"\nBINARY=${BINARY:-server}\n'
        'cd "$GAME_DIR"\nexec "./$BINARY" -port "${PORT:-7777}"\n'),
        set(),
    ),
    "an array of arguments": (
        ("#!/bin/bash\nargs=(-batchmode -nographics)\n[ -n \"$MAP\" ] && args+=(-map \"$MAP\")\n"
        'exec /game/server "${args[@]}"\n'),
        set(),
    ),
    "a functions library": (
        '#!/bin/bash\nsource /game/lib.sh\nmain() {\n  prepare\n  exec /game/server "$@"\n}\nmain "$@"\n',
        set(),
    ),
    "docker-library's entrypoint": (
        '#!/bin/sh\nset -e\nif [ "${1#-}" != "$1" ] || [ -z "$1" ]; then\n  set -- /game/server "$@"\nfi\nexec "$@"\n',
        {"program note"},
    ),
    "root first, then the user": (
        ('#!/bin/bash\nif [ "$(id -u)" = 0 ]; then\n  chown -R game /game\n  exec setpriv --reuid=game --regid=game '
        '--init-groups "$0" "$@"\nfi\nexec /game/server\n'),
        set(),
    ),
    "forwards and waits": (
        ("#!/bin/bash\nstop() { kill -INT \"$pid\"; wait \"$pid\"; }\ntrap stop TERM INT\n/game/server &\npid=$!\n"
        'wait "$pid"\n'),
        set(),
    ),
    "the arguments in the background": ("#!/bin/bash\ntrap 'kill -TERM $!' TERM\n\"$@\" &\nwait\n", set()),
    "a trap before the foreground": ("#!/bin/bash\ntrap 'echo bye' SIGTERM\n/game/server\n", {"signals warning"}),
    "a trap that is for the end": ("#!/bin/bash\ntrap 'rm -f /tmp/lock' EXIT\n/game/server\n", set()),
    "a trap taken off": ("#!/bin/bash\ntrap 'exit 1' TERM\nsleep 1\ntrap - TERM\n/game/server\n", set()),
    "ignores SIGTERM": ("#!/bin/sh\ntrap '' TERM\n/game/server\n", {"signals warning"}),
    "signals its whole group": (
        "#!/bin/bash\ntrap 'trap - TERM; kill -TERM 0' TERM\n/game/server &\nwait\n",
        set(),
    ),
    "signals itself for ever": ("#!/bin/bash\ntrap 'kill -TERM $$' TERM\n/game/server &\nwait\n", {"signals warning"}),
    "the log on the terminal": (
        "#!/bin/sh\ncd /game\n./server > /tmp/server.log 2>&1 &\ntail -f /tmp/server.log\n",
        {"end warning"},
    ),
    "the log as long as it lives": (
        "#!/bin/sh\ncd /game\n./server > /tmp/server.log 2>&1 &\ntail --pid=$! -f /tmp/server.log\n",
        set(),
    ),
    "ends before the game": ("#!/bin/sh\nnohup /game/server &\necho started\n", {"end warning"}),
    "starts it again by itself": ("#!/bin/bash\nwhile true; do\n  /game/server\n  sleep 5\ndone\n", {"end note"}),
    "a display that is not there": (
        "#!/bin/bash\nXvfb :0 -screen 0 800x600x16 &\nexport DISPLAY=:0\nexec /game/server\n",
        {"program warning"},
    ),
    "updates itself first": (
        ("#!/bin/bash\n/steamcmd/steamcmd.sh +login anonymous +force_install_dir /data +app_update 896660 +quit\n"
        "cd /data\nexec ./valheim_server.x86_64 -name x\n"),
        {"program note"},
    ),
    "an egg's startup line": (
        ("#!/bin/bash\ncd /game || exit 1\nMODIFIED_STARTUP=$(echo -e ${STARTUP} | sed -e 's/{{/${/g' -e 's/}}/}/g')\n"
        'echo ":/game$ ${MODIFIED_STARTUP}"\neval ${MODIFIED_STARTUP}\n'),
        {"program note"},
    ),
    "wine": ("#!/bin/sh\nexport WINEDEBUG=-all\nexec nice -n 5 stdbuf -oL /bin/nohup /game/server\n", set()),
    "one program for each machine": (
        ("#!/bin/sh\ncase \"$(uname -m)\" in\n  x86_64) exec /game/server ;;\n  aarch64) exec /game/server.arm64 ;;\n"
        "  *) echo unknown >&2; exit 1 ;;\nesac\n"),
        {"architecture note"},
    ),
    "settings from a here-document": (
        "#!/bin/bash\ncat > /tmp/server.cfg <<EOF\nname = \"it's ($NAME)\nif then do\nEOF\nexec /game/server -c /tmp/server.cfg\n",
        set(),
    ),
    "all output through tee": (
        "#!/bin/bash\nexec > >(tee -a /tmp/full.log) 2>&1\nexec /game/server\n",
        set(),
    ),
    "a console by a pipe": (
        ("#!/bin/bash\nmkfifo /tmp/console\ntail -f /tmp/console | /game/server &\npid=$!\n"
        "trap 'echo stop > /tmp/console; wait $pid' TERM\nwait $pid\n"),
        set(),
    ),
    "the variables that may be seen": (
        ("#!/bin/sh\nenv | grep ^UNITY_ | sort\nenv | cut -d= -f1\nprintenv HOME\nexport FOO=1\nset -e\n"
        "env LANG=C /game/server\n"),
        set(),
    ),
    "the variables that may not": ("#!/bin/sh\nenv | grep -i arbitrium\nexec /game/server\n", {"secrets warning"}),
    "all but the token": ("#!/bin/sh\nenv | grep -v TOKEN\nexec /game/server\n", set()),
    "the environment into a file": ("#!/bin/sh\nenv > /tmp/env\nexec /game/server\n", set()),
    "the token, by echo": ('#!/bin/sh\necho "token: $ARBITRIUM_DELETE_TOKEN"\nexec /game/server\n', {"secrets warning"}),
    "the token, by xtrace": (
        '#!/bin/bash -x\n/game/server\ncurl -X DELETE -H "authorization: $ARBITRIUM_DELETE_TOKEN" x\n',
        {"secrets warning"},
    ),
    "the environment from proc": ("#!/bin/sh\ncat /proc/self/environ | tr '\\0' '\\n'\nexec /game/server\n", {"secrets warning"}),
    "a typing error": ("#!/bin/sh\ncd /game\nexec ./servr\n", {"program error"}),
    "a directory that is not there": ("#!/bin/sh\ncd /gmae\nexec ./server\n", {"program warning", "program error"}),
    "a helper that is not there": ("#!/bin/sh\njq . /game/config.json\nexec /game/server\n", {"program warning"}),
    "something in a branch": (
        "#!/bin/sh\nif command -v jq >/dev/null; then\n  /opt/tools/report\nfi\nexec /game/server\n",
        {"program note"},
    ),
    "no shell language": ("#!/bin/bash\nif [ x = y ; then\n  echo 'never ends\nfi\nexec /game/server\n", {"script note"}),
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An image with servers and start scripts of an earlier stage of their lives in it."""
    made = Tree(tmp_path)
    made.add("/game/server", program())
    made.add("/game/server.arm64", program(0xB7))
    made.add("/game/Arena/Binaries/Linux/ArenaServer", program())
    made.add("/game/ArenaServer.sh", SCRIPTS["Unreal's packager"][0])
    made.add("/game/lib.sh", "prepare() { mkdir -p /tmp/x; }\n", mode=0o644)
    made.add("/steamcmd/steamcmd.sh", "#!/bin/sh\nexit 0\n")
    (tmp_path / "data").mkdir()
    return made


def found_in(tree: Tree, *command: str) -> Expected:
    """What is no "ok", without what is said of each."""
    return {
        f"{check} {finding.level}" for check, findings in tree.check(*command).items() for finding in findings
    }  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_start_script_is_judged_right(tree: Tree, name: str) -> None:
    """With a program as its argument, for those that start one."""
    script, expected = SCRIPTS[name]
    tree.add("/game/start.sh", script)
    assert found_in(tree, "/game/start.sh", "/game/server") == expected


LINES: dict[str, tuple[list[str], Expected]] = {
    "the vendor's template": (["/bin/bash", "-c", "env; /game/server -batchmode $ARGS"], {"secrets warning"}),
    "tini": (["tini", "--", "/game/server"], {"program error"}),
    "env": (["env", "X=1", "/game/server"], set()),
    "env without a program": (["/bin/env", "-u", "X", "/game/none"], {"program error"}),
    "nice": (["nice", "-n", "5", "/game/none"], {"program error"}),
    "nice, the old way": (["nice", "-5", "/game/server"], set()),
    "stdbuf": (["stdbuf", "-oL", "-e", "0", "/game/none"], {"program error"}),
    "timeout": (["timeout", "-k", "5", "3600", "/game/none"], {"program error"}),
    "all of them": (["env", "A=b", "nice", "stdbuf", "-oL", "sh", "-c", "exec /game/none"], {"program error"}),
    "a condition": (["sh", "-c", "test -f /game/x && exec /game/none; exec /game/server"], {"program note"}),
    "a relative path": (["sh", "-c", "cd /game && ./server"], set()),
    "arguments of the line": (["sh", "-c", 'exec "$0" "$@"', "/game/none", "-x"], {"program error"}),
    "python, another file": (["python3", "/game/none.py"], {"program error"}),
    "a shell alone": (["sh"], {"command warning"}),
}


@pytest.mark.parametrize("name", LINES)
def test_wrappers_and_lines_are_looked_through(tree: Tree, name: str) -> None:
    """What counts is the game behind them."""
    command, expected = LINES[name]
    assert found_in(tree, *command) == expected


def test_what_is_found_says_what_to_do(tree: Tree) -> None:
    """Each warning of the vendor's script names its line or its cause, and a remedy."""
    tree.add("/game/start.sh", SCRIPTS["the vendor's Unreal start script"][0])
    findings = [finding for group in tree.check("/game/start.sh").values() for finding in group]
    assert all(finding.remedy for finding in findings)
    said = "\n".join(map(str, findings))
    assert "runs again and again" in said
    assert "`sleep infinity`" in said
    assert "its foreground" in said


def test_strict_does_not_make_a_note_an_error(tree: Tree) -> None:
    """What cannot be told is no reason to fail."""
    tree.add("/game/start.sh", SCRIPTS["an egg's startup line"][0])
    findings = [finding for group in tree.check("/game/start.sh").values() for finding in group]
    assert {finding.level for finding in findings} == {Level.NOTE}


@given(st.text(alphabet="abc $\"'`(){}[];&|<>\\\n#=*?!xifdonesac", max_size=60))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    """A script that is not understood is a note, not a traceback, and not a hang."""
    shell.read(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('x=$(echo "\'" | xargs readlink -f)', id="lone quote"),
        pytest.param("(" * 3000, id="subshells"),
        pytest.param("$(" * 500, id="substitutions"),
        pytest.param("if a; then " * 300, id="ifs"),
        pytest.param("x=aaaa; " + "x=$x$x; " * 100, id="text"),
        pytest.param("x=(a b); " + "x+=(${x[@]}); " * 100, id="array"),
        pytest.param("set -- a b; " + "set -- $@ $@; " * 100, id="arguments"),
        # Up to the limit of steps, which takes two seconds.
        pytest.param(
            "".join(f"f{level}() {{ f{level + 1}; f{level + 1}; f{level + 1}; }}\n" for level in range(12)) + "f0",
            id="functions",
            marks=pytest.mark.slow,
        ),
        pytest.param("x='eval $x; eval $x; eval $x'; eval $x", id="eval", marks=pytest.mark.slow),
    ],
)
def test_what_grows_without_end_is_not_followed(text: str) -> None:
    """Found by fuzzing: deep nesting, and what doubles itself at each step."""
    reading = shell.read(text + "\n/game/server\n")
    assert len(reading.commands) <= shell._MOST_COMMANDS
