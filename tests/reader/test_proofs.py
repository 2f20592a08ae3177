"""What a reader gets when there is no proof: its data, at a lower level, and never a wait that is longer than the timeout."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import trio
from conftest_reader import Bench, FakeCas, FakeFile, open_bench

from xetfs import telemetry
from xetfs.errors import (
    AccessDenied,
    AuthRequired,
    CorruptData,
    EntryNotFound,
    Offline,
    ProtocolViolation,
    RateLimited,
    RepoNotFound,
    Unavailable,
    XetfsError,
)
from xetfs.net.origins import Origin
from xetfs.protocol.hashes import FileId, MerkleHash
from xetfs.protocol.proof import RangeProof
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.file import FileReader
from xetfs.reader.filemap import Level
from xetfs.reader.proofs import (
    FAILED_FILE_PAUSE_S,
    FAILURES_MAX,
    FILE_PAUSE_S,
    FILES_KEPT_MAX,
    FILES_WITHOUT_MAX,
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    ProofPolicy,
)
from xetfs.telemetry import Counters
from xetfs.units import KIB

MakeFile = Callable[..., FakeFile]
PAGE = ByteRange(100_000, 104_096)
TIMEOUT_S = 2.0
HERE, THERE = Origin("https", "cas.example", 443), Origin("https", "other.example", 443)
REASONS = {
    "401": AuthRequired("401"),
    "403": AccessDenied("403"),
    "404": EntryNotFound("404"),
    "429": RateLimited("429"),
    "429 for an hour": RateLimited("429", retry_after_s=3600),
    "500": Unavailable("500"),
    "HTML": ProtocolViolation("not JSON"),
    "out of reach": Offline("out of reach"),
}


async def read(reader: FileReader, file: FakeFile, span: ByteRange = PAGE) -> Level | None:
    """The level of a file of which `span` has been read, and was right."""
    assert bytes(await reader.read(span)) == file.content[span.start : span.end]
    return reader.map.level


@pytest.mark.parametrize("reason", REASONS)
async def test_a_proof_that_is_not_given_lowers_the_level_and_fails_no_read(
    reason: str, cas: FakeCas, make_file: MakeFile, autojump_clock: object
) -> None:
    cas.proof_error, cas.delay_s = REASONS[reason], 1.0
    file = make_file(60)
    async with open_bench(cas) as bench:
        began = trio.current_time()
        assert await read(bench.reader(file), file) is Level.FRAMING
        assert trio.current_time() - began == 2, "as with a proof"
        assert bench.counters[telemetry.READER_PROOFS_MISSED] == 1


@pytest.mark.parametrize("reason", REASONS)
async def test_strict_gives_out_nothing_without_a_proof(reason: str, cas: FakeCas, make_file: MakeFile) -> None:
    cas.proof_error = REASONS[reason]
    file = make_file(60)
    async with open_bench(cas, verify="proof") as bench:
        reader = bench.reader(file)
        expected = ProtocolViolation if reason == "404" else type(REASONS[reason])
        with pytest.raises(expected) as told:
            await reader.read(PAGE)
        if reason == "404":
            assert "no proof to be had" in str(told.value)
            assert "--verify auto" in str(told.value)
        assert not reader.map.runs()


async def test_a_proof_is_waited_for_no_longer_than_its_timeout(
    cas: FakeCas, make_file: MakeFile, autojump_clock: object
) -> None:
    cas.proof_delay_s, cas.delay_s = 3600, 0.1
    file = make_file(60)
    async with open_bench(cas) as bench:
        reader, began = bench.reader(file), trio.current_time()
        assert await read(reader, file) is Level.FRAMING
        assert trio.current_time() - began == TIMEOUT_S
        began = trio.current_time()
        await read(reader, file, ByteRange(2_000_000, 2_004_096))
        assert trio.current_time() - began == pytest.approx(0.2), "it is not waited for again at once"
    async with open_bench(cas, verify="proof") as bench:
        with trio.move_on_after(20) as scope:
            await bench.reader(file).read(PAGE)
        assert scope.cancelled_caught, "strict has no other timeout than that of the read"


def odd(change: Callable[[RangeProof], RangeProof], cas: FakeCas, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cas.range_proof

    async def range_proof(file: FileId, span: ByteRange) -> RangeProof:
        return change(await real(file, span))

    monkeypatch.setattr(cas, "range_proof", range_proof)


ODD: dict[str, Callable[[RangeProof], RangeProof]] = {
    "two windows": lambda p: RangeProof((p.windows[0], p.windows[0]), p.gaps, p.total_chunks, p.file_size),
    "a window elsewhere": lambda p: RangeProof((ByteRange(0, 10),), p.gaps, p.total_chunks, p.file_size),
    "another file size": lambda p: RangeProof(p.windows, p.gaps, p.total_chunks, p.file_size + 1),
}


@pytest.mark.parametrize("shape", ODD)
async def test_a_proof_of_an_odd_shape_is_none(
    shape: str, cas: FakeCas, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_file(60)
    odd(ODD[shape], cas, monkeypatch)
    async with open_bench(cas) as bench:
        assert await read(bench.reader(file), file) is Level.FRAMING
    async with open_bench(cas, verify="proof") as bench:
        with pytest.raises(ProtocolViolation):
            await bench.reader(file).read(PAGE)


@pytest.mark.parametrize("verify", ["auto", "proof"])
async def test_a_proof_that_is_wrong_fails_the_read(
    verify: str, cas: FakeCas, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is about another file of the same cuts."""
    file = make_file(60)
    chunks = [bytes(len(chunk)) for chunk in cas._chunks[0]]
    other = cas.add_file([(cas.add_xorb(chunks), 0, 60)])
    cas.files[file.id], cas.files[other.id] = cas.files[other.id], cas.files[file.id]
    monkeypatch.setattr(cas, "reconstruction", lambda _, span: real(other.id, span))
    real = FakeCas.reconstruction.__get__(cas)
    async with open_bench(cas, verify=verify) as bench:
        with pytest.raises(CorruptData):
            await bench.reader(file).read(PAGE)
        assert cas.count("proof") == 2, "asked again, with all of the window fetched anew"


async def test_a_file_without_a_proof_says_nothing_of_others(
    cas: FakeCas, make_file: MakeFile, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = make_file(60, seed=1), make_file(60, seed=2)
    async with open_bench(cas) as bench:
        without, proven = bench.reader(bad), bench.reader(good)
        cas.proofless = True
        assert await read(without, bad) is Level.FRAMING
        cas.proofless = False
        assert await read(proven, good) is Level.PROOF
        await read(without, bad, ByteRange(2_000_000, 2_004_096))
        assert cas.count("proof") == 2, "the file is known to have none"
        await trio.sleep(FILE_PAUSE_S)
        await read(without, bad, ByteRange(1_000_000, 1_004_096))
        assert cas.count("proof") == 3, "for a while"


async def test_a_server_that_never_gave_a_proof_is_asked_about_a_few_files(
    cas: FakeCas, make_file: MakeFile, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    cas.proofless = True
    files = [make_file(20, seed=seed) for seed in range(FILES_WITHOUT_MAX + 3)]
    async with open_bench(cas) as bench:
        for file in files[:-1]:
            assert await read(bench.reader(file), file) is Level.FRAMING
        assert cas.count("proof") == FILES_WITHOUT_MAX
        assert [r.levelno for r in caplog.records if r.levelno >= logging.WARNING] == [logging.WARNING]
        cas.proofless = False
        await trio.sleep(PAUSE_MIN_S)
        assert await read(bench.reader(files[-1]), files[-1]) is Level.PROOF


# The breaker


def make_policy() -> tuple[ProofPolicy, Counters]:
    counters = Counters()
    return ProofPolicy(TIMEOUT_S, counters), counters


def file_of(number: int) -> FileId:
    return FileId(MerkleHash.from_raw(number.to_bytes(32, "big")))


PROOF = RangeProof((ByteRange(0, 10),), (None, None), 1, 10)


async def ask(policy: ProofPolicy, number: int, error: XetfsError | None = None, origin: Origin = HERE) -> bool | None:
    """Whether there was a proof; None if it was not asked for."""

    async def question() -> RangeProof:
        await trio.lowlevel.checkpoint()
        if error is not None:
            raise error
        return PROOF

    if not policy.admits(origin, file_of(number)):
        return None
    return await policy.ask(lambda: origin, file_of(number), question) is PROOF


@pytest.mark.parametrize("error", [AccessDenied("no"), AuthRequired("no"), Unavailable("no"), ProtocolViolation("odd")])
async def test_a_breaker_opens_tries_one_question_and_closes(
    error: XetfsError, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    policy, _ = make_policy()
    for number in range(FAILURES_MAX):
        assert await ask(policy, number, error) is False
    assert await ask(policy, 100) is None
    assert await ask(policy, 100, origin=THERE) is True, "of another origin nothing is known"
    pause_s = PAUSE_MIN_S
    for number in range(101, 106):
        await trio.sleep(pause_s)
        assert await ask(policy, number, error) is False
        assert await ask(policy, 200) is None, "one question at a time"
        pause_s = min(2 * pause_s, PAUSE_MAX_S)
    await trio.sleep(pause_s)
    assert await ask(policy, 300) is True
    assert await ask(policy, 301) is True
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1, "one for the change"
    assert str(HERE) in told[0].getMessage()
    assert sum("again" in record.getMessage() for record in caplog.records) == 1


async def test_a_question_that_is_cancelled_does_not_keep_a_breaker_open(autojump_clock: object) -> None:
    policy, _ = make_policy()
    for number in range(FAILURES_MAX):
        await ask(policy, number, Unavailable("no"))
    await trio.sleep(PAUSE_MIN_S)
    assert policy.admits(HERE, file_of(100))  # and then its reader goes away
    assert not policy.admits(HERE, file_of(101))
    await trio.sleep(TIMEOUT_S)
    assert await ask(policy, 102) is True


async def test_failures_with_answers_between_them_open_nothing(autojump_clock: object) -> None:
    policy, _ = make_policy()
    for number in range(3 * FAILURES_MAX):
        assert await ask(policy, number, Unavailable("no") if number % FAILURES_MAX else None) is (number % FAILURES_MAX == 0)


async def test_answers_to_questions_from_before_it_opened_do_not_lengthen_its_pause(autojump_clock: object) -> None:
    policy, _ = make_policy()
    async with trio.open_nursery() as nursery:
        for number in range(10 * FAILURES_MAX):
            nursery.start_soon(ask, policy, number, Unavailable("no"))
    await trio.sleep(PAUSE_MIN_S)
    assert await ask(policy, 1000) is True


async def test_too_many_requests_open_it_at_once_for_as_long_as_the_server_asks(autojump_clock: object) -> None:
    policy, _ = make_policy()
    await ask(policy, 1, RateLimited("429", retry_after_s=3 * PAUSE_MAX_S))
    await trio.sleep(3 * PAUSE_MAX_S - 1)
    assert await ask(policy, 2) is None
    await trio.sleep(1)
    assert await ask(policy, 3) is True


async def test_a_link_that_is_down_says_nothing_of_a_server(autojump_clock: object) -> None:
    policy, _ = make_policy()
    for number in range(2 * FAILURES_MAX):
        assert await ask(policy, number, Offline("down")) is False
    assert await ask(policy, 1000) is True


async def test_a_repo_that_is_deleted_says_nothing_of_a_server_nor_of_its_files(autojump_clock: object) -> None:
    """They may lie in other repos, too."""
    policy, _ = make_policy()
    for number in range(2 * FAILURES_MAX):
        assert await ask(policy, number, RepoNotFound("deleted")) is False
        assert await ask(policy, number) is True


async def test_failures_of_one_file_pause_that_file_for_longer_and_longer_and_no_other(autojump_clock: object) -> None:
    policy, _ = make_policy()
    pause_s = FAILED_FILE_PAUSE_S
    for number in range(2 * FAILURES_MAX + 2):
        assert await ask(policy, 1, AccessDenied("too large a file")) is False
        await trio.sleep(pause_s - 1)
        assert await ask(policy, 1) is None
        assert await ask(policy, 100 + number) is not None, "of another file"
        await trio.sleep(1)
        pause_s = min(2 * pause_s, FILE_PAUSE_S)
    assert await ask(policy, 1) is True
    assert await ask(policy, 1, AccessDenied("no")) is False
    await trio.sleep(FAILED_FILE_PAUSE_S)
    assert await ask(policy, 1) is True, "a proof ends what was held against the file"


async def test_one_file_that_fails_without_an_answer_between_opens_no_breaker(autojump_clock: object) -> None:
    policy, _ = make_policy()
    for _ in range(2 * FAILURES_MAX):
        assert await ask(policy, 1, Unavailable("no")) is False
        await trio.sleep(FILE_PAUSE_S)
    assert await ask(policy, 2) is True


async def test_a_failure_pauses_its_file_for_a_moment(autojump_clock: object) -> None:
    policy, counters = make_policy()
    assert await ask(policy, 1, Unavailable("no")) is False
    assert await ask(policy, 1) is None
    assert await ask(policy, 2) is True
    await trio.sleep(FAILED_FILE_PAUSE_S)
    assert await ask(policy, 1) is True
    assert counters[telemetry.READER_PROOFS_MISSED] == 1


async def test_no_more_verdicts_are_kept_than_is_sensible(autojump_clock: object) -> None:
    policy, _ = make_policy()
    assert await ask(policy, 0) is True
    for number in range(1, FILES_KEPT_MAX + 2):
        assert await ask(policy, number, EntryNotFound("404")) is False
    assert await ask(policy, 2) is None
    assert await ask(policy, 1) is True


async def test_two_engines_know_nothing_of_each_other(cas: FakeCas, make_file: MakeFile) -> None:
    files = [make_file(20, seed=seed) for seed in range(FAILURES_MAX + 1)]
    cas.proof_error = Unavailable("no")

    async def level(bench: Bench, file: FakeFile) -> Level | None:
        return await read(bench.reader(file), file, ByteRange(0, 4 * KIB))

    async with open_bench(cas) as first, open_bench(cas) as second:
        for file in files[:-1]:
            assert await level(first, file) is Level.FRAMING
        cas.proof_error = None
        assert await level(first, files[-1]) is Level.FRAMING
        assert await level(second, files[-1]) is Level.PROOF


async def test_a_token_that_is_not_to_be_had_says_nothing_of_a_file(autojump_clock: object) -> None:
    """A Hub without Xet answers 404 to that. Where no server is known, none was asked for a proof."""
    policy = ProofPolicy(TIMEOUT_S, Counters())
    file = FileId(MerkleHash(b"f" * 32))

    async def question() -> RangeProof:
        raise EntryNotFound("no token: the Hub knows no Xet")

    assert await policy.ask(lambda: None, file, question) is None
    assert policy.admits(HERE, file)
