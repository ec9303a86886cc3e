"""What the doctor reads off a Dockerfile."""

from agent.doctor.dockerfile import Start, read

LISTS = """
# syntax=docker/dockerfile:1
FROM ubuntu:22.04 AS build
ENTRYPOINT ["/build"]
FROM ubuntu:22.04
RUN apt-get update \\
 # a comment between
 && apt-get install -y ca-certificates
RUN <<EOF
ENTRYPOINT /not/this/one
EOF
COPY --from=arbitrium-agent:latest /opt/arbitrium-agent /opt/arbitrium-agent
USER game:game
ENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh"]
CMD ["/game/server", "-batchmode"]
"""


def test_the_last_stage_counts() -> None:
    """Earlier stages, comments, continued lines and here-documents do not disturb."""
    assert read(LISTS) == Start(
        entrypoint=["/opt/arbitrium-agent/entrypoint.sh"],
        shell_form=False,
        command=["/game/server", "-batchmode"],
        user="game",
    )


def test_shell_form_is_told_from_list_form() -> None:
    """An engine puts a shell in front of what is not a JSON list of strings."""
    start = read("from debian:13-slim\nentrypoint /opt/arbitrium-agent/entrypoint.sh\ncmd /game/server $ARGS\n")
    assert start.shell_form
    assert start.entrypoint == ["/bin/sh", "-c", "/opt/arbitrium-agent/entrypoint.sh"]
    assert start.command == ["/bin/sh", "-c", "/game/server $ARGS"]


def test_single_quotes_are_no_list() -> None:
    """A frequent mistake: an engine takes such a list for a shell line, and so does the doctor."""
    assert read("FROM x\nENTRYPOINT ['/opt/arbitrium-agent/entrypoint.sh']\n").shell_form


def test_a_stage_without_anything_starts_nothing() -> None:
    """What the base image has is not known."""
    assert read("FROM scratch\nCOPY . .\n") == Start()
