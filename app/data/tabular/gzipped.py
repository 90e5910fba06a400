"""A file that may be compressed by gzip, as it was before: no more of it than an upload may hold."""

from __future__ import annotations

import io
import zlib
from typing import IO

from app.data.upload_limits import MIB, UploadLimits
from app.spec.faults import Fault, Invalid

MAGIC = b"\x1f\x8b"
DAMAGED = Fault("/file", "the gzip archive is damaged, or ends early", "compress the file again, or send it as it is")


def opened(file: IO[bytes], limits: UploadLimits) -> IO[bytes]:
    """`file` itself, or what was compressed in it.

    Raises:
        Invalid: it is damaged, or more than `limits` allow.
    """
    size = file.seek(0, 2)
    file.seek(0)
    compressed = file.read(2) == MAGIC
    file.seek(0)
    return _decompressed(file, min(limits.decoded_bytes, max(MIB, limits.ratio * size)), limits) if compressed else file


def _decompressed(file: IO[bytes], most: int, limits: UploadLimits) -> IO[bytes]:
    """What all the members of a gzip archive hold, one after another: at most `most` bytes."""
    whole = io.BytesIO()
    member = zlib.decompressobj(wbits=31)
    begun, left = False, b""
    try:
        while block := left or file.read(MIB):
            begun, left = True, b""
            whole.write(member.decompress(block, most + 1 - whole.tell()))
            if whole.tell() > most:
                raise Invalid([_too_much(most, limits)])
            if member.eof:
                left, member, begun = member.unused_data, zlib.decompressobj(wbits=31), False
                if not left.strip(b"\0"):  # some programs fill the last block up
                    left = b""
            else:
                left = member.unconsumed_tail
    except zlib.error:
        raise Invalid([DAMAGED]) from None
    if begun:
        raise Invalid([DAMAGED])
    whole.seek(0)
    return whole


def _too_much(most: int, limits: UploadLimits) -> Fault:
    if most < limits.decoded_bytes:
        message = f"compressed more than {limits.ratio} to 1, as no real data are"
        return Fault("/file", message, "send it uncompressed")
    return Fault("/file", f"it holds more than {most} bytes", "send fewer or smaller rows", "too_large")
