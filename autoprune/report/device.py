"""Output of a device profile on the command line."""

from __future__ import annotations

import statistics

from autoprune.display import summarize_names
from autoprune.records.device_profile import DeviceProfile, Staircase
from autoprune.report.terminal import safe_console, show_tables, split_table


def show_profile(profile: DeviceProfile) -> None:
    """Print device, staircases with the grain of each group, and the error of the latency model.

    Args:
        profile: The profile.
    """
    console, device = safe_console(soft_wrap=True), profile.device
    versions = ", ".join(f"{name} {version}" for name, version in device.versions.items())
    console.print(f"{device.processor}, {device.cores} cores, {device.system}; {device.backend} ({versions})")
    circumstances = profile.latency_profile
    kind = f", {circumstances.dtype}" if circumstances.dtype else ""
    batch = f", batch size {circumstances.batch_size}" if circumstances.batch_size else ""
    threads = "1 thread" if circumstances.threads == 1 else f"{circumstances.threads} threads"
    console.print(f"{threads}{kind}{batch}; the dense model takes {profile.dense_ms:.3g} ms.")
    if profile.staircases:
        lost = max((one.lost for one in profile.staircases), key=len)
        console.print("Latency, as a share of dense, when all groups of a kind lose channels from a multiple of 16:")
        head = ["layers", "groups", "grain", *(f"-{one}" if one else "0" for one in lost)]
        tables = safe_console()
        show_tables(tables, split_table(head, [_row(one, len(lost)) for one in profile.staircases], tables.width))
    noise = statistics.median(one.half_width for one in profile.models)
    console.print(
        f"The latency model is off by {profile.error:.1%} in the median on models that it has not seen, "
        f"with a rank correlation of {profile.rank:.3f}; it learned from {len(profile.models)} models, "
        f"{profile.beside_grain} of which have widths off the grain or below it, and each of which is known to within "
        f"{noise:.1%}. Measuring took {profile.seconds:.0f} s."
    )
    for doubt in profile.doubts:
        console.print(doubt, style="yellow")


def _row(staircase: Staircase, count: int) -> list[str]:
    names = summarize_names(staircase.groups, 3)
    ratios = [f"{ratio:.3f}" for ratio in staircase.ratios]
    return [staircase.layers, names, str(staircase.grain), *ratios, *[""] * (count - len(ratios))]
