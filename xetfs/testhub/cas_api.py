"""The CAS: what files are made of, for those who read; xorbs and shards, from those who write.

Every request bears a token for one repo. A file that no commit of this repo holds is not found, whoever else may have it.
Source: Xet spec, "API"; xet-core cas_client; recorded behaviour of hf_xet 1.8.0 (uploads, dedup prefix `default`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import IO, Final, TypeVar

import trio

from xetfs.errors import CorruptData, EntryNotFound, ProtocolViolation
from xetfs.protocol.hashes import ChunkHash, FileId, MerkleHash, XorbHash, file_id, term_verification_hash
from xetfs.protocol.ranges import ByteRange
from xetfs.protocol.shard import Shard, ShardXorb, encode_dedup_shard, parse_shard
from xetfs.testhub.database import Recent
from xetfs.testhub.messages import Problem, Request, Response, clip_range, json_response, parse_ranges
from xetfs.testhub.options import HubOptions, HubUrls
from xetfs.testhub.plans import plan_answer, to_json
from xetfs.testhub.prooftrees import ProofTree
from xetfs.testhub.signing import Grant, Signer
from xetfs.testhub.storage import Storage
from xetfs.testhub.xetstore import XORB_WIRE_BYTES_MAX, FileRecord, Run, XetStore

SHARD_BYTES_MAX: Final = 64 * 1024 * 1024
_FOOTER_BYTES_MAX = 2 * 1024 * 1024
_DEDUP_MODULUS = 1024
_PROOF_RANGES_MAX = 1000
_PROOF_CHUNKS_CACHED = 4_000_000  # some 60 bytes each
T = TypeVar("T")


class CasApi:
    """The handler of the CAS origin."""

    def __init__(self, storage: Storage, xet: XetStore, signer: Signer, options: HubOptions, urls: HubUrls) -> None:
        self._storage = storage
        self._xet = xet
        self._signer = signer
        self._options = options
        self._urls = urls
        self._trees: Recent[FileId, ProofTree] = Recent(_PROOF_CHUNKS_CACHED)
        self._growing = trio.Lock()
        self._uploads = trio.CapacityLimiter(2)  # each holds one xorb in memory while it is checked

    async def answer(self, request: Request) -> Response:
        match request.method, request.segments:
            case "GET", ("v1" | "v2" as version, "reconstructions", file):
                return self._reconstruction(request, int(version[1]), file)
            case "GET", ("v2", "file-chunk-hashes", file):
                return await self._range_proof(request, file)
            case "HEAD", ("v1", "files", file):
                record = self._file(request, file)
                return Response(200, [("Content-Length", str(record.size))])
            case "HEAD", ("v1", "xorbs", _, xorb):
                self._signer.check_token(request, "read")
                return Response(200 if self._xet.has_xorb(XorbHash(_parse_hash(xorb))) else 404)
            case "GET", ("v1", "chunks", _, chunk):
                return self._dedup(request, ChunkHash(_parse_hash(chunk)))
            case "POST", ("v1", "xorbs", _, xorb):
                return await self._upload_xorb(request, XorbHash(_parse_hash(xorb)))
            case "POST", ("v1" | "v2" as version, "shards"):
                return await self._upload_shard(request, int(version[1]))
            case _, ("v1", "telemetry"):
                return json_response({})
        raise Problem(404, "Not Found")

    # Reading

    def _file(self, request: Request, text: str) -> FileRecord:
        grant = self._signer.check_token(request, "read")
        file = FileId(_parse_hash(text))
        if not self._storage.reaches_file(grant.repo, bytes(file)):
            raise Problem(404, "File not found")
        try:
            return self._xet.record(file)
        except EntryNotFound as error:
            raise Problem(404, "File not found") from error

    def _reconstruction(self, request: Request, version: int, text: str) -> Response:
        if version == 2 and self._options.v2_status != 200:
            raise Problem(self._options.v2_status, "this CAS has no version 2 of reconstructions")
        record = self._file(request, text)
        header = None if request.ignore_range else request.headers.get("range")
        if record.size == 0 and (header is None or header.startswith("bytes=0-")):
            empty = "fetch_info" if version == 1 else "xorbs"
            return json_response({"offset_into_first_range": 0, "terms": [], empty: {}})
        first, last = clip_range(header, record.size) or (0, record.size - 1)
        answer = plan_answer(record, self._xet.index, first, last + 1)
        return json_response(to_json(answer, version, self._sign))

    def _sign(self, xorb: XorbHash, ranges: Sequence[tuple[int, int]]) -> str:
        expires_s = self._options.url_expiry_s()
        return self._signer.sign_url(self._urls.transfer, f"/xorbs/default/{xorb.hex()}", expires_s, ranges=ranges)

    async def _range_proof(self, request: Request, text: str) -> Response:
        if self._options.proof_status != 200:
            raise Problem(self._options.proof_status, "this CAS has no range proofs")
        record = self._file(request, text)
        await trio.sleep(self._options.proof_delay_s)
        chunks_max = self._options.proof_chunks_max
        if chunks_max is not None and sum(run.end - run.start for run in record.runs()) > chunks_max:
            raise Problem(403, "Forbidden: this file is too large for range proofs")
        ranges = parse_ranges(request.headers.get("x-range-dirty", ""))
        if not ranges or len(ranges) > _PROOF_RANGES_MAX:
            raise Problem(400, "X-Range-Dirty: bytes=first-last[,…] is required")
        asked = []
        for first, last in sorted(ranges, key=lambda pair: pair[0]):
            end = record.size if last is None else min(last + 1, record.size)
            if 0 <= first < end:
                asked.append(ByteRange(first, end))
        if not asked:
            raise Problem(400, "X-Range-Dirty: nothing of it lies within the file")
        tree = self._trees.get(record.id)
        if tree is None:
            async with self._growing:  # many ask for the same file at once
                tree = self._trees.get(record.id)
                if tree is None:
                    tree = await trio.to_thread.run_sync(lambda: ProofTree(self._xet.leaves(record.runs())))
                    self._trees.put(record.id, tree, len(tree))
        return json_response(tree.prove(asked))

    def _dedup(self, request: Request, chunk: ChunkHash) -> Response:
        self._signer.check_token(request, "read")
        row = self._storage.row("SELECT xorb FROM dedup WHERE chunk = ?", bytes(chunk))
        if row is None or not self._options.dedup:
            raise Problem(404, "no such chunk")
        xorb = XorbHash(MerkleHash.from_raw(bytes(row[0])))
        index = self._xet.index(xorb)
        sizes = (int(end - start) for start, end in zip(index.data, index.data[1:], strict=False))
        shard = Shard((), (ShardXorb(xorb, tuple(zip(index.hashes, sizes, strict=True))),))
        return Response(200, [("Content-Type", "application/octet-stream")], [encode_dedup_shard(shard)])

    # Writing

    async def _upload_xorb(self, request: Request, xorb: XorbHash) -> Response:
        self._signer.check_token(request, "write")
        with await request.spool(self._storage.temporary, XORB_WIRE_BYTES_MAX + _FOOTER_BYTES_MAX) as file:
            inserted = await self._check_upload(lambda: self._xet.put_xorb(xorb, file.read()))
        return json_response({"was_inserted": inserted})

    async def _upload_shard(self, request: Request, version: int) -> Response:
        grant = self._signer.check_token(request, "write")
        with await request.spool(self._storage.temporary, SHARD_BYTES_MAX) as file:
            if version == 1:
                await self._check_upload(lambda: self._store_shard(file, grant))
                return json_response({"result": 1})
            events: list[dict[str, object]] = [
                {"type": "validating", "verified": 0, "total": 1},
                {"type": "committing", "stage": "syncing"},
            ]
            try:
                await self._check_upload(lambda: self._store_shard(file, grant))
                events.append({"type": "result", "result": 1})
            except Problem as problem:
                events.append({"type": "error", "message": problem.message, "retryable": False})
        lines = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        return Response(200, [("Content-Type", "application/x-ndjson")], [lines])

    async def _check_upload(self, job: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(job, limiter=self._uploads)
        except (CorruptData, ProtocolViolation, EntryNotFound) as error:
            raise Problem(400, str(error)) from error

    def _store_shard(self, file: IO[bytes], grant: Grant) -> None:
        """Check every file of a shard against the xorbs that are held, and keep it. Raises CorruptData, EntryNotFound."""
        shard = parse_shard(file.read())
        for entry in shard.files:
            runs = [Run(term.xorb, term.chunks.start, term.chunks.end) for term in entry.terms]
            for position, (run, term) in enumerate(zip(runs, entry.terms, strict=True)):
                index = self._xet.index(run.xorb)
                if run.end > len(index.hashes) or int(index.data[run.end] - index.data[run.start]) != term.length:
                    raise CorruptData(f"term {position} of file {entry.file.hex()} does not fit its xorb")
                if term.verification != term_verification_hash(index.hashes[run.start : run.end]):
                    raise CorruptData(f"term {position} of file {entry.file.hex()} has a wrong verification hash")
            if file_id(self._xet.leaves(runs)) != entry.file:
                raise CorruptData(f"the chunks of file {entry.file.hex()} do not hash to its name")
            record = self._xet.put_record(entry.file, runs)
            if entry.sha256 is not None:
                self._storage.add_lfs(entry.sha256.hex(), record.size, file_id=bytes(entry.file))
            self._offer_chunks(runs)

    def _offer_chunks(self, runs: Sequence[Run]) -> None:
        """Make the first chunk of a file, and one of 1024 others, findable by those who upload later."""
        rows = []
        for position, run in enumerate(runs):
            hashes = self._xet.index(run.xorb).hashes[run.start : run.end]
            for number, name in enumerate(hashes):
                if (position == 0 and number == 0) or int.from_bytes(name[24:], "little") % _DEDUP_MODULUS == 0:
                    rows.append((bytes(name), bytes(run.xorb)))
        with self._storage.transaction() as database:
            database.executemany("INSERT OR IGNORE INTO dedup VALUES (?, ?)", rows)


def _parse_hash(text: str) -> MerkleHash:
    try:
        return MerkleHash.from_hex(text)
    except ProtocolViolation as error:
        raise Problem(400, f"not a hash: {text!r:.80}") from error
