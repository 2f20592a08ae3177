"""Two Hubs, two tokens, one engine: a content is fetched once, and read by those who may read it.

TOKEN_1=hf_… TOKEN_2=hf_… python docs/two_hubs.py ENDPOINT_1 REPO_1 ENDPOINT_2 REPO_2 PATH
"""

import os
import sys

import trio

from xetfs.api import ByteRange, Engine, FixedToken, Hub, RepoRef, Secret, errors, open_engine, settings_from_env, telemetry


async def read(engine: Engine, hub: Hub, repo: str, path: str) -> None:
    view = await engine.open_repo(RepoRef.parse(repo), hub)
    before = engine.counters[telemetry.CAS_FETCH_BYTES]
    with view.open_file(await view.find(path)) as reader:
        size = sum([len(piece) async for piece in reader.stream(ByteRange(0, reader.size))])
    print(f"{repo}: {size} bytes read, {engine.counters[telemetry.CAS_FETCH_BYTES] - before} fetched")


async def main(endpoint_1: str, repo_1: str, endpoint_2: str, repo_2: str, path: str) -> None:
    hub_1 = Hub(endpoint_1, FixedToken(Secret(os.environ["TOKEN_1"])))
    hub_2 = Hub(endpoint_2, FixedToken(Secret(os.environ["TOKEN_2"])))
    async with open_engine(settings_from_env()) as engine:
        await read(engine, hub_1, repo_1, path)
        await read(engine, hub_2, repo_2, path)
        try:
            await read(engine, hub_2, repo_1, path)
        except errors.XetfsError as exc:
            print(f"refused: {exc}")


trio.run(main, *sys.argv[1:])
