# The command line, the exporter and Flower: docker build -f docker/producer.Dockerfile -t omnifleet .
# The gateway: docker build -f docker/producer.Dockerfile --build-arg LOCK=gateway -t omnifleet-gateway .
ARG BASE=docker.io/library/python:3.11-slim-bookworm
ARG LOCK=producer

FROM ${BASE} AS build
ARG LOCK
ENV UV_SYSTEM_CERTS=true UV_COMPILE_BYTECODE=true UV_LINK_MODE=copy UV_NO_CACHE=true UV_PYTHON=/opt/venv/bin/python \
    UV_BUILD_CONSTRAINT=/build/locks/build.txt
COPY locks/build.txt /build/locks/
RUN pip install --no-cache-dir --root-user-action=ignore --require-hashes -r /build/locks/build.txt && uv venv --python "$(command -v python3.11)" /opt/venv
COPY locks/${LOCK}.txt /build/locks/
RUN uv pip install --require-hashes -r /build/locks/${LOCK}.txt
COPY LICENSE README.md pyproject.toml /build/
COPY shared /build/shared
COPY producer /build/producer
COPY worker /build/worker
RUN uv pip install --no-deps --target /opt/omnifleet /build \
    && PYTHONPATH=/opt/omnifleet /opt/venv/bin/python -m omnifleet --help >/dev/null

FROM ${BASE}
# Debian keeps one version of a package in a release, and the base image says which release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && groupadd --gid 10001 omnifleet \
    && useradd --uid 10001 --gid omnifleet --no-create-home --home-dir /tmp --shell /usr/sbin/nologin omnifleet
COPY --from=build /opt/venv /opt/venv
COPY docker/healthcheck.py /opt/healthcheck.py
COPY --from=build /opt/omnifleet /opt/omnifleet
ENV PATH=/opt/omnifleet/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/omnifleet \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
USER 10001:10001
# No HEALTHCHECK: most of its commands end by themselves. Those that serve have theirs where they are run.
ENTRYPOINT ["tini", "--", "omnifleet"]
CMD ["--help"]
