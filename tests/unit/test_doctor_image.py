"""`doctor --image` over small trees that each have one thing wrong."""

import argparse
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import doctor
from agent.doctor.findings import Finding, Level, failed
from agent.doctor.image import shell_form_of
from tests.doctor_tree import Tree, program


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An image with a server in it and nothing wrong."""
    made = Tree(tmp_path)
    made.add("/game/server", program())
    return made


def only(found: dict[str, list[Finding]]) -> Finding:
    """The one finding there is."""
    (findings,) = found.values()
    (finding,) = findings
    return finding


def test_a_proper_image_has_nothing_to_find(tree: Tree) -> None:
    """Neither errors nor warnings nor notes."""
    assert tree.check("/game/server", "-batchmode") == {}


def no_program(tree: Tree) -> None:
    """Nothing was copied."""
    (tree.root / "game/server").unlink()


def a_directory(tree: Tree) -> None:
    """The path ends too early."""
    no_program(tree)
    (tree.root / "game/server").mkdir()


def not_executable(tree: Tree) -> None:
    """Copied from Windows."""
    (tree.root / "game/server").chmod(0o644)


def other_machine(tree: Tree) -> None:
    """Built on another machine."""
    tree.add("/game/server", program(0xB7))


def windows_program(tree: Tree) -> None:
    """The wrong build target."""
    tree.add("/game/server", b"MZ\x90\0\3")


def no_loader(tree: Tree) -> None:
    """Built for Alpine."""
    tree.add("/game/server", program(loader="/lib/ld-musl-x86_64.so.1"))


def crlf(tree: Tree) -> None:
    """Saved on Windows."""
    tree.add("/game/server", "#!/bin/sh\r\nexec /bin/sh\r\n")


def no_interpreter(tree: Tree) -> None:
    """No bash in the image."""
    (tree.root / "bin/bash").unlink()
    tree.add("/game/server", "#!/bin/bash\nexec /bin/sh\n")


def no_first_line(tree: Tree) -> None:
    """Only a shell would start it."""
    tree.add("/game/server", "exec /bin/sh\n")


@pytest.mark.parametrize(
    ("break_it", "check", "says", "remedy"),
    [
        (no_program, "program", "no such file", "COPY"),
        (a_directory, "program", "directory", "name the program"),
        (not_executable, "program", "not executable", "chmod +x /game/server"),
        (other_machine, "architecture", "built for aarch64", "--platform"),
        (windows_program, "architecture", "a Windows program", "Linux"),
        (no_loader, "loader", "/lib/ld-musl-x86_64.so.1", "alpine"),
        (crlf, "line-endings", "CRLF", "sed -i 's/\\r$//' /game/server"),
        (no_interpreter, "interpreter", "/bin/bash is not in the image", "#!/bin/sh"),
        (no_first_line, "interpreter", "no #! line", "#!/bin/sh"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_will_fail_is_found(
    tree: Tree, break_it: Callable[[Tree], None], check: str, says: str, remedy: str
) -> None:
    """Each with what cannot be done, and what to do."""
    break_it(tree)
    finding = only(tree.check("/game/server"))
    assert finding.level is Level.ERROR
    assert finding.check == check
    assert finding.message.startswith("cannot ")
    assert says in finding.message
    assert remedy in finding.remedy
    assert failed([finding])


@pytest.mark.parametrize(
    "command",
    [
        ["/bin/sh", "-c", "cd /game && exec /game/start.sh $ARGS"],
        ["/bin/sh", "/game/start.sh"],
        ["/game/start.sh"],
    ],
    ids=["line", "argument", "direct"],
)
def test_a_start_script_is_found_however_it_is_called(tree: Tree, command: list[str]) -> None:
    """The command as a shell line, as an argument of a shell, and executed."""
    tree.add("/game/start.sh", "#!/bin/sh\r\n/game/server\r\n")
    assert only(tree.check(*command)).check == "line-endings"


def test_the_server_behind_a_start_script_is_checked(tree: Tree) -> None:
    """It is what matters; the script may be fine."""
    tree.add("/game/start.sh", "#!/bin/sh\nexec /game/server\n")
    other_machine(tree)
    assert only(tree.check("/game/start.sh")).check == "architecture"


def test_a_script_that_starts_itself_is_looked_at_once(tree: Tree) -> None:
    """A loop of scripts ends."""
    tree.add("/game/start.sh", "#!/bin/sh\n/game/start.sh\n")
    assert tree.check("/game/start.sh") == {}


UNREAL = '#!/bin/sh\nUE_PROJECT_ROOT=$(dirname "$0")\n"$UE_PROJECT_ROOT/My/Binaries/Linux/MyServer" My "$@"\n'


def test_an_unreal_server_as_root_is_found(tree: Tree) -> None:
    """It refuses to run; as another user, or with a user for the game, it does not."""
    tree.add("/game/MyServer.sh", UNREAL)
    tree.add("/game/My/Binaries/Linux/MyServer", program())
    found = tree.check("/game/MyServer.sh", uid=0)
    assert {finding.level for finding in found["user"]} == {Level.ERROR}
    assert tree.check("/game/MyServer.sh", uid=1000) == {}
    assert tree.check("/game/MyServer.sh", uid=0, AGENT_GAME_USER="game") == {}


def test_the_server_of_an_unreal_script_is_found_next_to_it(tree: Tree) -> None:
    """Its path is built at run time; the doctor knows how."""
    tree.add("/game/MyServer.sh", UNREAL)
    tree.add("/game/My/Binaries/Linux/MyServer", program(0xB7))
    assert only(tree.check("/game/MyServer.sh")).check == "architecture"


def test_traps_of_start_scripts_are_warned_of(tree: Tree) -> None:
    """A trap that the game never hears of, and an environment in the logs; neither is sure to fail."""
    tree.add("/game/start.sh", "#!/bin/sh\nprintenv\ntrap 'kill -TERM $$' SIGTERM\n/game/server\nsleep infinity\n")
    found = tree.check("/game/start.sh")
    assert set(found) == {"signals", "secrets", "end"}
    assert all(finding.level is Level.WARNING for findings in found.values() for finding in findings)


def test_missing_certificates_are_warned_of(tree: Tree) -> None:
    """The agent brings its own, so only the game may fail."""
    (tree.root / "etc/ssl/certs/ca-certificates.crt").unlink()
    assert only(tree.check("/game/server")).level is Level.WARNING
    assert only(tree.check("/game/server", SSL_CERT_FILE="/none")).level is Level.ERROR


def test_folders_that_nobody_can_write_are_noted(tree: Tree) -> None:
    """Without /run and /tmp there is no socket; everything else works."""
    for folder in ("run", "tmp"):
        (tree.root / folder).rmdir()
    assert only(tree.check("/game/server")).check == "folders"


@pytest.mark.parametrize(
    ("dockerfile", "check"),
    [
        ("FROM debian:13-slim\nCMD [\"/game/server\"]\n", "entrypoint"),
        ("FROM debian:13-slim\nENTRYPOINT /opt/arbitrium-agent/entrypoint.sh\nCMD [\"/game/server\"]\n", "entrypoint"),
        (
            "FROM debian:13-slim\nENTRYPOINT [\"/opt/arbitrium-agent/bin/arbitrium-agent\"]\nCMD [\"/game/server\"]\n",
            "entrypoint",
        ),
        ("FROM debian:13-slim\nENTRYPOINT [\"/opt/arbitrium-agent/entrypoint.sh\"]\n", "command"),
    ],
    ids=["none", "shell form", "no run", "no CMD"],
)  # fmt: skip
def test_a_wrong_start_is_found_in_the_dockerfile(tree: Tree, dockerfile: str, check: str) -> None:
    """What `RUN` itself cannot see."""
    assert any(finding.level is Level.ERROR for finding in tree.check(dockerfile=dockerfile)[check])


def test_a_proper_dockerfile_gives_the_command(tree: Tree) -> None:
    """It need not be written twice."""
    dockerfile = 'FROM debian:13-slim\nENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh"]\nCMD /game/server $ARGS\n'
    assert tree.check(dockerfile=dockerfile) == {}
    no_program(tree)
    assert only(tree.check(dockerfile=dockerfile)).check == "program"


def test_an_entrypoint_in_shell_form_is_recognised_by_its_process() -> None:
    """PID 1 is a shell with a line then."""
    assert shell_form_of(["/bin/sh", "-c", "/opt/arbitrium-agent/entrypoint.sh"])
    assert not shell_form_of(["/bin/sh", "/opt/arbitrium-agent/entrypoint.sh", "/game/server"])
    assert not shell_form_of(["/opt/arbitrium-agent/bin/arbitrium-agent", "run", "--", "/bin/sh", "-c", "x"])


def test_the_command_answers_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 for what will fail; with --strict for what may go wrong, too; and JSON for programs."""
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    script = tmp_path / "start.sh"
    script.write_text("#!/bin/sh\nexec sleep 1\n")
    assert doctor.run(parser.parse_args(["--image", "--json", "--", str(script)])) == 1
    shown = json.loads(capsys.readouterr().out)
    assert not shown["ok"]
    assert [finding["check"] for finding in shown["findings"] if finding["level"] == "error"] == ["program"]
    script.chmod(0o755)
    assert doctor.run(parser.parse_args(["--image", "--", str(script)])) == 0
    assert f"{script} is a script for /bin/sh" in capsys.readouterr().out
    script.write_text("#!/bin/sh\nprintenv\nexec sleep 1\n")
    assert doctor.run(parser.parse_args(["--image", "--strict", "--", str(script)])) == 1


def test_wrong_usage_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A command without --image, and a Dockerfile that is not there."""
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    assert doctor.run(parser.parse_args(["--", "/game/server"])) == 2
    assert "add --image" in capsys.readouterr().err
    assert doctor.run(parser.parse_args(["--image", "--dockerfile", "/none"])) == 2
    assert "cannot read /none: No such file" in capsys.readouterr().err


def linked(needed: dict[str, tuple[str, ...]], defines: tuple[str, ...] = (), search: str = "") -> bytes:
    """A program that needs libraries (and versions of them), or a library that defines versions."""
    strings = b"\0"

    def text(value: str) -> int:
        nonlocal strings
        strings += value.encode() + b"\0"
        return len(strings) - len(value) - 1

    def pad(data: bytes) -> bytes:
        return data + bytes(-len(data) % 16)

    tags: list[tuple[int, int]] = [(1, text(name)) for name in needed]
    if search:
        tags.append((29, text(search)))
    needs, last = b"", len([name for name in needed if needed[name]]) - 1
    versioned = [(name, versions) for name, versions in needed.items() if versions]
    for index, (name, versions) in enumerate(versioned):
        size = 16 * (1 + len(versions))
        needs += struct.pack("<HHIII", 1, len(versions), text(name), 16, 0 if index == last else size)
        for place, version in enumerate(versions, 1):
            needs += struct.pack("<IHHII", 0, 0, 2, text(version), 0 if place == len(versions) else 16)
    defined = b""
    for index, version in enumerate(defines):
        defined += struct.pack("<HHHHIII", 1, 0, index + 1, 1, 0, 20, 0 if index == len(defines) - 1 else 28)
        defined += struct.pack("<II", text(version), 0)
    start = 64 + 2 * 56
    places = {"strings": start, "needs": start + len(pad(strings))}
    places["defined"] = places["needs"] + len(pad(needs))
    places["dynamic"] = places["defined"] + len(pad(defined))
    tags += [(5, places["strings"]), (10, len(strings))]
    if versioned:
        tags += [(0x6FFFFFFE, places["needs"]), (0x6FFFFFFF, len(versioned))]
    if defines:
        tags += [(0x6FFFFFFC, places["defined"]), (0x6FFFFFFD, len(defines))]
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in [*tags, (0, 0)])
    header = bytearray(program(loader=None)[:64])
    header[56:58] = (2).to_bytes(2, "little")
    end = places["dynamic"] + len(dynamic)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, end, end, 16)
    segment = struct.pack("<IIQQQQQQ", 2, 4, places["dynamic"], places["dynamic"], 0, len(dynamic), len(dynamic), 8)
    return bytes(header) + load + segment + pad(strings) + pad(needs) + pad(defined) + dynamic


def test_a_missing_library_is_found(tree: Tree) -> None:
    """Of the program and of its libraries; where ld.so looks, and nowhere else."""
    tree.add("/lib/x86_64-linux-gnu/libc.so.6", linked({}, ("GLIBC_2.2.5", "GLIBC_2.36")))
    tree.add("/game/server", linked({"libsteam_api.so": (), "libc.so.6": ("GLIBC_2.2.5",)}))
    finding = only(tree.check("/game/server"))
    assert finding.level is Level.ERROR
    assert "lacks libsteam_api.so" in finding.message
    tree.add("/game/lib/libsteam_api.so", linked({"libc.so.6": ()}))
    assert only(tree.check("/game/server")).check == "libraries"
    assert tree.check("/game/server", LD_LIBRARY_PATH="/game/lib") == {}
    tree.add("/game/start.sh", "#!/bin/sh\ncd /game\nexport LD_LIBRARY_PATH=./lib:$LD_LIBRARY_PATH\nexec ./server\n")
    assert tree.check("/game/start.sh") == {}
    tree.add("/game/server", linked({"libsteam_api.so": ()}, search="$ORIGIN/lib"))
    assert tree.check("/game/server") == {}
    tree.add("/game/lib/libsteam_api.so", linked({"libcurl.so.4": ()}))
    assert "libcurl.so.4 (needed by /game/lib/libsteam_api.so)" in only(tree.check("/game/server")).message


def test_a_c_library_that_is_too_old_is_found(tree: Tree) -> None:
    """With the version that is needed and the one that is there."""
    tree.add("/lib/x86_64-linux-gnu/libc.so.6", linked({}, ("GLIBC_2.2.5", "GLIBC_2.9", "GLIBC_2.31")))
    tree.add("/game/server", linked({"libc.so.6": ("GLIBC_2.2.5", "GLIBC_2.34", "GLIBC_2.38")}))
    finding = only(tree.check("/game/server"))
    assert finding.check == "libraries"
    assert "too old: /game/server needs GLIBC_2.38 and the image has GLIBC_2.31" in finding.message


def test_a_directory_that_the_user_may_not_enter_is_no_missing_file(tree: Tree) -> None:
    """The engine says "no such file" or "permission denied" then; the doctor says who may not enter what."""
    (tree.root / "game").chmod(0o700)
    finding = only(tree.check("/game/server", uid=1000))
    assert finding.check == "permission"
    assert "the user game may not enter /game" in finding.message
    assert tree.check("/game/server", uid=0) == {}
    assert only(tree.check("/game/server", uid=0, AGENT_GAME_USER="game")).check == "permission"
    (tree.root / "game").chmod(0o755)
    (tree.root / "game/server").chmod(0o744)
    assert "may not execute" in only(tree.check("/game/server", uid=1000)).message
    assert only(tree.check("/bin/setpriv", "--reuid=game", "/game/server", uid=0)).check == "permission"


def test_a_file_of_a_volume_comes_at_run_time(tree: Tree) -> None:
    """It cannot be judged, and is no reason to fail."""
    lines = ['VOLUME ["/data"]', 'ENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh"]', 'CMD ["/data/server"]']
    dockerfile = "\n".join(["FROM debian:13-slim", *lines, ""])
    assert only(tree.check(dockerfile=dockerfile)).level is Level.ERROR, "the doctor was not told of the volume"
    finding = only(tree.check(dockerfile=dockerfile, volumes=("/data",)))
    assert finding.level is Level.NOTE


def test_an_image_without_a_shell_cannot_use_the_entrypoint_script(tree: Tree) -> None:
    """Not "ok": no container of it would start."""
    (tree.root / "bin/sh").unlink()
    dockerfile = 'FROM scratch\nENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh"]\nCMD ["/game/server"]\n'
    finding = only(tree.check(dockerfile=dockerfile))
    assert finding.level is Level.ERROR
    assert '"run", "--"' in finding.remedy
    dockerfile = dockerfile.replace('entrypoint.sh"', 'bin/arbitrium-agent", "run", "--"')
    assert tree.check(dockerfile=dockerfile) == {}
