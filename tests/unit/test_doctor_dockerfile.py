"""What the doctor reads off a Dockerfile, and how it judges those that people have."""

# ruff: noqa: E501 - a script or a Dockerfile a row
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.doctor.dockerfile import Start, check, read
from agent.doctor.findings import Level

AGENT = 'ENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh"]\n'
COPY = "COPY --from=registry.example/arbitrium-agent:1.0 /opt/arbitrium-agent /opt/arbitrium-agent\n"
BARE = "/opt/arbitrium-agent/bin/arbitrium-agent"
DEBIAN = "FROM debian:13-slim\n"
LINES = COPY + AGENT
GAME = ["/game/server", "-batchmode"]
CMD = 'CMD ["/game/server", "-batchmode"]\n'
MAPPING = (
    '{"ports": {"gameport": {"name": "gameport", "internal": 7777, "external": 32013, "protocol": "UDP"},'
    '"web": {"internal": 80, "external": 32014, "protocol": "HTTP"}}}'
)

# name: (Dockerfile, the game's command, what is no "ok" as "check level")
DOCKERFILES: dict[str, tuple[str, list[str] | None, set[str]]] = {
    "the three lines": (DEBIAN + LINES + CMD, GAME, set()),
    "CMD in shell form": (
        DEBIAN + LINES + "CMD /game/server $ARGS\n",
        ["/bin/sh", "-c", "/game/server $ARGS"],
        set(),
    ),
    "the command in ENTRYPOINT": (
        DEBIAN + COPY + 'ENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh", "/game/start.sh"]\n',
        ["/game/start.sh"],
        set(),
    ),
    "ENTRYPOINT with a script, CMD with its arguments": (
        DEBIAN + COPY + 'ENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh", "/game/start.sh"]\nCMD ["-x"]\n',
        ["/game/start.sh", "-x"],
        set(),
    ),
    "the exec form": (DEBIAN + COPY + f'ENTRYPOINT ["{BARE}", "run", "--"]\n' + CMD, GAME, set()),
    "the exec form without run": (DEBIAN + COPY + f'ENTRYPOINT ["{BARE}"]\n' + CMD, GAME, {"entrypoint error"}),
    "the exec form without --": (DEBIAN + COPY + f'ENTRYPOINT ["{BARE}", "run"]\n' + CMD, GAME, {"entrypoint error"}),
    "no ENTRYPOINT": (DEBIAN + COPY + CMD, GAME, {"entrypoint error"}),
    "no line of the agent": (DEBIAN + CMD, GAME, {"entrypoint error"}),
    "no CMD": (DEBIAN + LINES, None, {"command error"}),
    "ENTRYPOINT in shell form, without the game": (
        DEBIAN + COPY + "ENTRYPOINT /opt/arbitrium-agent/entrypoint.sh\n" + CMD,
        None,
        {"entrypoint error"},
    ),
    "ENTRYPOINT in shell form, with the game": (
        DEBIAN + COPY + "ENTRYPOINT /opt/arbitrium-agent/entrypoint.sh /game/server\n",
        ["/game/server"],
        {"entrypoint warning"},
    ),
    "exec in a shell form": (
        DEBIAN + COPY + "ENTRYPOINT exec /opt/arbitrium-agent/entrypoint.sh /game/server\n",
        ["/game/server"],
        set(),
    ),
    "exec in a shell form, and a CMD": (
        DEBIAN + COPY + "ENTRYPOINT exec /opt/arbitrium-agent/entrypoint.sh /game/server\n" + CMD,
        ["/game/server"],
        {"command note"},
    ),
    "single quotes": (DEBIAN + COPY + "ENTRYPOINT ['/opt/arbitrium-agent/entrypoint.sh']\n" + CMD, None,
                      {"entrypoint error"}),
    "a comma at the end": (DEBIAN + LINES + 'CMD ["/game/server",]\n', ["/bin/sh", "-c", '["/game/server",]'],
                           {"command error"}),
    "a variable in a list": (DEBIAN + LINES + 'CMD ["/game/server", "-port", "$PORT"]\n',
                             ["/game/server", "-port", "$PORT"], {"command warning"}),
    "a variable for a shell in a list": (
        DEBIAN + LINES + 'CMD ["/bin/bash", "-c", "exec /game/server $ARGS"]\n',
        ["/bin/bash", "-c", "exec /game/server $ARGS"],
        set(),
    ),
    "tini in front": (DEBIAN + COPY + 'ENTRYPOINT ["tini", "--", "/opt/arbitrium-agent/entrypoint.sh"]\n' + CMD, GAME,
                      {"entrypoint note"}),
    "dumb-init in front": (
        DEBIAN + COPY + 'ENTRYPOINT ["/usr/bin/dumb-init", "/opt/arbitrium-agent/entrypoint.sh"]\n' + CMD,
        GAME,
        {"entrypoint note"},
    ),
    "tini behind": (DEBIAN + LINES + 'CMD ["tini", "--", "/game/server"]\n', ["tini", "--", "/game/server"], set()),
    "s6-overlay starts the agent": (
        DEBIAN + COPY + 'ENTRYPOINT ["/init"]\nCMD ["/opt/arbitrium-agent/entrypoint.sh", "/game/server"]\n',
        None,
        set(),
    ),
    "s6-overlay under the agent": (DEBIAN + LINES + 'CMD ["/init"]\n', ["/init"], {"command error"}),
    "two stages": (
        "FROM debian:13-slim AS build\nENTRYPOINT [\"/build\"]\n" + DEBIAN + "COPY --from=build /out /game\n" + LINES + CMD,
        GAME,
        set(),
    ),
    "a stage made from a stage": (DEBIAN.strip() + " AS base\n" + LINES + "FROM base AS game\n" + CMD, GAME, set()),
    "numbers are for COPY --from alone": (DEBIAN + LINES + "FROM 0\n" + CMD, GAME, {
        "entrypoint note", "versions note"}),
    "a CMD that the ENTRYPOINT takes away": (DEBIAN.strip() + " AS base\n" + CMD + "FROM base\n" + LINES, None,
                                             {"command error"}),
    "a base that cannot be seen": ("FROM studio/server-base:3\nCOPY . /game\n" + CMD, GAME, {"entrypoint note"}),
    "a base that cannot be seen, and the lines": ("FROM studio/server-base:3\n" + LINES + CMD, GAME, set()),
    "a base by a variable": ("ARG BASE=debian:13-slim\nFROM $BASE\n" + LINES + CMD, GAME, set()),
    "a base by a variable without a default": ("ARG BASE\nFROM ${BASE}\n" + LINES + CMD, GAME, set()),
    "the newest": (
        "FROM debian:latest\n" + COPY.replace(":1.0", ":latest") + AGENT + CMD,
        GAME,
        {"versions note"},
    ),
    "no version at all": ("FROM ubuntu\n" + LINES + CMD, GAME, {"versions note"}),
    "a digest": (f"FROM debian@sha256:{'0' * 64}\n" + LINES + CMD, GAME, set()),
    "a lost ENTRYPOINT": (DEBIAN + LINES + 'ENTRYPOINT ["/game/start.sh"]\n' + CMD, None, {"entrypoint error"}),
    "an ENTRYPOINT that is replaced": (
        DEBIAN.strip() + ' AS base\nENTRYPOINT ["/prepare.sh"]\nFROM base\n' + LINES + CMD,
        GAME,
        {"entrypoint note"},
    ),
    "an ENTRYPOINT that moved to CMD": (
        DEBIAN.strip() + ' AS base\nENTRYPOINT ["/prepare.sh"]\nFROM base\n' + LINES + 'CMD ["/prepare.sh"]\n',
        ["/prepare.sh"],
        set(),
    ),
    "USER after the check": (
        DEBIAN + LINES + f'RUN ["{BARE}", "doctor", "--image", "--", "/game/server"]\nUSER game\n' + CMD,
        GAME,
        {"user note"},
    ),
    "USER before the check": (
        DEBIAN + LINES + f'USER game\nRUN ["{BARE}", "doctor", "--image", "--", "/game/server"]\n' + CMD,
        GAME,
        set(),
    ),
    "the check with the Dockerfile": (
        DEBIAN + LINES + f"RUN --mount=type=bind,target=/src {BARE} doctor --image --dockerfile /src/Dockerfile\n"
        "USER game\n" + CMD,
        GAME,
        set(),
    ),
    "another shell": (DEBIAN + 'SHELL ["/bin/bash", "-o", "pipefail", "-c"]\n' + LINES + "CMD /game/server | tee /log\n",
                      ["/bin/bash", "-o", "pipefail", "-c", "/game/server | tee /log"], set()),
    "ports that are exposed": (DEBIAN + LINES + CMD + "EXPOSE 7777/udp 80\n", GAME, set()),
    "a port that is not exposed": (DEBIAN + LINES + CMD + "EXPOSE 7777 80\n", GAME, {"ports warning"}),
    "a range of ports": (DEBIAN + LINES + CMD + "ENV FIRST=7770\nEXPOSE ${FIRST}-7780/udp 80/tcp\n", GAME, set()),
    "here-documents, comments and continued lines": (
        "# syntax=docker/dockerfile:1\r\n" + DEBIAN + "RUN <<EOF\nENTRYPOINT /not/this/one\nEOF\n"
        "RUN apt-get update \\\n # a comment between\n && apt-get install -y x\n" + LINES + CMD,
        GAME,
        set(),
    ),
    "Windows line endings": ((DEBIAN + LINES + CMD).replace("\n", "\r\n"), GAME, set()),
    "lower case and tabs": ("from debian:13-slim\n" + COPY + AGENT.replace("ENTRYPOINT ", "entrypoint\t") + "cmd\t"
                            '["/game/server", "-batchmode"]\n', GAME, set()),
    "a health check": (DEBIAN + LINES + CMD + f'HEALTHCHECK CMD ["{BARE}", "healthcheck"]\n', GAME, set()),
    "from scratch": ("FROM scratch\nCOPY server /game/\n" + COPY + f'ENTRYPOINT ["{BARE}", "run", "--"]\n' + CMD, GAME,
                     set()),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_is_judged_right(name: str) -> None:
    """Which command the game is, and what is said of it."""
    text, game, expected = DOCKERFILES[name]
    start = read(text)
    assert start.game == game
    findings = list(check(start, {"ARBITRIUM_PORTS_MAPPING": MAPPING}))
    assert {f"{found.check} {found.level}" for found in findings if found.level is not Level.OK} == expected
    assert all(found.remedy for found in findings if found.level in (Level.WARNING, Level.ERROR))


def test_a_stage_can_be_chosen() -> None:
    """As `docker build --target` does, by name and by number."""
    text = DEBIAN.strip() + " AS server\n" + LINES + CMD + 'FROM server AS tools\nCMD ["/bin/bash"]\n'
    assert read(text, "server").game == read(text, "0").game == GAME
    assert read(text).game == ["/bin/bash"]
    assert not read(text, "other").found


def test_what_a_stage_sets_is_read() -> None:
    """USER, WORKDIR, ENV and VOLUME, also those of the stage it is made from."""
    start = read(
        "FROM debian:13-slim AS base\nWORKDIR /srv\nENV A=1 B=\"two words\" C=$A\nENV OLD form of it\n"
        "FROM base\nWORKDIR game\nUSER game:game\nVOLUME [\"/data\"]\nVOLUME /logs /cache\n"
    )  # fmt: skip
    assert start.workdir == "/srv/game"
    assert start.environ == {"A": "1", "B": "two words", "C": "", "OLD": "form of it"} | {"C": start.environ["C"]}
    assert start.user == "game:game"
    assert start.volumes == ("/data", "/logs", "/cache")


def test_a_stage_without_anything_starts_nothing() -> None:
    """What the base image has is not known."""
    assert read("FROM scratch\nCOPY . .\n") == Start(base="scratch")


@given(st.text(alphabet="FROMENTYPICDUSx \n\\\"'[]$<{}:/=-", max_size=80))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    """Whatever stands in it."""
    list(check(read(text)))
