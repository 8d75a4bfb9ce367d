# A worker of AudioSep: the worker's image with your clone of it, and the environment that conda made for that.
# docker build -f docker/audiosep.Dockerfile --build-context clone=/models/AudioSep \
#     --build-context environment=/opt/conda/envs/AudioSep -t omnifleet-worker-audiosep:0.1.0 .
ARG WORKER=omnifleet-worker:0.1.0
FROM ${WORKER}
# Where it was made: its own paths are written in some of its files.
ARG ENVIRONMENT=/opt/conda/envs/AudioSep
# Both are contexts that the command names.
# hadolint ignore=DL3022
COPY --from=environment / ${ENVIRONMENT}
# hadolint ignore=DL3022
COPY --from=clone / /opt/audiosep
# The vocabulary of its text encoder is in the clone too.
ENV OMNIFLEET_ENGINE=audiosep \
    OMNIFLEET_CHECKPOINT=/opt/audiosep \
    OMNIFLEET_CLONE_PYTHON=${ENVIRONMENT}/bin/python \
    HF_HOME=/opt/audiosep/huggingface
