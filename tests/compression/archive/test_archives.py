"""Archives give back real model files bit for bit, and nothing else than that, whatever is done to them."""

import io
import random
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from tests.trained import trained, write_onnx, write_pt2, write_skops
from workers.compression.archive import container
from workers.compression.archive.commands import main_pack, main_unpack
from workers.compression.archive.packing import pack
from workers.compression.archive.spans import tensor_spans
from workers.compression.archive.unpacking import read_index, unpack
from workers.compression.coding import packing
from workers.compression.coding.byte_stream import varint
from workers.compression.specs.errors import EngineError, InvalidModel, TooLarge, UnsupportedFormat


def _safetensors(path: Path) -> None:
    save_file({name: tensor.clone() for name, tensor in trained("cnn").state_dict().items()}, path)


def _folder(path: Path) -> None:
    buffer = path.with_suffix(".inner")
    _safetensors(buffer)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", '{"model_type": "bert"}')
        archive.write(buffer, "model.safetensors")


WRITERS: dict[str, Callable[[Path], object]] = {
    "model.onnx": lambda path: write_onnx("cnn", path),
    "model.pt2": lambda path: write_pt2("mlp", path),
    "model.skops": lambda path: write_skops(path, 5),
    "model.safetensors": _safetensors,
    "model.zip": _folder,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(100_000)),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(100_000)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    path, archive, again = tmp_path / name, tmp_path / "a.prsz", tmp_path / "again"
    WRITERS[name](path)
    packed = pack(path, archive)
    assert unpack(archive, again) == path.stat().st_size
    assert again.read_bytes() == path.read_bytes()
    assert packed.archive == archive.stat().st_size <= path.stat().st_size + 100
    if name.startswith("model."):
        assert packed.archive < packed.original


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "model.zip"])
def test_weights_are_found_where_they_lie(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    if name == "model.onnx":
        stored = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / name).graph.initializer]
    else:
        stored = [tensor.numpy() for tensor in trained("cnn").state_dict().values()]
    weights = [array.tobytes() for array in stored if array.dtype == np.float32 and array.size >= 128]
    found = {content[span.start : span.end] for span in tensor_spans(tmp_path / name) if span.width == 4}
    assert weights
    assert set(weights) <= found


def test_weights_whose_header_says_nothing_sensible_are_packed_as_bytes(tmp_path: Path) -> None:
    source = tmp_path / "model.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("config.json", '{"model_type": "bert"}')
        archive.writestr("model.safetensors", (180).to_bytes(8, "little") + b'{"weight": 3' + bytes(400))

    assert [span.width for span in tensor_spans(source)] == [1]
    pack(source, tmp_path / "packed.prsz")
    unpack(tmp_path / "packed.prsz", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == source.read_bytes()


def test_a_pruned_and_clustered_file_takes_what_its_symbols_take(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    codebook = rng.standard_normal(8).astype(np.float32)
    weight = np.where(rng.random(300_000) < 0.05, codebook[rng.integers(0, 8, 300_000)], np.float32(0))
    save_file({"weight": torch.from_numpy(weight)}, tmp_path / "m.safetensors")
    packed = pack(tmp_path / "m.safetensors", tmp_path / "m.prsz")
    shares = np.unique(weight, return_counts=True)[1] / weight.size
    entropy = -(shares * np.log2(shares)).sum() * weight.size / 8
    assert packed.archive < 1.02 * entropy + 200


def test_bits_that_are_stored_apart_are_coded_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    codes = np.minimum(rng.geometric(0.4, 80_000) - 1, 7).astype(np.uint8)
    steps = np.where(codes == 0, 31, rng.integers(0, 16, codes.size)).astype(np.uint8)
    parts = {"a": codes & 3, "b": codes >> 2, "c": steps & 15, "d": steps >> 4}
    packed = {name: packing.pack(parts[name], bits) for name, bits in zip(parts, (2, 1, 4, 1), strict=True)}
    save_file({name: torch.from_numpy(part) for name, part in packed.items()}, tmp_path / "m.safetensors")
    size = pack(tmp_path / "m.safetensors", tmp_path / "m.prsz").archive
    shares = np.unique(codes.astype(int) << 5 | steps, return_counts=True)[1] / codes.size
    assert size < 1.02 * -(shares * np.log2(shares)).sum() * codes.size / 8 + 500
    unpack(tmp_path / "m.prsz", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_large_tensors_are_cut_and_single_blocks_can_be_read(tmp_path: Path) -> None:
    words = np.random.default_rng(2).standard_normal((3 << 20) + 5).astype(np.float32)
    words[: 1 << 22] = np.round(words[: 1 << 22])
    doubled = np.concatenate([words, words])
    save_file({"weight": torch.from_numpy(doubled)}, tmp_path / "m.safetensors")
    pack(tmp_path / "m.safetensors", tmp_path / "m.prsz")
    with (tmp_path / "m.prsz").open("rb") as file:
        entries = read_index(file)
        assert [entry.decoded for entry in entries[1:]] == [16 << 20, doubled.nbytes - (16 << 20)]
        size = file.seek(0, 2)
        tail = len(container.tail(entries, bytes(container.DIGEST_BYTES)))
        file.seek(size - tail - entries[-1].coded)
        content, _ = container.read_block(file, container.PIECE_BYTES) or (b"", None)
    assert bytes(content) == doubled.tobytes()[16 << 20 :]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A file with a block of every codec, and its archive."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(3)
    tensors = {
        "floats": torch.from_numpy(rng.standard_normal(130).astype(np.float32)),
        "few": torch.from_numpy(np.round(rng.standard_normal(300)).astype(np.float32)),
        "zeros": torch.zeros(600),
        "bytes": torch.from_numpy(rng.integers(0, 3, 600).astype(np.uint8)),
    }
    save_file(tensors, folder / "m.safetensors")
    pack(folder / "m.safetensors", folder / "m.prsz")
    return (folder / "m.safetensors").read_bytes(), (folder / "m.prsz").read_bytes()


def _attempt(archive: bytes, folder: Path) -> bytes:
    """What a hostile archive unpacks to; an error leaves no file behind."""
    (folder / "h.prsz").write_bytes(archive)
    try:
        unpack(folder / "h.prsz", folder / "out", 1 << 20)
    except EngineError:
        assert not (folder / "out").exists()
        assert not (folder / "out.part").exists()
        raise
    return (folder / "out").read_bytes()


def test_an_archive_cut_anywhere_is_refused(small: tuple[bytes, bytes], tmp_path: Path) -> None:
    for length in range(len(small[1])):
        with pytest.raises((InvalidModel, UnsupportedFormat)):
            _attempt(small[1][:length], tmp_path)
    with pytest.raises(InvalidModel):
        _attempt(small[1] + b"\0", tmp_path)


def test_any_changed_byte_is_noticed(small: tuple[bytes, bytes], tmp_path: Path) -> None:
    rng = random.Random(0)
    for place in range(len(small[1])):
        changed = bytearray(small[1])
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises((InvalidModel, UnsupportedFormat, TooLarge)):
            _attempt(bytes(changed), tmp_path)


def test_random_bytes_behind_a_proper_head_are_refused(small: tuple[bytes, bytes], tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(200):
        with pytest.raises((InvalidModel, UnsupportedFormat, TooLarge)):
            _attempt(small[1][: rng.randrange(5, 40)] + rng.randbytes(rng.randrange(400)), tmp_path)


def _hostile(size: int, codec: int, decoded: int, coded: bytes, stated: int | None = None) -> bytes:
    block = bytes([codec]) + varint(decoded) + varint(len(coded) if stated is None else stated) + coded
    return container.head(size) + block + zlib.crc32(block).to_bytes(4, "little")


def _plain(content: bytes) -> bytes:
    return container.block(0, content, len(content))[0]


@pytest.mark.parametrize(
    "archive",
    [
        _hostile(1 << 40, 1, 1 << 20, b"\0"),
        _hostile(1 << 19, 1, 1 << 45, b"\0"),
        _hostile(1 << 19, 0, 10, b"", stated=1 << 60),
        _hostile(1 << 19, 2, 1 << 25, bytes.fromhex("28b52ffda0ffffffff0100")),
        _hostile(1 << 19, 4, 1 << 19, b"\x04" + varint(1 << 50)),
        _hostile(1 << 19, 4, 1 << 19, b"\x01\x01\x00" + varint(1 << 19)),
        _hostile(1 << 19, 3, 1 << 19, b"\x02" + varint(1 << 55)),
        _hostile(1 << 19, 5, 1 << 19, b"\x01\x09\x01\x00\x01"),
        _hostile(1 << 19, 9, 1 << 19, b""),
        container.head(1 << 19) + _plain(varint(1 << 30)),
        container.head(6) + _plain(varint(1) + varint(3) + varint(3)) + bytes([0xFF]),
    ],
)
def test_lies_about_sizes_are_refused_before_anything_is_allocated(archive: bytes, tmp_path: Path) -> None:
    with pytest.raises((InvalidModel, TooLarge)):
        _attempt(archive, tmp_path)


def test_a_damaged_index_is_refused_by_ranged_readers_too(small: tuple[bytes, bytes]) -> None:
    for place in range(len(small[1]) - 40, len(small[1]) - container.FOOTER.size):
        changed = bytearray(small[1])
        changed[place] ^= 0x40
        try:
            entries = read_index(io.BytesIO(bytes(changed)))
        except InvalidModel:
            continue
        assert entries == read_index(io.BytesIO(small[1]))


def test_the_command_line_packs_unpacks_and_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _safetensors(tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    assert main_pack([str(tmp_path / "m.safetensors")]) == 0
    (tmp_path / "m.safetensors").unlink()
    assert main_unpack([str(tmp_path / "m.safetensors.prsz")]) == 0
    assert (tmp_path / "m.safetensors").read_bytes() == before
    assert main_unpack([str(tmp_path / "m.safetensors"), "--output", str(tmp_path / "x")]) == 1
    assert "not a .prsz archive" in capsys.readouterr().err
    assert main_unpack([str(tmp_path / "m.safetensors.prsz"), "--max-bytes", "10"]) == 1
    assert "too_large" in capsys.readouterr().err
