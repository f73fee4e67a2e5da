"""Files under the contract of objects, and what only files promise."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from werkzeug.wrappers import Request, Response

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.errors import (
    ActivationError,
    ConflictError,
    ForbiddenError,
    StorageUnavailableError,
    ValidationError,
)
from activation.ports import BlobKey
from tests.contracts.blobs import KEY, ORG, BlobStoreContract, Trickle, names, nothing_is_stored
from tests.wire.http import served


def store(root: Path, clock: MovableClock) -> FileBlobs:
    return FileBlobs(root / "members", clock, signing_key=b"k" * 32)


class TestFileBlobs(BlobStoreContract):
    """The contract."""

    @pytest.fixture
    def clock(self) -> MovableClock:
        return MovableClock()

    @pytest.fixture
    def blobs(self, tmp_path: Path, clock: MovableClock) -> Iterator[FileBlobs]:
        blobs = store(tmp_path, clock)

        def accept(request: Request) -> Response:
            token = request.path.removeprefix("/api/v1/uploads/")
            try:
                blobs.accept(token, request.stream, request.headers["Content-Type"])
            except ActivationError as error:
                return Response(error.code, error.status)
            return Response(status=204)

        with served(accept) as url:
            yield replace(blobs, base_url=url)


DIES = """
import os, signal, sys
from pathlib import Path
from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.ports import BlobKey

def killed_after(left):
    def sync(descriptor):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        os.fsync(descriptor)
    return sync

for step in range(int(sys.argv[2])):
    if os.fork() == 0:
        root = Path(sys.argv[1]) / str(step)
        blobs = FileBlobs(root, MovableClock(), sync=killed_after(step))
        key = BlobKey("org-a", "manifests/m-1/part-0.parquet")
        blobs.put(key, b"old", metadata={"writer": "old"})
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""

STALLS = """
import sys, time
from pathlib import Path
from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.ports import BlobKey

class Stalling:
    pieces = 3
    def read(self, size):
        self.pieces -= 1
        if self.pieces < 0:
            print("stalled", flush=True)
            time.sleep(60)
        return b"x" * size

FileBlobs(Path(sys.argv[1]), MovableClock()).put(
    BlobKey("org-a", "manifests/m-1/part-0.parquet"), Stalling()
)
"""

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def blobs(tmp_path: Path, clock: MovableClock) -> FileBlobs:
    return store(tmp_path, clock)


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_writer_killed_in_the_middle_of_a_stream_leaves_nothing(
    blobs: FileBlobs, clock: MovableClock
) -> None:
    command = [sys.executable, "-c", STALLS, str(blobs.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"stalled\n"
        writer.kill()
    assert nothing_is_stored(blobs)
    assert len(files_below(blobs.root)) == 1
    assert blobs.sweep_temporaries(HOUR) == 0
    clock.set(clock.now() + timedelta(days=36500))
    assert blobs.sweep_temporaries(HOUR) == 1
    assert files_below(blobs.root) == []
    blobs.put(KEY, b"the name is still free")


def test_a_writer_killed_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, clock: MovableClock
) -> None:
    command = [sys.executable, "-c", DIES, str(tmp_path), "20"]
    codes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    deaths = codes.count(str(-signal.SIGKILL))
    assert deaths > 8
    assert codes == [str(-signal.SIGKILL)] * deaths + ["0"] * (20 - deaths)
    for step in range(20):
        blobs = FileBlobs(tmp_path / str(step), clock)
        survived = step >= deaths - 1  # the last sync comes after the name
        assert (blobs.stat(KEY) is not None) == survived
        if not survived:
            blobs.put(KEY, b"newer")
        stored = blobs.stat(KEY)
        assert stored is not None
        assert stored.metadata == ({"writer": "old"} if survived else {})
        assert blobs.get(KEY) == (b"old" if survived else b"newer")


def test_content_is_durable_before_its_name_and_the_name_before_the_answer(
    blobs: FileBlobs,
) -> None:
    blobs.put(BlobKey(ORG, "manifests/m-1/earlier"), b"", metadata={"a": "b"})
    path, steps = blobs.root / str(KEY), []

    def record(descriptor: int) -> None:
        synced = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(blobs.root)
        steps.append((synced.parts[0], synced.name, path.exists()))
        os.fsync(descriptor)

    replace(blobs, sync=record).put(KEY, b"content", metadata={"c": "d"})
    temporary, note, note_folder, folder = steps
    assert (temporary[0], temporary[2]) == (".writing", False)
    assert (note[0], note[2]) == (".writing", False)
    assert note_folder == (".about", "m-1", False)
    assert folder == (ORG, "m-1", True)


def test_new_folders_are_durable_up_to_the_root(blobs: FileBlobs) -> None:
    synced = []

    def record(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    replace(blobs, sync=record).put(KEY, b"content")
    folder = (blobs.root / str(KEY)).parent
    assert {folder, *list(folder.parents)[:4]} <= set(synced)


def test_a_deletion_is_durable(blobs: FileBlobs) -> None:
    blobs.put(KEY, b"")
    synced = []

    def record(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), blobs.stat(KEY)))

    replace(blobs, sync=record).delete(KEY)
    assert synced == [((blobs.root / str(KEY)).parent, None)]


def failing(at: int, code: int) -> Callable[[int], None]:
    """A disk whose sync number `at` (from 0) fails."""
    left = iter(range(at + 1))

    def sync(_: int) -> None:
        if next(left) == at:
            raise OSError(code, os.strerror(code))

    return sync


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("step", range(4))
def test_a_disk_that_refuses_stores_nothing(blobs: FileBlobs, code: int, step: int) -> None:
    blobs.put(BlobKey(ORG, "manifests/m-1/earlier"), b"", metadata={"a": "b"})
    with pytest.raises(StorageUnavailableError):
        replace(blobs, sync=failing(step, code)).put(KEY, b"content", metadata={"c": "d"})
    assert names(blobs) == ["manifests/m-1/earlier"]
    left = [file for file in files_below(blobs.root) if not file.startswith(".about")]
    assert left == [f"{ORG}/manifests/m-1/earlier"]


def test_a_full_disk_is_met_while_writing(blobs: FileBlobs) -> None:
    """The kernel's own refusal: a limit on file size stands for a full disk."""
    program = """
import resource, signal, sys
from pathlib import Path
from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.errors import StorageUnavailableError
from activation.ports import BlobKey
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
blobs = FileBlobs(Path(sys.argv[1]), MovableClock())
try:
    blobs.put(BlobKey("org-a", "big"), bytes(400_000))
except StorageUnavailableError:
    blobs.put(BlobKey("org-a", "small"), bytes(200_000))
"""
    subprocess.run([sys.executable, "-c", program, str(blobs.root)], check=True)
    assert names(blobs) == ["small"]
    assert files_below(blobs.root) == ["org-a/small"]


def test_other_programs_read_the_files_in_place(blobs: FileBlobs) -> None:
    table = pa.table({"id": list(range(100))})
    for number in range(4):
        sink = io.BytesIO()
        pq.write_table(table, sink)
        key = BlobKey(ORG, f"members/partition={number}/a.parquet")
        blobs.put(key, sink.getvalue(), metadata={"sha256": "ab"})
    dataset = pyarrow.dataset.dataset(blobs.root / ORG / "members", partitioning="hive")
    assert dataset.count_rows() == 400
    whole = pyarrow.dataset.dataset(blobs.root, format="parquet")
    assert whole.count_rows() == 400


def test_a_name_inside_another_object_is_taken(blobs: FileBlobs) -> None:
    blobs.put(BlobKey(ORG, "a"), b"")
    for path in ("a/b", "a/b/c"):
        with pytest.raises(ConflictError):
            blobs.put(BlobKey(ORG, path), b"")
    blobs.put(BlobKey(ORG, "x/y"), b"")
    with pytest.raises(ConflictError):
        blobs.put(BlobKey(ORG, "x"), b"")
    assert names(blobs) == ["a", "x/y"]


@pytest.mark.parametrize(
    "path",
    ["", "..", "../x", "a/../../x", "/etc/passwd", "a//b", ".about/x", "a/.x", "a\x00", "a\n"],
)
def test_no_key_leaves_the_root(path: str) -> None:
    with pytest.raises(ValidationError):
        BlobKey(ORG, path)


def test_a_token_is_good_for_its_area_and_key_only(tmp_path: Path, clock: MovableClock) -> None:
    uploads = FileBlobs(tmp_path / "uploads", clock, signing_key=b"k" * 32)
    target = uploads.upload_target(KEY, content_type="text/csv", max_bytes=9, lifetime=HOUR)
    token = target.url.rpartition("/")[2]
    others = [
        FileBlobs(tmp_path / "members", clock, signing_key=b"k" * 32),
        FileBlobs(tmp_path / "uploads", clock, signing_key=b"l" * 32),
        FileBlobs(tmp_path / "uploads", clock),
    ]
    for other in others:
        with pytest.raises(ForbiddenError):
            other.accept(token, io.BytesIO(b""), "text/csv")
    for strange in ("", ".", "a.b.c", token + "x", token[:-1], "é" + token, "e30=." + "0" * 64):
        with pytest.raises(ForbiddenError):
            uploads.accept(strange, io.BytesIO(b""), "text/csv")
    uploads.accept(token, Trickle(b"x" * 9).stream(), "text/csv")


def test_no_text_shows_the_signing_key(blobs: FileBlobs) -> None:
    assert "kkkk" not in repr(blobs) + str(blobs)


def test_a_folder_that_cannot_be_made_does_not_answer(tmp_path: Path, clock: MovableClock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailableError):
        FileBlobs(tmp_path / "file" / "members", clock).ping()


def test_nothing_is_swept_where_nothing_was_written(blobs: FileBlobs) -> None:
    assert blobs.sweep_temporaries(timedelta(0)) == 0
