"""One sentence embedding, computed in numpy from the files of a model folder; the reading half of scripts/demo.

The model is a BERT (all-MiniLM-L6-v2: 6 layers, 12 heads, 384 numbers). Nothing here knows about xetfs: files are opened by
path, so a mounted repo and a plain folder are read by the same lines.

    demo_embedding.py upload ENDPOINT FOLDER REPO      put the folder into a new repo of the hub
    demo_embedding.py compare ENDPOINT MOUNT ORIGINAL  read tensors through the mount, and compare with the original
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import urllib.request
from pathlib import Path

# One thread, so that equal bytes give equal sums to the last bit.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from safetensors import safe_open
from tokenizers import Tokenizer

SENTENCE = "Only the parts of a model that are read have to travel."
WEIGHTS = "model.safetensors"
HEADS = 12
EPSILON = 1e-12
MB = 1e6


def embed(folder: Path, sentence: str) -> np.ndarray:
    """The embedding of `sentence`: the mean of the last layer's vectors, scaled to length 1."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    words = tokenizer.encode(sentence).ids
    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))

    vectors = weights["embeddings.word_embeddings.weight"][words]
    vectors = vectors + weights["embeddings.position_embeddings.weight"][: len(words)]
    vectors = vectors + weights["embeddings.token_type_embeddings.weight"][0]
    vectors = _normalize(weights, "embeddings.LayerNorm", vectors)
    for layer in range(layers):
        vectors = _encode(weights, f"encoder.layer.{layer}", vectors)
    mean = vectors.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _encode(weights: dict[str, np.ndarray], layer: str, vectors: np.ndarray) -> np.ndarray:
    """One encoder layer: attention, then two dense layers, each added to what came in."""
    query, key, value = (
        _dense(weights, f"{layer}.attention.self.{part}", vectors).reshape(len(vectors), HEADS, -1).swapaxes(0, 1)
        for part in ("query", "key", "value")
    )
    scores = query @ key.swapaxes(1, 2) / np.float32(math.sqrt(query.shape[-1]))
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    attended = (shares @ value).swapaxes(0, 1).reshape(vectors.shape)
    attended = _dense(weights, f"{layer}.attention.output.dense", attended)
    vectors = _normalize(weights, f"{layer}.attention.output.LayerNorm", vectors + attended)
    hidden = _gelu(_dense(weights, f"{layer}.intermediate.dense", vectors))
    return _normalize(weights, f"{layer}.output.LayerNorm", vectors + _dense(weights, f"{layer}.output.dense", hidden))


def _dense(weights: dict[str, np.ndarray], name: str, vectors: np.ndarray) -> np.ndarray:
    return vectors @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _normalize(weights: dict[str, np.ndarray], name: str, vectors: np.ndarray) -> np.ndarray:
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _gelu(vectors: np.ndarray) -> np.ndarray:
    erf = np.vectorize(math.erf, otypes=[np.float32])
    return vectors * (1 + erf(vectors / math.sqrt(2))) / 2


def upload(endpoint: str, folder: Path, repo: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token="demo")
    api.create_repo(repo)
    api.upload_folder(repo_id=repo, folder_path=folder)


def compare(endpoint: str, mount: Path, original: Path) -> bool:
    """Read one tensor, then everything, through the mount; whether the embedding is that of the original folder."""
    size = (mount / WEIGHTS).stat().st_size
    fetched_before = _fetched(endpoint)
    began = time.perf_counter()
    with safe_open(mount / WEIGHTS, framework="numpy") as file:
        names = list(file.keys())
        name = "embeddings.LayerNorm.weight"
        tensor = file.get_tensor(name)
    first_s = time.perf_counter() - began
    first = _fetched(endpoint) - fetched_before
    print(f"  {WEIGHTS}: {size / MB:.1f} MB, {len(names)} tensors")
    print(f"  first tensor, {name} {tensor.shape}: after {first_s * 1000:.0f} ms, {_share(first, size)}")

    began = time.perf_counter()
    mounted = embed(mount, SENTENCE)
    all_s = time.perf_counter() - began
    print(f'  embedding of "{SENTENCE}"')
    both = _share(_fetched(endpoint) - fetched_before, size)
    print(f"    through the mount:      [{_numbers(mounted)}, …] after {all_s:.2f} s, {both}")
    plain = embed(original, SENTENCE)
    print(f"    from the original file: [{_numbers(plain)}, …]")
    equal = bool(np.array_equal(mounted, plain))
    print(f"  {'all' if equal else 'NOT all'} {mounted.size} numbers are equal to the last bit")
    return equal


def _fetched(endpoint: str) -> int:
    """Bytes that the hub has sent as file content so far, by its own log."""
    with urllib.request.urlopen(f"{endpoint}/_testhub/requests?origin=transfer", timeout=10) as answer:
        return int(json.load(answer)["totals"]["transfer"]["bytes_sent"])


def _share(fetched: int, size: int) -> str:
    return f"{fetched / MB:.1f} MB fetched ({100 * fetched / size:.1f} % of the file)"


def _numbers(vector: np.ndarray) -> str:
    return ", ".join(f"{number:+.6f}" for number in vector[:3])


def main(arguments: list[str]) -> int:
    match arguments:
        case ["upload", endpoint, folder, repo]:
            upload(endpoint, Path(folder), repo)
        case ["compare", endpoint, mount, original]:
            if not compare(endpoint, Path(mount), Path(original)):
                print("the embeddings differ", file=sys.stderr)
                return 1
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
