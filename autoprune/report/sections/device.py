"""The device profile: which widths are fast, and how well latencies are predicted."""

from __future__ import annotations

import statistics

from autoprune.display import summarize_names
from autoprune.errors import StorageError
from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.records.device_profile import DeviceProfile
from autoprune.report.figures.device import staircase_lines
from autoprune.report.section import Picture, Section, Table


def device_section(run: Run, _: Front) -> Section | None:
    """Show the device, the staircases of its widths, and the error of the latency model.

    Args:
        run: The run, for its device profile.
        _: Its front.

    Returns:
        A figure and a table; None without a device profile.
    """
    try:
        profile = run.folder.read_device_profile()
    except StorageError as error:  # nothing else of a report needs it
        return Section(anchor="device", title="Device profile", warnings=(str(error),))
    if profile is None:
        return None
    pictures: tuple[Picture, ...] = ()
    if profile.staircases:
        grains = ", ".join(f"{one.grain} for {one.layers}" for one in profile.staircases)
        text = f"Latency while groups lose channels. The distance between fast widths is {grains}."
        pictures = (Picture(figure=staircase_lines(profile.staircases), text=text),)
    return Section(
        anchor="device",
        title="Device profile",
        lead=device_text(profile),
        pictures=pictures,
        notes=(STAIRCASES, model_text(profile)) if pictures else (model_text(profile),),
        warnings=profile.doubts,
        table=staircase_table(profile) if pictures else None,
    )


#: Caption of the staircases.
STAIRCASES = "Latency, as a share of dense, when all groups of a kind lose channels from a multiple of 16."


def device_text(profile: DeviceProfile) -> str:
    """Describe the machine, the runtime and the timed model.

    Args:
        profile: The profile.

    Returns:
        Two sentences.
    """
    device, circumstances = profile.device, profile.latency_profile
    versions = ", ".join(f"{name} {version}" for name, version in device.versions.items())
    kind = f", {circumstances.dtype}" if circumstances.dtype else ""
    batch = f", batch size {circumstances.batch_size}" if circumstances.batch_size else ""
    threads = "1 thread" if circumstances.threads == 1 else f"{circumstances.threads} threads"
    return (
        f"{device.processor}, {device.cores} cores, {device.system}; {device.backend} ({versions}), "
        f"{threads}{kind}{batch}. The dense model takes {profile.dense_ms:.3g} ms."
    )


def model_text(profile: DeviceProfile) -> str:
    """Say how well latencies are predicted.

    Args:
        profile: The profile.

    Returns:
        Two sentences.
    """
    noise = statistics.median(one.half_width for one in profile.models)
    return (
        f"The latency model is off by {profile.error:.1%} in the median on models that it has not seen, with a rank "
        f"correlation of {profile.rank:.3f}; it learned from {len(profile.models)} models, {profile.beside_grain} of "
        f"which have widths off the grain or below it, and each of which is known to within {noise:.1%}. Measuring "
        f"took {profile.seconds:.0f} s."
    )


def staircase_table(profile: DeviceProfile) -> Table:
    """Make the table of the staircases.

    Args:
        profile: A profile with staircases.

    Returns:
        One row for each class of groups.
    """
    lost = max((one.lost for one in profile.staircases), key=len)
    rows = []
    for one in profile.staircases:
        ratios = [f"{ratio:.3f}" for ratio in one.ratios]
        names = summarize_names(one.groups, 3)
        rows.append((one.layers, names, str(one.grain), *ratios, *[""] * (len(lost) - len(ratios))))
    head = ("layers", "groups", "grain", *(f"-{one}" if one else "0" for one in lost))
    return Table(head=head, rows=tuple(rows), names=2)
