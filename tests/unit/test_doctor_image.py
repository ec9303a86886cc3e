"""`doctor --image` over small trees that each have one thing wrong."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import doctor
from agent.doctor.dockerfile import read
from agent.doctor.findings import Finding, Level, failed
from agent.doctor.image import Image, check_image, shell_form_of

LOADER = "/lib64/ld-linux-x86-64.so.2"


def program(machine: int = 0x3E, loader: str | None = LOADER) -> bytes:
    """The beginning of a program for a machine."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    header[18:20] = machine.to_bytes(2, "little")
    header[32:40] = (64).to_bytes(8, "little")
    header[54:56] = (56).to_bytes(2, "little")
    if loader is None:
        return bytes(header)
    header[56:58] = (1).to_bytes(2, "little")
    name = loader.encode() + b"\0"
    segment = bytearray(56)
    segment[0:4] = (3).to_bytes(4, "little")
    segment[8:16] = (120).to_bytes(8, "little")
    segment[32:40] = len(name).to_bytes(8, "little")
    return bytes(header + segment) + name


class Tree:
    """A small image under a directory."""

    def __init__(self, root: Path) -> None:
        """Makes what every base image has."""
        self.root = root
        self.add(LOADER, b"loader")
        self.add("/bin/sh", program())
        self.add("/etc/ssl/certs/ca-certificates.crt", b"certificates", mode=0o644)
        for folder in ("run", "tmp"):
            (root / folder).mkdir()

    def add(self, name: str, data: bytes | str, mode: int = 0o755) -> None:
        """Adds a file."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)

    def check(
        self, *command: str, uid: int = 1000, dockerfile: str | None = None, **environ: str
    ) -> dict[str, list[Finding]]:
        """Runs all checks; returns what is no "ok", by check."""
        image = Image({"PATH": "/usr/bin:/bin", **environ}, uid, "x86_64", root=str(self.root))
        found: dict[str, list[Finding]] = {}
        for finding in check_image(image, list(command), read(dockerfile) if dockerfile else None):
            if finding.level is not Level.OK:
                found.setdefault(finding.check, []).append(finding)
        return found


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
    assert set(found) == {"signals", "secrets"}
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
        ("FROM x\nCMD [\"/game/server\"]\n", "entrypoint"),
        ("FROM x\nENTRYPOINT /opt/arbitrium-agent/entrypoint.sh\nCMD [\"/game/server\"]\n", "entrypoint"),
        ("FROM x\nENTRYPOINT [\"/opt/arbitrium-agent/bin/arbitrium-agent\"]\nCMD [\"/game/server\"]\n", "entrypoint"),
        ("FROM x\nENTRYPOINT [\"/opt/arbitrium-agent/entrypoint.sh\"]\n", "command"),
    ],
    ids=["none", "shell form", "no run", "no CMD"],
)  # fmt: skip
def test_a_wrong_start_is_found_in_the_dockerfile(tree: Tree, dockerfile: str, check: str) -> None:
    """What `RUN` itself cannot see."""
    assert any(finding.level is Level.ERROR for finding in tree.check(dockerfile=dockerfile)[check])


def test_a_proper_dockerfile_gives_the_command(tree: Tree) -> None:
    """It need not be written twice."""
    dockerfile = 'FROM x\nENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh"]\nCMD /game/server $ARGS\n'
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
