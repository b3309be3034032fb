"""Output of a device profile on the command line."""

from __future__ import annotations

from autoprune.records.device_profile import DeviceProfile
from autoprune.report.sections.device import STAIRCASES, device_text, model_text, staircase_table
from autoprune.report.terminal import safe_console, show_tables, split_table


def show_profile(profile: DeviceProfile) -> None:
    """Print device, staircases with the grain of each group, and the error of the latency model.

    Args:
        profile: The profile.
    """
    console = safe_console(soft_wrap=True)
    console.print(device_text(profile))
    if profile.staircases:
        console.print(STAIRCASES)
        table, tables = staircase_table(profile), safe_console()
        show_tables(tables, split_table(table.head, table.rows, tables.width, table.names))
    console.print(model_text(profile))
    for doubt in profile.doubts:
        console.print(doubt, style="yellow")
