# The runtime directory of arbitrium-agent, to be copied into any game image:
#
#   COPY --from=arbitrium-agent:latest /opt/arbitrium-agent /opt/arbitrium-agent
#   ENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh"]
#   CMD ["/game/server", "-batchmode"]
#
#   docker build -t arbitrium-agent .                       the directory alone (FROM scratch)
#   docker build -t arbitrium-agent-demo --target demo .    the same with a small game, to try it
#
# docs/image.md tells how it is made and what was measured.

# What the release is built from: packaging/bases.env names a digest, `make image` passes it.
ARG BASE=debian:13-slim
FROM ${BASE} AS python
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        binutils ca-certificates dpkg-dev gcc libc6-dev libffi-dev libssl-dev make musl-tools pkgconf \
        python3 python3-pip xz-utils zlib1g-dev \
 && mkdir /build \
 && dpkg-query -W -f '${Package}=${Version}\n' | xargs apt-cache show 2>/dev/null \
  | grep -E '^(Package|Version|SHA256):|^$' >/build/packages \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY packaging/python.sh packaging/profile.py packaging/openssl_without.c packaging/sources.sha256 packaging/
# `--build-arg PROFILE=on`: a faster interpreter that is not the same twice (docs/image.md).
ARG PROFILE=off
RUN PROFILE=$PROFILE packaging/python.sh python

FROM python AS build
COPY requirements*.lock ./
# `--build-arg EXTRAS=agones`: what requirements-agones.lock names is in the directory as well (docs/image.md).
ARG EXTRAS=
RUN locks="-r requirements.lock -r requirements-query.lock" \
 && for extra in $EXTRAS; do locks="$locks -r requirements-$extra.lock"; done \
 && python3 -m pip download --quiet --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
        --dest wheels $locks \
 && python3 -m pip install --quiet --no-cache-dir --no-compile --root-user-action=ignore --disable-pip-version-check \
        --no-deps --no-index --target dependencies wheels/*.whl
COPY packaging packaging
COPY agent agent
RUN python3 packaging/assemble.py --home /opt/arbitrium-agent --source python/source --dependencies dependencies \
        --agent agent --origins origins
COPY LICENSE ./
COPY entrypoint.sh /opt/arbitrium-agent/entrypoint.sh
ARG VERSION=
RUN python3 packaging/sbom.py --home /opt/arbitrium-agent --origins origins --agent agent --version "$VERSION" \
        --licence LICENSE --licences packaging/licenses --packages packages --wheels wheels \
 && /opt/arbitrium-agent/bin/python packaging/check.py agent

# A game that needs nothing but the runtime's own interpreter: the whole life of a server, without an engine.
FROM ${BASE} AS demo
COPY --from=build /opt/arbitrium-agent /opt/arbitrium-agent
COPY examples/udp_game /game/udp_game
WORKDIR /game
ENV MATCH_RESULT_FILE=/tmp/match-result.json
USER 65534:65534
EXPOSE 7777/udp
ENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh"]
CMD ["/opt/arbitrium-agent/bin/python", "-m", "udp_game"]

FROM scratch AS agent
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="arbitrium-agent" \
      org.opencontainers.image.description="The init for game server containers on Edgegap: copy /opt/arbitrium-agent into a game image" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.base.name="scratch"
COPY --from=build /opt/arbitrium-agent /opt/arbitrium-agent
# Not needed to be copied from; it makes `docker run arbitrium-agent emulate` and `... config` work.
ENTRYPOINT ["/opt/arbitrium-agent/bin/arbitrium-agent"]
CMD ["--help"]
