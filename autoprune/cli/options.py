"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ScriptArgument = Annotated[
    Path, typer.Argument(metavar="STUDY.py", help="Script with task() and, if it wants, settings.", show_default=False)
]
FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Run folder, as `autoprune run` printed it.", show_default=False)
]
OutOption = Annotated[Path | None, typer.Option(help="Run folder; runs/<script's name, or its folder's for study.py>.")]
TrialsOption = Annotated[int | None, typer.Option(help="Finished candidates to reach, those of earlier runs included.")]
SecondsOption = Annotated[float | None, typer.Option(help="Stop starting trials after this many seconds.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of everything random.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="GROUP.FIELD=VALUE",
        help="A field of the settings, such as recovery.steps=60; may be given several times (docs/settings.md).",
    ),
]
LatencyProfileOption = Annotated[
    list[str] | None,
    typer.Option(
        "--latency-profile",
        metavar="NAME=BACKEND,KEY=VALUE,...",
        help="Further circumstances in which latency is measured, such as b32=onnxruntime,batch=32: the cost "
        "latency_ms[b32] (docs/latency.md); may be given several times.",
    ),
]
DeviceProfileOption = Annotated[
    Path | None,
    typer.Option(
        "--device-profile",
        metavar="FILE",
        help="Device profile that `autoprune profile --out FILE` made, here or on the device that the model is for.",
    ),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Folder or bucket for weights in place of the run folder, such as s3://bucket/folder; later runs "
        "know it (docs/search.md#disk).",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(help="Trials that run at the same time, each in a worker process (docs/workers.md)."),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Run trials on a Ray cluster: auto for the one on this machine, local to start one for the run, or an "
        "address.",
    ),
]
TrialTimeoutOption = Annotated[
    float | None,
    typer.Option(
        help="Seconds after which a worker's trial is ended and counts as failed; by default 20 times the median."
    ),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=NUMBER",
        help="A limit of autoprune.Limits, such as max_drop=0.01, max_size_share=0.3 or, for a metric of the task, "
        "min_recall=0.8; may be given several times.",
    ),
]
