"""Load a checkpoint of Audio-Omni as the settings say: plan memory, open it for the engine, describe it to jobs."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_shared.schema.model_card import NEEDS_SYNCHFORMER, ModelCard
from pydantic import ValidationError

from .checkpoint.compiled_code import CompiledCode
from .checkpoint.manifest import check_files
from .checkpoint.memory_plan import MemoryPlan, plan_memory
from .devices import choose_device, choose_dtype
from .engine.limits import EngineLimits
from .installation import checkpoint_folder, collector_paused
from .jobs.prompts import Prompts
from .jobs.speech_edit.alignment import CtcAligner
from .jobs.tasks import OmniModel
from .models.audio_omni import float8
from .settings import WorkerSettings

if TYPE_CHECKING:
    from .engine.model_runner import AudioOmniRunner
    from .models.audio_omni.pipeline import AudioOmniPipeline

logger = logging.getLogger(__name__)


def plan_checkpoint(settings: WorkerSettings) -> MemoryPlan:
    """Plan the checkpoint's memory; to be called before loading, while the device's memory is still free.

    Raises: as `load_pipeline`, save that nothing is refused for want of memory.
    """
    device = choose_device(settings.device)
    rank = settings.adapter_rank if settings.adapter_cache else 0
    return plan_memory(checkpoint_folder(settings), device, choose_dtype(settings.dtype, device), adapter_rank=rank)


def load_pipeline(settings: WorkerSettings) -> AudioOmniPipeline:
    """Load the checkpoint to the device in the dtype of the settings, once its files and its memory are checked.

    Raises:
        InvalidSetting: no checkpoint is named, the device does not exist, has too little memory, or cannot multiply in
            the precision that is asked for.
        CheckpointInvalid: the folder is not a whole checkpoint, or not as its manifest says.
    """
    folder = checkpoint_folder(settings)
    device, start = choose_device(settings.device), time.monotonic()
    dtype = choose_dtype(settings.dtype, device)
    if settings.precision == "fp8":
        float8.check_device(device, dtype)
    check_files(folder, hashes=settings.verify_checkpoint)
    _check_memory(plan_checkpoint(settings))
    # They take longer than all the rest: a checkpoint that is damaged or too large is refused without them.
    with collector_paused():
        from transformers.utils.logging import disable_progress_bar

        from .models.audio_omni.pipeline import AudioOmniPipeline

    disable_progress_bar()  # a worker's stderr is its log
    # The VAE, the mel and Synchformer are float32, as they are published; TF32 would keep 10 bits of it.
    torch.backends.cudnn.allow_tf32 = False
    pipeline = AudioOmniPipeline.from_pretrained(folder, device=device, dtype=dtype)
    if settings.precision == "fp8":
        float8.quantize(pipeline.transformer)
    logger.info(
        "checkpoint %s loaded to %s as %s in %.1f s",
        folder,
        device,
        dtype,
        time.monotonic() - start,
        extra={"action": "checkpoint_loaded", "seconds": time.monotonic() - start},
    )
    return pipeline


def compiled_code(settings: WorkerSettings) -> CompiledCode:
    """What is compiled of the checkpoint, for the settings' device and precision. Raises InvalidSetting."""
    device = choose_device(settings.device)
    variant = f"{choose_dtype(settings.dtype, device)} {settings.precision}"
    return CompiledCode(checkpoint_folder(settings), device, variant)


def open_model(settings: WorkerSettings) -> tuple[AudioOmniRunner, EngineLimits]:
    """Load the checkpoint, compile and warm it up as the settings say, and return it with the engine's limits.

    Raises: as `load_pipeline`.
    """
    plan = plan_checkpoint(settings)  # while the device's memory is still free
    pipeline = load_pipeline(settings)
    # Only now, as above.
    from .engine.model_runner import AudioOmniRunner
    from .engine.warm_up import compile_blocks, end_compilation, measure_costs, warm_up

    kept = settings.encoding_cache + settings.adapter_cache
    limits = plan.limits(settings.max_batch, settings.max_chats, kept)
    pipeline.chatter.cache_tokens = plan.cache_tokens(settings.max_batch, settings.max_chats)
    runner = AudioOmniRunner(pipeline, cache_bytes=settings.encoding_cache, costs=plan.costs)
    compiled = _wanted(settings.compile, pipeline.device)
    code = compiled_code(settings)
    if compiled:
        code.load()
        compile_blocks(pipeline)
    if compiled or _wanted(settings.warm_up, pipeline.device):
        warm_up(runner, limits, adapted=settings.adapter_cache > 0)
        runner.costs = measure_costs(runner, plan.costs)
    if compiled:
        end_compilation()
        code.save()
    return runner, limits


def describe(
    pipeline: AudioOmniPipeline, aligner: Path | None = None, *, adapter_rank: int = 0, adapter_bytes: int = 0
) -> OmniModel:
    """Describe a loaded checkpoint to jobs; the card leaves out tasks that need a component it lacks.

    Args:
        pipeline: the checkpoint.
        aligner: folder of the speech recogniser that finds words in recordings, which is loaded to the CPU.
        adapter_rank: largest rank of an adapter.
        adapter_bytes: of the device's memory that adapters may take; with 0 there are none.

    Raises:
        CheckpointInvalid: its card is none, or the aligner's folder holds no such model.
    """
    from .models.audio_omni.adapters.reader import AdapterReader

    try:
        card = ModelCard.model_validate(pipeline.card)
    except ValidationError as error:
        first = error.errors()[0]
        field = f"card.json: {'.'.join(str(part) for part in first['loc'])}"
        raise CheckpointInvalid(first["msg"], field, "Convert the checkpoint again") from error
    adapters = None
    if adapter_bytes:
        about = (pipeline.transformer, card.name, card.revision)
        adapters = AdapterReader(*about, max_rank=adapter_rank, max_bytes=adapter_bytes)
    if pipeline.synchformer is None:
        card = card.without_tasks(NEEDS_SYNCHFORMER)
    return OmniModel(
        card=card,
        prompts=Prompts(pipeline.prompts),
        tokenizer=pipeline.speech_tokenizer,
        precision=f"{pipeline.device.type} {float8.precision_of(pipeline.transformer)}",
        aligner=None if aligner is None else CtcAligner.from_pretrained(aligner),
        adapters=adapters,
    )


def _wanted(choice: str, device: torch.device) -> bool:
    return choice == "on" or (choice == "auto" and device.type == "cuda")


def _check_memory(plan: MemoryPlan) -> None:
    plan.check()
    sizes = {"needed_bytes": plan.needed_bytes, "free_bytes": plan.free, "requests_at_once": plan.requests_at_once}
    logger.info("%s", plan.statement(), extra={"action": "memory_planned", **sizes})
