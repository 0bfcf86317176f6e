"""A file from the web: resumed where it broke off, verified, and only then given its name."""

import hashlib
import os

from npflow.errors import InputError

TIMEOUT = 60  # seconds without a byte
CHUNK = 2**18  # bytes


def fetch(url, path, *, size, md5):
    """See to it that the file of a URL is there: if `path` is not that file already, download it.

    What comes is collected in a file of the same name and ``.part``. If the connection breaks off, the next call
    goes on from there. The file takes the place of `path` once it has been verified; until then what is there
    stays what it is.

    Parameters
    ----------
    url : str
        Where from.
    path : Path
        Where to; folders are made where there are none.
    size : int
        How many bytes there must be.
    md5 : str
        The MD5 checksum they must have, 32 hexadecimal digits.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If the connection fails or breaks off, or what came is something else. Nothing new is at `path` then.
    """
    from http.client import HTTPException

    if path.is_file() and _is_whole(path, size, md5):
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part, size)
    except (OSError, HTTPException) as error:
        done = part.stat().st_size if part.exists() else 0
        raise InputError(
            f"expected {size:,} bytes from {url}, got {done:,}: {error}; another call goes on from there"
        ) from error
    if not _is_whole(part, size, md5):
        got = f"{part.stat().st_size:,} bytes with {md5_of(part)}"
        part.unlink()
        raise InputError(f"expected {size:,} bytes with the MD5 checksum {md5} from {url}, got {got}; "
                         f"{path.name} is not replaced")  # fmt: skip
    part.replace(path)
    return path


def md5_of(path):
    """The MD5 checksum of a file, 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _is_whole(path, size, md5):
    return path.stat().st_size == size and md5_of(path) == md5


def _receive(url, part, size):
    """Add what is missing to the part that is there."""
    from urllib.request import Request, urlopen

    from tqdm.auto import tqdm

    done = part.stat().st_size if part.exists() else 0
    if done >= size:
        return
    request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206:  # a server that knows no ranges sends all of it
            done = 0
        if response.length not in (None, size - done):
            raise InputError(f"expected {size:,} bytes from {url}, got {done + response.length:,} on offer")
        with (
            part.open("ab" if done else "wb") as file,
            tqdm(total=size, initial=done, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while done <= size and (chunk := response.read(CHUNK)):
                file.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if done < size:
        raise ConnectionError("the connection broke off")
