import bz2
import gzip
import io
import lzma

import pytest
import zstandard

from block_recurrent.data.sources import compression

CONTENT = b"".join(b"line %d\n" % number for number in range(20_000))
PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
    "zst, long": zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    ).compress,
}


def read(data):
    return compression.decompressed(io.BytesIO(data)).read()


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_every_compression_is_recognised_by_its_content(pack):
    assert read(pack(CONTENT)) == CONTENT
    assert list(compression.decompressed(io.BytesIO(pack(CONTENT)))) == CONTENT.splitlines(keepends=True)
    assert read(pack(CONTENT[:50_000]) + pack(CONTENT[50_000:])) == CONTENT
    assert read(pack(CONTENT) + bytes(100)) == CONTENT
    assert read(pack(b"")) == b""


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_damage_is_an_error_after_all_that_can_be_read(pack):
    whole = pack(bytes(range(256)) * 20_000)
    for damaged in (whole[: len(whole) // 2], whole[:-3], whole + b"other"):
        with pytest.raises(compression.DamagedError):
            read(damaged)


def test_other_bytes_are_returned_as_they_are():
    for data in (b"", b"\x1f", b"plain\n", b"BZh is not a number"):
        assert read(data) == data
    assert not compression.is_compressed(b"plain")


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_a_file_that_unpacks_to_too_much_is_not_unpacked(pack):
    assert compression.unpack(pack(bytes(1 << 22)), 1 << 20) is None
    assert compression.unpack(pack(bytes(1 << 20)), 1 << 20) == bytes(1 << 20)


def test_a_skippable_frame_comes_before_the_content():
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"
    assert read(skipped + zstandard.compress(CONTENT)) == CONTENT
