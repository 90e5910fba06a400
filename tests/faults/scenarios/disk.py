"""7: a disk that fills up and is freed again, and one that takes bytes and cannot sync them."""

from __future__ import annotations

import itertools
import os
import random
import struct
import time

from tests.faults.figures import Figures
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario, chain, load
from tests.faults.shim import preloaded, tell

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
    rig.settle(240)
    figures.recovery += rig.tried_again("disk_full")
    after = [rig.submit(**chain(chance)) for _ in range(3)]
    rig.settle(60)
    well = rig.rows("SELECT count(*) FROM jobs WHERE id = ANY(%s) AND state = 'succeeded'", after)[0][0]
    figures.expect(well == len(after), f"{len(after) - well} jobs failed after the disk had been freed")
    felt = rig.rows("SELECT count(*) FROM attempts WHERE outcome = 'disk_full'")[0][0]
    figures.notes["attempts that felt it"], figures.notes["answers of 507"] = felt, rig.record.answers[507]
    figures.expect(felt > 0 or size < 10, "no attempt felt the full disk")
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


def unsynced(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """While the workers' disk takes bytes and cannot sync them, or their names, nothing may be kept: a row means bytes on the disk."""
    control = rig.folder.home / "sync"
    control.write_bytes(bytes(16))
    lying = preloaded(rig, "sync", control)
    seeds = itertools.count()  # each its own, so that no two models are one file
    spans = []
    for number in range(size):
        for _ in range(10 - rig.rows(RUNNABLE)[0][0]):
            rig.submit(**chain(chance) | {"seed": next(seeds), "step_seconds": 0.01})
        rig.keep_workers(3, **lying)
        rig.wait(rig.busy, 60, "a worker to run a job")
        what = (FILES, FOLDERS)[number % 2]
        rig.note(f"{'files' if what == FILES else 'folders'} cannot be synced")
        since = time.time()
        tell(control, what)
        time.sleep(chance.uniform(1, 2))
        spans.append((since, time.time()))
        tell(control, 0)
        time.sleep(chance.uniform(0, 0.5))
    rig.settle(120, 3)
    figures.notes["syncs that failed"] = failed = struct.unpack("qq", control.read_bytes())[1]
    figures.expect(failed > 0, "the workers synced nothing all the while")
    written = [
        (rig.data / "store" / "blob" / sha256).stat().st_mtime for (sha256,) in rig.rows("SELECT sha256 FROM models")
    ]
    # At the end of a span a file may have been written just before, and synced just after.
    kept = sum(since <= moment <= until - 0.5 for moment in written for since, until in spans)
    figures.expect(kept == 0, f"{kept} rows name files that were written while nothing could be synced")
    blame = rig.rows("SELECT DISTINCT error->>'code' FROM jobs WHERE state <> 'succeeded'")
    figures.expect(not blame, f"jobs did not get over it: {blame}")


FILES, FOLDERS = 1, 2
RUNNABLE = "SELECT count(*) FROM jobs WHERE state = 'running' OR (state = 'queued' AND run_after <= clock_timestamp())"


SCENARIOS = (
    Scenario(
        7, "disk full", full, "write beside, sync, rename; a full disk is a failure that a retry may mend", 4, 200, 20
    ),
    Scenario(7, "disk not synced", unsynced, "bytes and their name are synced before their row", 4, 100),
)
