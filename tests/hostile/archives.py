"""Archives that climb out, link away, hide members or unfold into far more than they weigh."""

import gzip
import io
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

from tests.hostile.cases import READY, Catalogue
from tests.hostile.containers import Entry, deflated_zeros, forged_zip, gzipped_zeros, tar_of, zip_of
from tests.hostile.onnx_graphs import network

ARCHIVES = Catalogue("archive", "model", "model.zip")

REFUSED = "archive_*"
TAR = "model.tar.gz"


def model() -> bytes:
    return network().SerializeToString()


def beside_the_model(name: str | bytes, content: bytes = b"note", **lies: int | bytes) -> bytes:
    """A sound model and one more member."""
    raw = name.encode() if isinstance(name, str) else name
    return forged_zip([Entry(b"model.onnx", model()), Entry(raw, content, **lies)])  # type: ignore[arg-type]


@ARCHIVES.accepted()
def one_model_deflated(_: Path) -> bytes:
    return zip_of({"model.onnx": model()}, zipfile.ZIP_DEFLATED)


@ARCHIVES.accepted()
def one_model_in_a_folder_with_a_readme(_: Path) -> bytes:
    return zip_of({"export/model.onnx": model(), "export/README.md": b"# exported"})


@ARCHIVES.accepted(TAR)
def one_model_in_a_tar(_: Path) -> bytes:
    return tar_of({"model.onnx": model()})


# --- names ------------------------------------------------------------------------------------------------------------

NAMES = {
    "climbs_out": b"../../outside.txt",
    "climbs_out_in_the_middle": b"a/../../../outside.txt",
    "absolute_path": b"/tmp/outside.txt",
    "backslashes": b"..\\..\\outside.txt",
    "drive_letter": b"C:\\outside.txt",
    "nul_in_a_name": b"README.md\x00.py",
    "control_characters_in_a_name": b"note\x1b[31m\r\n.txt",
    "name_is_dot_dot": b"..",
}
CLUMSY_NAMES = {
    "twelve_folders_deep": b"/".join([b"d"] * 12) + b"/note.txt",
    "name_of_60_000_bytes": b"n" * 60_000 + b".txt",
    "name_is_empty": b"",
}
for label, hostile_name in NAMES.items():
    ARCHIVES.add(label, lambda _, name=hostile_name: beside_the_model(name), ("unsafe_model",), (REFUSED,))
for label, hostile_name in CLUMSY_NAMES.items():
    ARCHIVES.add(
        label,
        lambda _, name=hostile_name: beside_the_model(name),
        ("unsafe_model", "invalid_model", "too_large"),
        (REFUSED,),
    )


@ARCHIVES.refused("unsafe_model", "invalid_model", reason=REFUSED)
def two_members_of_one_name(_: Path) -> bytes:
    return forged_zip([Entry(b"model.onnx", model()), Entry(b"model.onnx", b"another")])


@ARCHIVES.refused("unsafe_model", "invalid_model", reason=REFUSED)
def names_that_differ_in_case_only(_: Path) -> bytes:
    return beside_the_model("MODEL.ONNX", model())


@ARCHIVES.refused("unsafe_model", "invalid_model", reason=REFUSED)
def names_equal_after_unicode_normalisation(_: Path) -> bytes:
    entries = [Entry(b"model.onnx", model())]
    entries += [Entry(name.encode(), b"x", flags=0x800) for name in ("caf\u00e9.txt", "cafe\u0301.txt")]
    return forged_zip(entries)


@ARCHIVES.refused("unsafe_model", "invalid_model", reason=REFUSED)
def two_names_for_one_member(_: Path) -> bytes:
    return beside_the_model("README.md", local_name=b"setup.py.")


@ARCHIVES.refused("unsafe_model", "invalid_model", "unsupported_format")
def file_and_folder_of_one_name(_: Path) -> bytes:
    return forged_zip([Entry(b"model.onnx", model()), Entry(b"a", b"x"), Entry(b"a/b.txt", b"y")])


# --- kinds of member --------------------------------------------------------------------------------------------------


@ARCHIVES.refused("unsafe_model", reason=REFUSED)
def symbolic_link_in_a_zip(_: Path) -> bytes:
    return beside_the_model("weights.bin", b"/etc/passwd", external_attributes=0o120777 << 16)


@ARCHIVES.refused("unsafe_model", reason=REFUSED)
def device_in_a_zip(_: Path) -> bytes:
    return beside_the_model("null", external_attributes=0o020666 << 16)


@ARCHIVES.refused("unsafe_model", reason=REFUSED, filename=TAR)
def symbolic_link_in_a_tar(_: Path) -> bytes:
    return tar_of({"model.onnx": model()}, links={"weights.bin": ("soft", "/etc/passwd")})


@ARCHIVES.refused("unsafe_model", reason=REFUSED, filename=TAR)
def symbolic_link_to_a_folder_and_a_member_through_it(_: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("folder")
        link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
        archive.addfile(link)
        member = tarfile.TarInfo("folder/outside.txt")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    return gzip.compress(out.getvalue(), mtime=0)


@ARCHIVES.refused("unsafe_model", reason=REFUSED, filename=TAR)
def hard_link_in_a_tar(_: Path) -> bytes:
    return tar_of({"model.onnx": model()}, links={"weights.bin": ("hard", "model.onnx")})


@ARCHIVES.refused("unsafe_model", reason=REFUSED, filename=TAR)
def device_in_a_tar(_: Path) -> bytes:
    return tar_of({"model.onnx": model()}, types={"null": tarfile.CHRTYPE})


@ARCHIVES.refused("unsafe_model", reason=REFUSED, filename=TAR)
def pipe_in_a_tar(_: Path) -> bytes:
    return tar_of({"model.onnx": model()}, types={"pipe": tarfile.FIFOTYPE})


@ARCHIVES.refused("unsafe_model", reason=REFUSED, filename=TAR)
def climbing_name_in_a_tar(_: Path) -> bytes:
    return tar_of({"model.onnx": model(), "../../outside.txt": b"x"})


@ARCHIVES.refused("unsafe_model", reason=REFUSED, filename=TAR)
def absolute_name_in_a_tar(_: Path) -> bytes:
    return tar_of({"model.onnx": model(), "/tmp/outside.txt": b"x"})


@ARCHIVES.refused("unsafe_model", "invalid_model", reason=REFUSED, filename=TAR)
def two_tar_members_of_one_name(_: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for content in (model(), b"another"):
            info = tarfile.TarInfo("model.onnx")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)


@ARCHIVES.refused("unsafe_model", reason="archive_*|*code*")
def python_file(_: Path) -> bytes:
    return beside_the_model("hubconf.py", b"import os\n")


@ARCHIVES.refused("unsafe_model", "unsupported_format", reason="archive_*|*native*|format_refused")
def shared_library(_: Path) -> bytes:
    return beside_the_model("custom_ops.so", b"\x7fELF\x02\x01\x01" + bytes(64))


@ARCHIVES.refused("unsafe_model", "unsupported_format", reason="archive_*|format_refused")
def pickle_beside_the_model(_: Path) -> bytes:
    return beside_the_model("scaler.pkl", b"\x80\x04K\x01.")


@ARCHIVES.refused("unsafe_model", "invalid_model", "unsupported_format", reason=REFUSED)
def archive_in_an_archive(_: Path) -> bytes:
    return beside_the_model("more.zip", zip_of({"a": b"b"}))


# --- bombs ------------------------------------------------------------------------------------------------------------


@ARCHIVES.refused("too_large", reason="archive_bomb")
def half_a_gigabyte_of_zeros(_: Path) -> bytes:
    return beside_the_model("weights.bin", deflated=deflated_zeros(512), method=8, size=512 << 20, crc=0)


@ARCHIVES.refused("too_large", reason="archive_bomb", filename=TAR)
def half_a_gigabyte_of_zeros_in_a_tar(_: Path) -> bytes:
    info = tarfile.TarInfo("weights.bin")
    info.size = 512 << 20
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT), mtime=0) + gzipped_zeros(513)


@ARCHIVES.refused("too_large", "invalid_model", "unsafe_model", reason=REFUSED)
def overlapping_members(_: Path) -> bytes:
    kernel = Entry(b"a.bin", method=8, deflated=deflated_zeros(8), size=8 << 20, crc=0)
    copies = [replace(kernel, name=f"b{index}.bin".encode(), offset=0, local_name=b"a.bin") for index in range(40)]
    return forged_zip([kernel, *copies])


@ARCHIVES.refused("too_large", reason=REFUSED)
def twelve_thousand_members(_: Path) -> bytes:
    return zip_of({"model.onnx": model()} | {f"notes/{index}.txt": b"" for index in range(12_000)})


@ARCHIVES.refused("too_large", reason=REFUSED, filename=TAR)
def twelve_thousand_members_in_a_tar(_: Path) -> bytes:
    return tar_of({"model.onnx": model()} | {f"notes/{index}.txt": b"" for index in range(12_000)})


@ARCHIVES.refused("too_large", "invalid_model", "unsafe_model", reason=REFUSED)
def size_of_two_exabytes_by_zip64(_: Path) -> bytes:
    extra = struct.pack("<HHQQ", 1, 16, 1 << 61, 1 << 61)
    return beside_the_model("weights.bin", size=0xFFFFFFFF, compressed_size=0xFFFFFFFF, extra=extra)


@ARCHIVES.refused("too_large", "invalid_model", "unsafe_model", reason=REFUSED)
def size_that_says_ten_bytes(_: Path) -> bytes:
    return beside_the_model("weights.bin", bytes(4 << 20), method=zipfile.ZIP_DEFLATED, size=10)


@ARCHIVES.refused("too_large", "invalid_model", "unsafe_model", reason=REFUSED)
def count_that_says_sixty_thousand(_: Path) -> bytes:
    return forged_zip([Entry(b"model.onnx", model())], count=60_000)


@ARCHIVES.refused("too_large", "invalid_model", "unsafe_model", reason=REFUSED, filename=TAR)
def tar_size_of_eight_exabytes(_: Path) -> bytes:
    info = tarfile.TarInfo("weights.bin")
    info.size = 1 << 62
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024), mtime=0)


@ARCHIVES.refused("too_large", "invalid_model", "unsafe_model", reason=REFUSED, filename=TAR)
def sparse_tar_member_of_one_terabyte(_: Path) -> bytes:
    info = tarfile.TarInfo("weights.bin")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    info.size = 512
    return gzip.compress(info.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n0\n".ljust(512, b"\0") + bytes(1024), mtime=0)


@ARCHIVES.refused("too_large", "invalid_model", "unsafe_model", reason=REFUSED, filename=TAR)
def extended_header_of_64_megabytes(_: Path) -> bytes:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 64 << 20
    body = b"67108864 comment=" + b"x" * ((64 << 20) - 18) + b"\n"
    return gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(1024), mtime=0)


# --- malformed --------------------------------------------------------------------------------------------------------


@ARCHIVES.refused("invalid_model", "unsafe_model", "unsupported_format", reason=REFUSED)
def encrypted_member(_: Path) -> bytes:
    return beside_the_model("weights.bin", bytes(32), flags=1)


@ARCHIVES.refused("invalid_model", "unsafe_model", "unsupported_format", reason=REFUSED)
def unknown_compression(_: Path) -> bytes:
    return beside_the_model("weights.bin", bytes(32), method=99)


@ARCHIVES.refused("invalid_model", "unsafe_model", reason=REFUSED)
def wrong_checksum(_: Path) -> bytes:
    return forged_zip([Entry(b"model.onnx", model(), crc=1)])


@ARCHIVES.refused("invalid_model", reason=REFUSED)
def directory_cut_off(_: Path) -> bytes:
    return zip_of({"model.onnx": model()})[:-30]


@ARCHIVES.refused("invalid_model", reason=REFUSED, filename=TAR)
def tar_cut_off(_: Path) -> bytes:
    whole = tar_of({"model.onnx": model() * 1, "README.md": bytes(range(256)) * 64})
    return whole[: len(whole) // 2]


@ARCHIVES.refused("invalid_model", "unsafe_model", "unsupported_format")
def data_before_the_archive(_: Path) -> bytes:
    return forged_zip([Entry(b"model.onnx", model())], before=b"#!/bin/sh\necho hello\nexit 0\n")


@ARCHIVES.refused("invalid_model", "unsafe_model", reason=REFUSED)
def elf_before_the_archive_with_corrected_offsets(_: Path) -> bytes:
    out = io.BytesIO(b"PK\x03\x04" + b"\x7fELF" + bytes(120))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("model.onnx", model())
    return out.getvalue()


@ARCHIVES.refused("invalid_model", "unsafe_model", READY)
def comment_after_the_archive(_: Path) -> bytes:
    return forged_zip([Entry(b"model.onnx", model())], after=b"x" * 60_000)


@ARCHIVES.refused("invalid_model", "unsupported_format")
def empty_archive(_: Path) -> bytes:
    return zip_of({})


@ARCHIVES.refused("invalid_model", "unsupported_format")
def only_text(_: Path) -> bytes:
    return zip_of({"README.md": b"nothing here"})


@ARCHIVES.refused("invalid_model", "unsupported_format", filename=TAR)
def gzip_of_gzip(_: Path) -> bytes:
    return gzip.compress(tar_of({"model.onnx": model()}), mtime=0)
