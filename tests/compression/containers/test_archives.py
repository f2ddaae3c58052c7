import gzip
import io
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.compression.specs.containers.archives import archive_kind, extract, stored_zip
from workers.compression.specs.containers.limits import ArchiveLimits
from workers.compression.specs.errors import EngineError, InvalidModel, TooLarge, UnsafeModel


def zip_file(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def tar_file(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def refusal(path: Path, folder: Path, limits: ArchiveLimits | None = None) -> EngineError:
    with pytest.raises(EngineError) as caught:
        extract(path, folder / "out", limits or ArchiveLimits())
    return caught.value


BAD_NAMES = [
    "../escape",
    "/absolute",
    "a/../../escape",
    "a//b",
    "./a",
    "a\\b",
    "C:/a",
    "line\nbreak",
    "right\u202eleft",
    "e\u0301.txt",
    "a/b/c/d/e/f/g/h/i",
    "x" * 300,
    "inner.zip",
    "inner.tar.gz",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_zip_entry_with_a_bad_name_refuses_the_whole_archive(tmp_path: Path, name: str) -> None:
    found = refusal(zip_file(tmp_path / "a.zip", {"good": b"1", name: b"2"}), tmp_path)
    assert isinstance(found, UnsafeModel)
    assert found.reason == "archive_entry_refused"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_tar_entry_with_a_bad_name_refuses_the_whole_archive(tmp_path: Path, name: str) -> None:
    found = refusal(tar_file(tmp_path / "a.tgz", [(member("good"), b"1"), (member(name), b"2")]), tmp_path)
    assert found.reason == "archive_entry_refused"
    assert not (tmp_path / "escape").exists()


@pytest.mark.parametrize("names", [("a.txt", "A.TXT"), ("a", "a/b"), ("a/b", "a"), ("Stra\u00dfe", "STRASSE")])
def test_names_that_are_one_file_on_some_machines_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    found = refusal(zip_file(tmp_path / "a.zip", dict.fromkeys(names, b"x")), tmp_path)
    assert found.reason == "archive_entry_refused"


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    found = refusal(
        tar_file(tmp_path / "a.tar", [(member("good"), b"1"), (member("bad", kind, "good"), b"")], "w"), tmp_path
    )
    assert found.reason == "archive_entry_refused"


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert refusal(tmp_path / "a.zip", tmp_path).reason == "archive_entry_refused"


def test_an_archive_inside_is_known_by_its_content(tmp_path: Path) -> None:
    found = refusal(zip_file(tmp_path / "a.zip", {"weights.txt": b"PK\x03\x04" + bytes(100)}), tmp_path)
    assert found.reason == "archive_entry_refused"


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", {"a": b"payload", "b": b"payload"})
    raw = bytearray(path.read_bytes())
    second = raw.rfind(b"PK\x01\x02")
    raw[second + 42 : second + 46] = struct.pack("<L", 0)
    path.write_bytes(raw)
    assert refusal(path, tmp_path).reason == "archive_entry_refused"


def test_a_zip_bomb_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", {"zeros": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    found = refusal(path, tmp_path)
    assert isinstance(found, TooLarge)
    assert not any((tmp_path / "out").iterdir())


def test_a_zip_that_understates_its_content_is_refused(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", {"zeros": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = raw.rfind(signature) + offset
        raw[start : start + 4] = struct.pack("<L", 10)
    path.write_bytes(raw)
    assert isinstance(refusal(path, tmp_path), InvalidModel)


def test_a_tar_bomb_is_stopped_while_it_unfolds(tmp_path: Path) -> None:
    path = tar_file(tmp_path / "a.tgz", [(member("zeros"), bytes(64 << 20))])
    found = refusal(path, tmp_path)
    assert isinstance(found, TooLarge)
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) < 16 << 20


def test_an_extended_header_of_gigabytes_is_never_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 8 << 30
    (tmp_path / "a.tgz").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
    assert isinstance(refusal(tmp_path / "a.tgz", tmp_path), TooLarge)


def test_a_negative_size_does_not_send_the_reader_in_circles(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" + (-512).to_bytes(11, "big", signed=True)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:512]) + 8 * 32)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    assert isinstance(refusal(tmp_path / "a.tar", tmp_path), InvalidModel)


@pytest.mark.parametrize("limits", [ArchiveLimits(max_entries=2), ArchiveLimits(max_bytes=2)])
def test_limits_hold_for_both_kinds_of_archive(tmp_path: Path, limits: ArchiveLimits) -> None:
    names = ["a", "b", "c"]
    paths = [
        zip_file(tmp_path / "a.zip", dict.fromkeys(names, b"1")),
        tar_file(tmp_path / "a.tgz", [(member(name), b"1") for name in names]),
    ]
    for index, path in enumerate(paths):
        with pytest.raises(TooLarge):
            extract(path, tmp_path / str(index), limits)


@pytest.mark.parametrize("cut", [30, 200, -5])
def test_truncated_archives_are_invalid(tmp_path: Path, cut: int) -> None:
    for path in (
        zip_file(tmp_path / "a.zip", {"a": bytes(range(256))}),
        tar_file(tmp_path / "a.tgz", [(member("a"), bytes(range(256)) * 40)]),
    ):
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(EngineError) as caught:
            extract(path, tmp_path / path.stem / path.suffix[1:])
        assert caught.value.reason == "archive_invalid"


def test_the_one_folder_around_everything_is_the_root(tmp_path: Path) -> None:
    path = tar_file(tmp_path / "a.tgz", [(member("model/config.json"), b"{}"), (member("model/sub/w"), b"1")])
    assert extract(path, tmp_path / "out") == tmp_path / "out" / "model"


names = st.text("abcXYZ 0-_\u00e9", min_size=1, max_size=8).filter(
    lambda name: name.strip() == name and name.strip(".")
)


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(names, st.binary(max_size=200).map(lambda content: b"x" + content), min_size=1, max_size=6))
def test_stored_zips_round_trip_and_are_the_same_bytes_each_time(files: dict[str, bytes]) -> None:
    unique = {name.casefold(): name for name in files}.values()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "files"
        (folder / "sub").mkdir(parents=True)
        for name in unique:
            (folder / "sub" / name).write_bytes(files[name])
            (folder / f"top {name}").write_bytes(files[name])
        for copy in ("one.zip", "two.zip"):
            stored_zip(folder, Path(root) / copy)
        assert (Path(root) / "one.zip").read_bytes() == (Path(root) / "two.zip").read_bytes()
        assert archive_kind(Path(root) / "one.zip") == "zip"
        found = extract(Path(root) / "one.zip", Path(root) / "out")
        assert {file.name: file.read_bytes() for file in (found / "sub").iterdir()} == {
            name: files[name] for name in unique
        }
