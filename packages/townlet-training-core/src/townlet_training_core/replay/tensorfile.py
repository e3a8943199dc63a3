"""safetensors files written in one pass and read through a memory map.

The format is a header of JSON with names, dtypes, shapes and byte ranges, then the bytes. The library's own reader
copies every tensor; here an array is a view of the file's pages.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.errors import DataError, MissingFileError
from townlet_training_core.files import atomic_open

__all__ = ["map_tensors", "write_tensors"]

_NAMES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_CODES = {np.dtype(kind): name for name, kind in _NAMES.items()}
_LARGEST_HEADER = 100_000_000


def write_tensors(
    path: Path, tensors: Mapping[str, Sequence[NDArray[Any]]], *, metadata: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Write a safetensors file, whole or not at all.

    Parameters
    ----------
    tensors:
        Each tensor as pieces that are joined along the first axis while they are written.
    metadata:
        Text beside the tensors.

    Returns
    -------
    tuple
        Bytes written, and their SHA-256 in hexadecimal.

    Raises
    ------
    DataError
        When a dtype has no name in the format, or the file cannot be written (a full disk).
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    # Wide types first: every tensor then begins at a multiple of its item size.
    order = sorted(tensors, key=lambda name: (-tensors[name][0].dtype.itemsize, name))
    end = 0
    for name in order:
        pieces = tensors[name]
        dtype = pieces[0].dtype.newbyteorder("=")
        if dtype not in _CODES:
            msg = f"column {name!r} has dtype {dtype}, which the store cannot hold; expected one of {list(_NAMES)}"
            raise DataError(msg)
        shape = [sum(len(piece) for piece in pieces), *pieces[0].shape[1:]]
        begin, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest, size = hashlib.sha256(), 0
    try:
        # The checksum is reckoned beside the writing; one worker keeps the order of the chunks.
        with ThreadPoolExecutor(1, thread_name_prefix="sha256") as worker, atomic_open(path) as stream:
            head = [memoryview(struct.pack("<Q", len(text)) + text)]
            for chunk in chain(head, (_bytes(piece) for name in order for piece in tensors[name])):
                worker.submit(digest.update, chunk)
                stream.write(chunk)
                size += len(chunk)
    except OSError as error:
        msg = f"shard {str(path)!r} cannot be written: {error.strerror or error}; what was sealed before is kept"
        raise DataError(msg) from error
    return size, digest.hexdigest()


def _bytes(piece: NDArray[Any]) -> memoryview:
    little = np.ascontiguousarray(piece, piece.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def map_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Map a safetensors file and return read-only views of its tensors, and its metadata.

    Raises
    ------
    MissingFileError
        When there is no such file.
    DataError
        When the file is torn or its header does not fit it.
    """
    try:
        with path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise MissingFileError(str(path)) from error
    except (OSError, ValueError) as error:  # mmap refuses an empty file by ValueError
        msg = f"shard {str(path)!r} cannot be mapped: {error}"
        raise DataError(msg) from error
    try:
        return _views(mapped)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, OverflowError, RecursionError) as error:
        msg = f"shard {str(path)!r} is torn or no safetensors file: {type(error).__name__}: {error}"
        raise DataError(msg) from error


def _views(mapped: mmap.mmap) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    (length,) = struct.unpack("<Q", mapped[:8])
    if length > min(_LARGEST_HEADER, len(mapped) - 8):
        msg = f"its header claims {length} bytes of {len(mapped)}"
        raise ValueError(msg)
    header = json.loads(mapped[8 : 8 + length])
    found = header.pop("__metadata__", {})
    metadata = {str(key): str(value) for key, value in found.items()}
    base, tensors = 8 + length, {}
    for name, entry in header.items():
        dtype = np.dtype(_NAMES[entry["dtype"]])
        shape = tuple(int(axis) for axis in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
        count = 1
        for axis in shape:
            count *= axis
        if (
            min(shape, default=0) < 0
            or not 0 <= begin <= end <= len(mapped) - base
            or end - begin != count * dtype.itemsize
        ):
            msg = f"tensor {name!r} of shape {shape} does not fit bytes {begin} to {end} of {len(mapped) - base}"
            raise ValueError(msg)
        flat = np.frombuffer(mapped, dtype, count, base + begin) if count else np.empty(0, dtype)
        tensors[str(name)] = flat.reshape(shape)
    return tensors, metadata
