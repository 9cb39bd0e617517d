"""Loading published files, on request only. Nothing else in this package uses the network for data."""

import hashlib
import lzma
import os
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

from tqdm import tqdm

from bench.errors import UsageError

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
_BLOCK = 1 << 20
_TIMEOUT_S = 60


def fetch(url: str, target: Path, *, sha256: str | None = None, progress: bool = True) -> None:
    """Load a file, or the file or folder of the target's name out of a zip archive.

    What was cut short is kept beside the target, and the same call goes on from there.

    Args:
        url: of the file itself, or of a zip archive if the target is none.
        target: where the file or folder shall lie.
        sha256: of what is loaded, where it is published.
        progress: show a progress bar.

    Raises:
        UsageError: offline mode is on, the server cannot be reached or refuses, what comes is a web page, is not
            whole or has another digest, the archive lacks the target, or the disk refuses.
    """
    if setting := next(
        (name for name in _OFFLINE if os.environ.get(name, "0").upper() in ("1", "TRUE", "ON", "YES")), None
    ):
        raise UsageError(f"{setting} is set, so {url} is not loaded; unset it, or copy the file to {target}")
    packed = url.endswith(".zip") and target.suffix != ".zip"
    part = target.with_name(f"{target.name}{'.zip' if packed else ''}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _load(url, part, progress)
        _check(url, part, sha256)
        if packed:
            _unpack(url, part, target)
        else:
            part.replace(target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}; make room, then fetch again") from error


def _load(url: str, part: Path, progress: bool) -> None:
    """Append what is missing of a file to ``part``; from the start if the server cannot go on."""
    begin = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})
    with _reached(url, part):
        try:
            response: Any = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if begin and error.code == 416:  # all of it is there already
                return
            raise
        with response:
            goes_on = response.status == 206
            begin = begin if goes_on else 0
            length = response.headers.get("Content-Length")
            total = begin + int(length) if length and length.isdecimal() else None
            with part.open("ab" if goes_on else "wb") as file:
                _copy(response, file, begin, total, part.name.removesuffix(".part") if progress else None)
    if total is not None and part.stat().st_size != total:
        raise UsageError(f"{url} came to {part.stat().st_size} of {total} bytes; fetch again to go on from there")


def _copy(response: Any, file: IO[bytes], begin: int, total: int | None, label: str | None) -> None:
    with tqdm(total=total, initial=begin, unit="B", unit_scale=True, desc=label, disable=label is None) as bar:
        while block := response.read(_BLOCK):
            file.write(block)
            bar.update(len(block))


@contextmanager
def _reached(url: str, part: Path) -> Iterator[None]:
    """A server that fails is named, with what to do."""
    try:
        yield
    except urllib.error.HTTPError as error:
        raise UsageError(
            f"{urlparse(url).netloc} refuses {url}: {error.code} {error.reason}; load it by hand"
        ) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        kept = "; what came so far is kept" if part.exists() else ""
        raise UsageError(
            f"cannot reach {url}: {reason}{kept}; this needs the network: fetch again, or copy the file from elsewhere"
        ) from error


def _check(url: str, part: Path, sha256: str | None) -> None:
    with part.open("rb") as file:
        head = file.read(200).lstrip()
        if head[:1] == b"<":
            part.unlink()
            raise UsageError(f"{url} gives a web page, not the file; load it by hand")
        file.seek(0)
        if sha256 is not None and (found := hashlib.file_digest(file, "sha256").hexdigest()) != sha256:
            part.unlink()
            raise UsageError(f"{url} has SHA-256 {found}, not {sha256}; it is damaged or has changed: fetch again")


def _unpack(url: str, part: Path, target: Path) -> None:
    """Move the archive's file or folder of the target's name to the target."""
    aside = target.with_name(f"{target.name}.unpacking")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with zipfile.ZipFile(part) as archive:
            archive.extractall(aside)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError):
        part.unlink()
        raise UsageError(f"{url} is not a whole zip archive; fetch again") from None
    except (RuntimeError, NotImplementedError, ValueError) as error:  # encrypted, packed in a newer way, odd names
        raise UsageError(f"{url} cannot be unpacked ({error}); load it by hand, and put it at {target}") from error
    found = sorted(aside.rglob(target.name), key=lambda path: len(path.parts))
    if not found:
        raise UsageError(f"{url} holds no {target.name}; unpacked it lies in {aside}: move what is right to {target}")
    found[0].replace(target)
    shutil.rmtree(aside)
    part.unlink()
