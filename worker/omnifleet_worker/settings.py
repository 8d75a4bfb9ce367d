"""Settings of a worker process, from `OMNIFLEET_*` in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from omnifleet_shared.settings import MEBIBYTE, FleetSettings
from pydantic import Field, SecretStr


class WorkerSettings(FleetSettings):
    """What one worker process loads and how much it does at once."""

    checkpoint: Path | None = None
    """Folder of the checkpoint, in diffusers' layout, or of another model (docs/engines.md); there is no worker without
    one."""
    engine: str | None = None
    """Engine that runs it: `audio-omni`, `transformers`, `voxcpm`, `omnivoice`, `openai`, `fish`, `audiosep`, or the
    name of a module of your own; by default the one that the folder's card names, or its files are for."""
    clone_python: Path | None = None
    """Python of the environment in which a clone of AudioSep runs, as in `/opt/conda/envs/AudioSep/bin/python`, for the
    engine `audiosep`; by default the worker's own."""
    lora: Path | None = None
    """Folder of a LoRA that VoxCPM2's own training wrote (`lora_weights.safetensors`, `lora_config.json`), with a
    `card.json` that names its licence; the engine `voxcpm` speaks with it."""
    server_url: str | None = None
    """Address of the speech server that a worker of the engine `openai` or `fish` speaks through, as in
    `http://localhost:8000`."""
    server_key: SecretStr | None = None
    """Key that the speech server asks for, sent as a bearer token; none by default."""
    server_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that the speech server may stay silent while it answers."""
    server_places: Annotated[int, Field(ge=1, le=256)] = 4
    """Texts that the speech server is given at the same time."""
    verify_checkpoint: bool = False
    """Compare the SHA-256 of every file of the checkpoint with its manifest before loading, which takes minutes."""
    aligner: Path | None = None
    """Folder of a CTC speech recogniser of transformers (such as wav2vec2, with its processor) that says where words
    are; without one there is no editing of words."""
    recogniser: Path | None = None
    """Folder of a speech recogniser of transformers that tells when words are said (Whisper, or one with CTC), for a
    model that speaks in the voices of recordings: with it, it changes words of recordings and converts voices too."""
    device: str = "auto"
    """Torch device; `auto` takes the first visible GPU, else the CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the transformer and the thinker; `auto` is bfloat16 on a GPU and float32 on a CPU."""
    precision: Literal["auto", "fp8"] = "auto"
    """Of the matrix products of the diffusion steps; `auto` multiplies in `OMNIFLEET_DTYPE`, `fp8` in float8, which is
    faster and less exact, and needs a GPU of compute capability 8.9."""
    max_batch: Annotated[int, Field(ge=1, le=256)] = 8
    """Clips that share a diffusion step, as far as memory allows."""
    max_chats: Annotated[int, Field(ge=1, le=256)] = 16
    """Answers that write their tokens together, as far as memory allows."""
    encoding_cache: Annotated[int, Field(ge=0)] = 256 * MEBIBYTE
    """Bytes of the device's memory that keep encoded prompts, voices and videos, for requests that come with the same
    ones; 0 keeps none."""
    adapter_cache: Annotated[int, Field(ge=0)] = 512 * MEBIBYTE
    """Bytes of the device's memory that keep the adapters that jobs named last, 64 MB for each of rank 16 in bfloat16;
    with 0 the worker takes no job that names one."""
    adapter_rank: Annotated[int, Field(ge=1, le=512)] = 64
    """Largest rank of an adapter."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the transformer's blocks before the first job, which takes a minute or two; `auto` does on a GPU."""
    warm_up: Literal["auto", "on", "off"] = "auto"
    """Run every batch size once before the first job, and measure what a clip holds; `auto` does on a GPU."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Most jobs of each kind, sounds and answers, that a worker holds at once: those in the engine, and those that
    fetch, decode, encode or store. It holds no more of a kind than twice what shares a step of the engine."""
    host_memory: Annotated[int, Field(ge=1)] | None = None
    """Bytes of the host's memory for the files and decoded media of all jobs at once; a job waits for its share before
    it fetches and before it decodes. By default 80 % of what the container, or the machine, has free once the
    checkpoint is loaded."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 4
    """Times that a job is started before a transient error becomes its outcome."""
    retry_backoff: Annotated[float, Field(gt=0)] = 2.0
    """Seconds before the second attempt, doubled for each further one, with jitter, up to two minutes."""
    max_deliveries: Annotated[int, Field(ge=1, le=100)] = 3
    """Workers that may be lost in a row while they run a job, the last one at least with nothing else to do, before the
    job becomes a dead letter."""
    storage_patience: Annotated[float, Field(ge=0)] = 120.0
    """Seconds that a job waits for its input from storage that does not answer before that counts as a failed attempt.
    A finished result waits as long as it takes, so that nothing is made twice."""
    redis_patience: Annotated[float, Field(ge=0)] = 600.0
    """Seconds that a finished job waits for Redis, to record its outcome."""
    engine_patience: Annotated[float, Field(gt=0)] = 300.0
    """Seconds that one engine step may take before the process ends itself, and its jobs go to another worker."""
    poll_patience: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without asking Redis for jobs, with slots free and Redis reachable, before the process ends itself."""
    reconcile_interval: Annotated[float, Field(gt=0)] = 300.0
    """Seconds between two comparisons, by one worker of a fleet, of the records of jobs with the messages in Redis: a
    job whose message somebody deleted fails with `MessageLost`."""
    grace: Annotated[float, Field(ge=0)] = 25.0
    """Seconds after SIGTERM in which running jobs may finish; the rest is handed back. Below the pod's own period."""
    decode_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Wall time that decoding one file may take."""
    progress_interval: Annotated[float, Field(gt=0)] = 0.25
    """Seconds between two reports of progress, and between two checks for requests to cancel."""
    callback_secret: Annotated[SecretStr, Field(min_length=16)] | None = None
    """Shared with the receivers of callbacks, which are signed with it; 16 characters at least. Without one, jobs that
    ask for a callback are refused."""
    callback_attempts: Annotated[int, Field(ge=1, le=100)] = 15
    """Times that a callback is posted before it counts as failed; waits begin with `retry_backoff` and are doubled, up
    to ten minutes."""
    callback_timeout: Annotated[float, Field(gt=0, le=300)] = 10.0
    """Seconds that a receiver has to answer a callback, all in all."""
    http_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port on which the worker shows `/livez`, `/readyz` and `/metrics`; nothing listens by default."""
    http_host: str = "0.0.0.0"
    """Address on which it does."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or plain lines for people."""
