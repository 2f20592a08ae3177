"""Shards of any files and xorbs come back; anything else is refused in one way."""

from hypothesis import given
from hypothesis import strategies as st

from xetfs.errors import CorruptData
from xetfs.protocol.hashes import ZERO_HASH, ChunkHash, FileId, MerkleHash, XorbHash
from xetfs.protocol.ranges import ChunkRange
from xetfs.protocol.shard import Shard, ShardFile, ShardTerm, ShardXorb, encode_dedup_shard, encode_upload_shard, parse_shard
from xetfs.protocol.xorb import CHUNK_BYTES_MAX, XORB_CHUNKS_MAX

# All but the name that ends a section.
hashes = st.binary(min_size=32, max_size=32).filter(lambda raw: raw != b"\xff" * 32).map(MerkleHash.from_raw)
digests = st.binary(min_size=32, max_size=32)
lengths = st.integers(1, CHUNK_BYTES_MAX)


@st.composite
def terms(draw: st.DrawFn) -> ShardTerm:
    start = draw(st.integers(0, XORB_CHUNKS_MAX - 1))
    end = draw(st.integers(start + 1, XORB_CHUNKS_MAX))
    length = draw(st.integers(end - start, (end - start) * CHUNK_BYTES_MAX))
    return ShardTerm(XorbHash(draw(hashes)), ChunkRange(start, end), length, draw(hashes))


empty_file = st.builds(ShardFile, st.just(FileId(ZERO_HASH)), st.just(()), st.none() | digests)
files = empty_file | st.builds(
    ShardFile, hashes.map(FileId), st.lists(terms(), min_size=1, max_size=4).map(tuple), st.none() | digests
)
chunks = st.lists(st.tuples(hashes.map(ChunkHash), lengths), min_size=1, max_size=5).map(tuple)
xorbs = st.lists(st.builds(ShardXorb, hashes.map(XorbHash), chunks), max_size=3).map(tuple)
keys = st.none() | digests.filter(any)
uploads = st.builds(Shard, st.lists(files, max_size=3).map(tuple), xorbs)
answers = st.builds(Shard, st.just(()), xorbs, keys)
encoded = st.one_of(uploads.map(encode_upload_shard), answers.map(encode_dedup_shard))


def in_order(shard: Shard) -> Shard:
    files, xorbs = sorted(shard.files, key=lambda f: f.file.hex()), sorted(shard.xorbs, key=lambda x: x.xorb.hex())
    return Shard(tuple(files), tuple(xorbs), shard.chunk_key)


@given(uploads)
def test_any_upload_comes_back(shard: Shard) -> None:
    assert parse_shard(encode_upload_shard(shard)) == in_order(shard)


@given(answers)
def test_any_answer_comes_back(shard: Shard) -> None:
    assert parse_shard(encode_dedup_shard(shard)) == in_order(shard)


def parse_or_refuse(data: bytes) -> None:
    """What is read can be written and read again; what is not is CorruptData."""
    try:
        shard = parse_shard(data)
    except CorruptData:
        return
    if not shard.files:
        assert parse_shard(encode_dedup_shard(shard)) == in_order(shard)


@given(st.binary(max_size=500), st.booleans(), st.booleans())
def test_garbage_is_refused(garbage: bytes, header: bool, footer: bool) -> None:
    head = encode_dedup_shard(Shard((), ())) if footer else encode_upload_shard(Shard((), ()))
    parse_or_refuse(head[:48] + garbage if header else garbage)


@given(encoded, st.data())
def test_damage_is_refused_or_gives_something_whole(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        if data.draw(st.booleans()):
            damaged[at] ^= data.draw(st.integers(1, 255))
        elif at:
            del damaged[at : at + data.draw(st.sampled_from([1, 8, 48]))]
        else:
            damaged[at:at] = data.draw(st.binary(min_size=1, max_size=48))
    parse_or_refuse(bytes(damaged))
