"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from omnifleet_shared.schema.jobs import AudioFormat, Priority, Quality
from omnifleet_shared.schema.tasks import Loudness

JobIdArgument = Annotated[str, typer.Argument(help="Id of the job.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File to write, whose suffix decides the format; a folder, to name it by task and input; or - for standard"
        " output, part by part as they are made.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Write over a file that is there already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print records as JSON, errors too.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the job's id and do not wait for it.")]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds to wait; as long as it takes by default.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same result; drawn by default.")]
Steps = Annotated[int | None, typer.Option(help="Diffusion steps, 1 to 1000; 100 by default, 25 if fast.")]
QualityOption = Annotated[Quality | None, typer.Option(help="exact (default), or fast: a quarter of the steps.")]
LoudnessOption = Annotated[
    Loudness | None, typer.Option(help="All but speech: source (default), or peak as the published model.")
]
Channels = Annotated[int | None, typer.Option(help="All but speech: 1 for a mono result; 2 by default.")]
Adapter = Annotated[
    str | None, typer.Option(help="What the model is to have learned besides: NAME of `omnifleet adapters list`.")
]
AdapterScale = Annotated[float | None, typer.Option(help="How strongly: -4 to 4; 1 by default.")]
Guidance = Annotated[float | None, typer.Option(help="0 to 50; 7 by default to generate, 6 to edit; 1 is none.")]
Format = Annotated[AudioFormat | None, typer.Option("--format", help="By default that of -o, else wav.")]
PriorityOption = Annotated[Priority | None, typer.Option(help="Interactive jobs (default) are taken first.")]
Deadline = Annotated[float | None, typer.Option(help="Seconds from now after which the job fails.")]
Language = Annotated[str | None, typer.Option(help="BCP 47 tag of what is said, such as en or zh-yue.")]
AudioTrack = Annotated[
    int | None, typer.Option(help="Sound track that is heard, 0 is the first; the file's default one by default.")
]
IdempotencyKey = Annotated[
    str | None, typer.Option(help="Join the job of this key, if one waits, runs or succeeded; auto: by its content.")
]
Callback = Annotated[str | None, typer.Option(help="URL that the workers post the outcome to, if they allow its host.")]
Commercial = Annotated[bool, typer.Option("--commercial", help="Only by a model whose licence allows such use.")]
Model = Annotated[
    str | None,
    typer.Option(help="Model that does it, as `omnifleet models` lists them; by default the first that can."),
]
