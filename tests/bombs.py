"""Writes a zip entry of gigabytes of zeros without compressing gigabytes."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

_BLOCK = bytes(10_000_000)


def add_zeros(path: Path, name: str, blocks: int) -> None:
    """Add an entry to a zip file: so many times 10 MB of zeros, deflated to 10 kB each; 214 blocks at most.

    One block is compressed; its bytes are repeated, which is as valid a stream as if all had been.
    """
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = compressor.compress(_BLOCK) + compressor.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(blocks):
        crc = zlib.crc32(_BLOCK, crc)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, block * blocks + compressor.flush())
        entry = archive.getinfo(name)  # what it says goes into the directory, which is written at the end
        entry.compress_type, entry.file_size, entry.CRC = zipfile.ZIP_DEFLATED, blocks * len(_BLOCK), crc
    with path.open("r+b") as file:
        file.seek(entry.header_offset)
        file.write(entry.FileHeader(zip64=False))
