"""npz files with a JSON sidecar: the format in which captures are exchanged and archived.

Read without pickle and without trusting what a file says of itself: a header that promises more than its member
holds, an object array or a torn archive is a :class:`~townlet_training_core.errors.DataError`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from townlet_training_core.errors import DataError, MissingFileError, NonFiniteError
from townlet_training_core.files import atomic_open, atomic_write_bytes
from townlet_training_core.replay.sample import (
    REQUIRED_CONFLICT_FEATURES,
    TRAINING_ARRAY_FIELDS,
    ReplaySample,
)

__all__ = [
    "ArrayHeader",
    "load_replay_sample",
    "read_metadata",
    "read_npz",
    "read_npz_headers",
    "save_replay_sample",
    "sidecar",
    "to_builtins",
]

ArrayHeader = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and dtype of an array."""

_OBSERVATIONS = ("map", "features")
_LONGEST_HEADER = 10_000


def sidecar(sample_path: Path) -> Path:
    """Return the metadata file of a sample: the same stem with ``.json``."""
    return sample_path.with_suffix(".json")


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of an npz file.

    Raises
    ------
    MissingFileError
        When there is no such file.
    DataError
        When the archive is torn, an array is of dtype object, or its header does not fit its data.
    """
    return {name: array for name, array in _members(path, data=True) if isinstance(array, np.ndarray)}


def read_npz_headers(path: Path) -> dict[str, ArrayHeader]:
    """Read shapes and dtypes of an npz file without its data; raises as :func:`read_npz`."""
    return {name: header for name, header in _members(path, data=False) if isinstance(header, tuple)}


def _members(path: Path, *, data: bool) -> list[tuple[str, NDArray[Any] | ArrayHeader]]:
    import zipfile  # with its compressors it would be a tenth of what importing this library costs

    if not path.is_file():
        raise MissingFileError(str(path))
    found: list[tuple[str, NDArray[Any] | ArrayHeader]] = []
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as stream:
                    found.append((name, _read_npy(stream, member.file_size, data=data)))  # type: ignore[arg-type]  # IO[bytes]
    except DataError as error:
        msg = f"{str(path)!r}, array {name!r}: {error}"
        raise DataError(msg) from error
    except Exception as error:  # zipfile, zlib and numpy's header parser have no common error
        where = f", array {name!r}" if name else ""
        msg = f"{str(path)!r}{where} is torn or no npz file: {type(error).__name__}: {error}"
        raise DataError(msg) from error
    return found


def _read_npy(stream: BinaryIO, size: int, *, data: bool) -> NDArray[Any] | ArrayHeader:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        msg = f"npy format version {version} is not supported"
        raise DataError(msg)
    width = 2 if version == (1, 0) else 4
    prefix = stream.read(width)
    text = stream.read(min(int.from_bytes(prefix, "little"), _LONGEST_HEADER))
    shape, fortran, dtype = _parse_header(version, prefix + text)
    if dtype.hasobject:
        msg = "object arrays are refused, because reading them runs code from the file"
        raise DataError(msg)
    count = 1
    for length in shape:
        count *= length
    if min(shape, default=0) < 0 or 8 + width + len(text) + count * dtype.itemsize != size:
        msg = f"header says shape {shape} of {dtype}, which does not fit {size} bytes"
        raise DataError(msg)
    if not data:
        return tuple(shape), dtype
    flat = np.frombuffer(bytearray(stream.read()), dtype, count) if count else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=4096)
def _parse_header(version: tuple[int, int], header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Parse a header; the files of a capture have the same few, and parsing is most of the work of opening them."""
    stream = io.BytesIO(header)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def read_metadata(path: Path) -> dict[str, Any]:
    """Read a JSON sidecar.

    Raises
    ------
    MissingFileError
        When there is no such file.
    DataError
        When it is no JSON object.
    """
    if not path.is_file():
        msg = f"{path}: the metadata file of the sample does not exist"
        raise MissingFileError(msg)
    try:
        metadata = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        msg = f"{str(path)!r} is not valid JSON: {error}"
        raise DataError(msg) from error
    if not isinstance(metadata, dict):
        msg = f"{str(path)!r}: expected a JSON object, found {type(metadata).__name__}"
        raise DataError(msg)
    return metadata


def check_sample(
    headers: Mapping[str, ArrayHeader],
    metadata: Mapping[str, Any],
    *,
    path: Path,
    require_conflict_features: bool | None,
) -> None:
    """Check that a file has the arrays and metadata of a sample; see :func:`load_replay_sample`."""
    absent = [name for name in _OBSERVATIONS if name not in headers]
    if absent:
        msg = f"Replay sample {str(path)!r} missing required arrays: {absent}"
        raise DataError(msg)
    absent = [name for name in TRAINING_ARRAY_FIELDS if name not in headers]
    if absent:
        msg = f"Replay sample {str(path)!r} missing training array(s): {absent}"
        raise DataError(msg)
    for name in (*_OBSERVATIONS, *TRAINING_ARRAY_FIELDS):
        kinds = "iu" if name == "actions" else "biuf"
        if headers[name][1].kind not in kinds:
            expected = "integers" if name == "actions" else "numbers"
            msg = f"Replay sample {str(path)!r}, array {name!r}: expected {expected}, found dtype {headers[name][1]}"
            raise DataError(msg)
    names = metadata.get("feature_names")
    if not isinstance(names, list):
        msg = f"Replay sample metadata missing feature_names list ({str(path)!r})"
        raise DataError(msg)
    if require_conflict_features is None:
        require_conflict_features = "simulation" not in metadata
    lacking = [name for name in REQUIRED_CONFLICT_FEATURES if name not in names]
    if require_conflict_features and lacking:
        msg = f"Replay sample missing conflict feature(s): {lacking} ({str(path)!r})"
        raise DataError(msg)


def load_replay_sample(
    sample_path: Path,
    meta_path: Path | None = None,
    *,
    require_conflict_features: bool | None = None,
    require_finite: bool = False,
) -> ReplaySample:
    """Load a sample and its metadata.

    Parameters
    ----------
    sample_path:
        The npz file.
    meta_path:
        Its metadata; the same stem with ``.json`` when absent.
    require_conflict_features:
        Whether ``rivalry_max`` and ``rivalry_avoid_count`` must be among the features. By default they must,
        unless the metadata names the simulation that the data comes from.
    require_finite:
        Refuse NaN and infinities.

    Raises
    ------
    MissingFileError
        When one of the two files does not exist (a ``FileNotFoundError``).
    DataError
        When arrays or metadata are missing, torn, of a wrong dtype or do not fit one another.
    NonFiniteError
        When ``require_finite`` and an array holds NaN or infinity.
    """
    sample_path = Path(sample_path)
    arrays = read_npz(sample_path)
    metadata = read_metadata(Path(meta_path) if meta_path is not None else sidecar(sample_path))
    headers = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    check_sample(headers, metadata, path=sample_path, require_conflict_features=require_conflict_features)
    if require_finite:
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                msg = f"Replay sample {str(sample_path)!r}, array {name!r} holds NaN or infinity"
                raise NonFiniteError(msg)
    known = {name: arrays.pop(name) for name in (*_OBSERVATIONS, *TRAINING_ARRAY_FIELDS)}
    try:
        return ReplaySample(**known, metadata=metadata, extras=arrays)
    except DataError as error:
        msg = f"{str(sample_path)!r}: {error}"
        raise DataError(msg) from error


def save_replay_sample(
    sample: ReplaySample,
    path: Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    compress: bool = True,
) -> None:
    """Write a sample as npz and its metadata beside it; both appear whole or not at all.

    Parameters
    ----------
    metadata:
        Written instead of ``sample.metadata`` when given.
    compress:
        Deflate the arrays.
    """
    arrays: dict[str, Any] = {name: getattr(sample, name) for name in (*_OBSERVATIONS, *TRAINING_ARRAY_FIELDS)}
    arrays |= sample.extras
    payload = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(payload, **arrays)
    with atomic_open(path) as stream:
        stream.write(payload.getbuffer())
    text = json.dumps(to_builtins(sample.metadata if metadata is None else metadata), indent=2, ensure_ascii=False)
    atomic_write_bytes(sidecar(path), text.encode())


def to_builtins(value: Any) -> Any:
    """Turn numpy values, tuples and paths inside ``value`` into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): to_builtins(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple | set | frozenset):
        return [to_builtins(item) for item in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if hasattr(value, "model_dump"):
        return to_builtins(value.model_dump())
    return str(value)
