"""7: a disk that fills up and is freed again."""

from __future__ import annotations

import os
import random
import time

from tests.faults.figures import Figures
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario, chain, load, patience

MEBIBYTES = 24


def full(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """A small disk under store, checkpoints and uploads, filled to the last kilobytes at random moments, then freed."""
    rig.use_small_disk(MEBIBYTES)
    balloon = rig.data / "balloon"
    csv = b"a,b,target\n" + b"".join(b"%d,%d,%d\n" % (n, n * 7 % 11, n % 3) for n in range(3000))
    for _ in range(size):
        _free_blobs(rig)
        load(rig, chance, 5)
        rig.keep_workers(2)
        time.sleep(chance.uniform(0, 0.6))
        rig.note("disk full")
        _fill(balloon, keep=chance.choice((0, 0, 4_096, 50_000, 150_000)))
        if chance.random() < 0.3:
            rig.note("upload to a full disk")
            rig.request(
                "POST", "/v1/datasets", True, files={"file": (f"{chance.random()}.csv", csv)}, data={"name": "full"}
            )
        time.sleep(chance.uniform(0.2, 1.5))
        balloon.unlink()
    rig.settle(patience(rig, size))
    after = [rig.submit(**chain(chance)) for _ in range(3)]
    rig.settle(60)
    well = rig.rows("SELECT count(*) FROM jobs WHERE id = ANY(%s) AND state = 'succeeded'", after)[0][0]
    figures.expect(well == len(after), f"{len(after) - well} jobs failed after the disk had been freed")
    blame = rig.rows("SELECT DISTINCT error->>'code' FROM jobs WHERE state = 'failed'")
    figures.expect({code for (code,) in blame} <= {"disk_full"}, f"jobs failed of {blame}, not of the full disk alone")


def _fill(balloon: os.PathLike[str], keep: int) -> None:
    """Takes all room but `keep` bytes."""
    with open(balloon, "wb", buffering=0) as file:  # noqa: PTH123
        block = b"\0" * 65_536
        try:
            while True:
                file.write(block)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - keep))


def _free_blobs(rig: Rig) -> None:
    """Deletes ended jobs over HTTP once their models fill the small disk, as a client would."""
    disk = os.statvfs(rig.data)
    if disk.f_bavail * disk.f_frsize < MEBIBYTES * 2**19:
        for (job_id,) in rig.rows("SELECT id FROM jobs WHERE finished_at IS NOT NULL"):
            answer = rig.request("DELETE", f"/v1/jobs/{job_id}")
            if answer is not None and answer.status_code < 300:
                rig.record.submitted.pop(job_id, None)


SCENARIOS = (
    Scenario(
        7, "disk full", full, "write beside, sync, rename; a full disk is a failure that a retry may mend", 4, 200, 20
    ),
)
