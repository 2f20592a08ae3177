import pytest
from blake3 import blake3
from vector_files import VECTORS, xof

from xetfs.errors import ProtocolViolation
from xetfs.protocol.hashes import (
    GROUP_MAX,
    ZERO_HASH,
    ChunkHash,
    MerkleHash,
    chunk_hash,
    file_id,
    file_id_of_root,
    group_end,
    is_cut,
    merkle_root,
    node_hash,
    term_verification_hash,
    xorb_hash,
)

KEYS = {name: bytes.fromhex(key) for name, key in VECTORS["keys_hex"].items()}


def leaves(count: int) -> list[tuple[MerkleHash, int]]:
    stream = xof("leaves", 40 * count)
    return [
        (MerkleHash.from_raw(stream[at : at + 32]), 1 + int.from_bytes(stream[at + 32 : at + 36], "little") % 131072)
        for at in range(0, 40 * count, 40)
    ]


def with_cut(number: int, cut: bool) -> MerkleHash:
    raw = bytearray(xof(str(number), 32))
    raw[24] = raw[24] & 0xFC | (not cut)
    return MerkleHash.from_raw(bytes(raw))


def test_text_reverses_each_group_of_eight_bytes() -> None:
    raw, text = bytes.fromhex(VECTORS["hash_string"]["raw_hex"]), VECTORS["hash_string"]["string"]
    value = MerkleHash.from_raw(raw)
    assert value == raw
    assert value.hex() == str(value) == text
    assert text in repr(value)
    assert MerkleHash.from_hex(text) == MerkleHash.from_hex(text.upper()) == value


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "0" * 63 + "g", "0" * 63 + "\n", " " + "0" * 63, "٠" * 64, "0x" + "0" * 62]
)
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        MerkleHash.from_hex(text)


def test_many_hashes_are_read_as_each_is() -> None:
    texts = [chunk_hash(bytes([i])).hex() for i in range(20)]
    assert MerkleHash.all_from_hex(texts) == [MerkleHash.from_hex(text) for text in texts]
    assert all(type(value) is MerkleHash for value in MerkleHash.all_from_hex(texts))
    assert MerkleHash.all_from_hex([]) == []
    for wrong in ("0" * 63 + " ", "g" * 64):
        with pytest.raises(ProtocolViolation, match=f"not a hash: '{wrong}'"):
            MerkleHash.all_from_hex([*texts, wrong, *texts])
    with pytest.raises(ProtocolViolation):  # as many digits in all as there should be
        MerkleHash.all_from_hex([texts[0] + "0", texts[1][1:]])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_hash_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError):
        MerkleHash.from_raw(bytes(length))


def test_every_hash_has_its_own_key() -> None:
    data = xof("data", 1000)
    chunk = chunk_hash(data)
    assert chunk == blake3(data, key=KEYS["data"]).digest()
    assert chunk_hash(memoryview(data)) == chunk_hash(bytearray(data)) == chunk
    assert file_id_of_root(chunk) == file_id([(chunk, 1000)]) == blake3(chunk, key=KEYS["file"]).digest()
    assert term_verification_hash([chunk, chunk]) == blake3(chunk + chunk, key=KEYS["term_verification"]).digest()
    text = f"{chunk.hex()} : 1000\n{chunk.hex()} : 7\n".encode()
    assert node_hash([(chunk, 1000), (chunk, 7)]) == blake3(text, key=KEYS["internal"]).digest()


@pytest.mark.parametrize("case", VECTORS["merkle"]["cases"], ids=lambda case: str(case["n"]))
def test_tree_vectors(case: dict[str, object]) -> None:
    pairs = leaves(int(str(case["n"])))
    assert merkle_root(iter(pairs)).hex() == xorb_hash(pairs).hex() == case["root"]
    assert file_id(iter(pairs)).hex() == case["file_hash"]


def test_trees_of_none_and_of_one() -> None:
    (leaf,) = leaves(1)
    assert merkle_root([]) == file_id([]) == ZERO_HASH
    assert merkle_root([leaf]) == leaf[0]
    assert file_id([(ZERO_HASH, 1)]) != ZERO_HASH  # else any file could be passed off as the empty one


def test_the_root_commits_to_order_and_sizes() -> None:
    pairs = leaves(20)
    root = merkle_root(pairs)
    assert merkle_root(pairs[::-1]) != root
    assert merkle_root([(pairs[0][0], pairs[0][1] + 1), *pairs[1:]]) != root


@pytest.mark.parametrize(
    ("cuts", "length"),
    [
        ("", 0),
        ("c", 1),
        ("cc", 2),
        ("..", 2),
        ("ccc", 3),
        ("cc.", 3),
        ("..c....", 3),
        ("cc.c...", 4),
        (".......c.", 8),
        ("........c", 9),
        (".........c", 9),
        (".........", 9),
        ("cc........c", 9),
        ("..c..c", 3),
    ],
)
def test_groups_end_at_cuts(cuts: str, length: int) -> None:
    nodes = [with_cut(number, sign == "c") for number, sign in enumerate(cuts)]
    assert [is_cut(node) for node in nodes] == [sign == "c" for sign in cuts]
    assert group_end(nodes) == group_end(nodes[:GROUP_MAX]) == length


@pytest.mark.parametrize("count", [2, 3, 4, 9, 10, 11, 18, 19, 100, 1000])
def test_the_tree_is_what_its_parts_say(count: int) -> None:
    """merkle_root works on whole levels at once; the rule itself is group_end and node_hash."""
    pairs = leaves(count)
    level = pairs
    while len(level) > 1:
        parents = []
        while level:
            end = group_end([node for node, _ in level])
            parents.append((node_hash(level[:end]), sum(size for _, size in level[:end])))
            level = level[end:]
        level = parents
    assert merkle_root(pairs) == level[0][0]


def test_equal_hashes_are_equal_whatever_they_name() -> None:
    chunk = chunk_hash(b"x")
    assert {chunk: 1}[ChunkHash(MerkleHash.from_hex(chunk.hex()))] == 1
