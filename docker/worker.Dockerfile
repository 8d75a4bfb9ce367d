# The worker: docker build -f docker/worker.Dockerfile -t omnifleet-worker .
# Of VoxCPM2 and OmniVoice: docker build -f docker/worker.Dockerfile --build-arg LOCK=voices -t omnifleet-worker-voices:0.1.0 .
# BASE takes a digest or a mirror's name; both stages start from it, as the environment points to its Python.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
# Libraries come over whatever authorities the base image trusts, and are compiled once instead of at every start.
ENV UV_SYSTEM_CERTS=true UV_COMPILE_BYTECODE=true UV_LINK_MODE=copy UV_NO_CACHE=true UV_PYTHON=/opt/venv/bin/python \
    UV_BUILD_CONSTRAINT=/build/locks/build.txt
COPY locks/build.txt /build/locks/
RUN pip install --no-cache-dir --root-user-action=ignore --require-hashes -r /build/locks/build.txt && uv venv --python "$(command -v python3.11)" /opt/venv
# PyTorch's own build for that backend, such as `cpu`; without it the one of the package index, which is for CUDA.
# The lock has no hashes of such builds: torch's lines lose theirs, those of CUDA go.
ARG TORCH_BACKEND=
ARG LOCK=worker
COPY locks/${LOCK}.txt /build/locks/
RUN if [ -n "${TORCH_BACKEND}" ]; then export UV_TORCH_BACKEND="${TORCH_BACKEND}" \
    && sed -i -E -e '/^(cuda|nvidia|triton)/,/[^\\]$/d' -e '/^torch/,/[^\\]$/{/--hash/d; s/ *\\$//}' "/build/locks/${LOCK}.txt"; \
    else export UV_REQUIRE_HASHES=true; fi \
    && uv pip install --no-deps -r "/build/locks/${LOCK}.txt"
# What changes daily comes last and into a folder of its own: a new layer of some hundred kB, and none of the libraries.
COPY LICENSE README.md pyproject.toml /build/
COPY shared /build/shared
COPY producer /build/producer
COPY worker /build/worker
RUN uv pip install --no-deps --target /opt/omnifleet /build \
    && PYTHONPATH=/opt/omnifleet /opt/venv/bin/python -m omnifleet_worker --help >/dev/null

FROM ${BASE}
# `torch.compile` calls a compiler when the worker starts on a GPU. Without one in the image the worker runs uncompiled;
# COMPILER=g++ brings one, and the speed that it makes.
ARG COMPILER=
ARG COMPILE=${COMPILER:+auto}
# Debian keeps one version of a package in a release, and the base image says which release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini ${COMPILER} \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && groupadd --gid 10001 omnifleet \
    && useradd --uid 10001 --gid omnifleet --no-create-home --home-dir /tmp --shell /usr/sbin/nologin omnifleet \
    && install --directory --owner omnifleet --group omnifleet /checkpoint
COPY --from=build /opt/venv /opt/venv
COPY docker/healthcheck.py /opt/healthcheck.py
COPY --from=build /opt/omnifleet /opt/omnifleet
# The root file system may be read-only: whatever is written goes to /tmp.
ENV PATH=/opt/omnifleet/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/omnifleet \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    OMNIFLEET_CHECKPOINT=/checkpoint \
    OMNIFLEET_COMPILE=${COMPILE:-off} \
    OMNIFLEET_HTTP_PORT=8080
USER 10001:10001
EXPOSE 8080
# Loading takes minutes; an orchestrator that has better probes ignores this.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 CMD ["python", "/opt/healthcheck.py"]
ENTRYPOINT ["tini", "--", "omnifleet-worker"]
CMD ["run"]
