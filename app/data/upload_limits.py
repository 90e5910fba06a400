"""How much an upload may hold, and what reading it may cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 2**20


@dataclass(frozen=True)
class UploadLimits:
    """Checked from headers before anything is allocated; time and memory bind the process that reads."""

    decoded_bytes: int = 512 * MIB  # all arrays as they are in the file, and the inputs as they are kept
    spare_bytes: int = 256 * MIB  # of memory, beyond four times `decoded_bytes`
    members: int = 64
    ratio: int = 200  # decoded to compressed bytes, of the archive and of any member above a MiB
    rows: int = 5_000_000
    features: int = 4096
    row_values: int = 2**22  # of a picture: 2048 × 2048
    csv_columns: int = 2048
    classes: int = 1000
    boxes: int = 300  # on a picture
    files: int = 500_000  # of an archive
    file_bytes: int = 64 * MIB  # of one of its files
    archive_bytes: int = 16 * 2**30  # of all of them, and of the rows that they become
    cpu_seconds: int = 60
    wall_seconds: float = 120

    def for_bytes(self, sent: int) -> UploadLimits:
        """With more time for a large upload: 40 seconds of processor for each 100 MiB. MP3 of 32 kbit/s, resampled, takes 25."""
        more = sent / (100 * MIB)
        return replace(
            self,
            cpu_seconds=self.cpu_seconds + int(40 * more),
            wall_seconds=self.wall_seconds + 80 * more,
        )
