"""Models as PyTorch and transformers load them. Run by scripts/test --torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from loader_data import MIB
from loader_runs import Loaders

pytestmark = pytest.mark.torch

REPO: Final = "local/torch"
CHECKPOINT: Final = "pytorch_model.bin"

MAKE = """
import sys, torch
from transformers import BertConfig, BertModel
torch.manual_seed(0)
config = BertConfig(hidden_size=768, num_hidden_layers=8, num_attention_heads=12, intermediate_size=3072, vocab_size=20000)
model = BertModel(config)
model.save_pretrained(sys.argv[1], max_shard_size="40MB")
torch.save(model.state_dict(), sys.argv[1] + "/" + sys.argv[2])
"""
RECORDS = """
import hashlib, json, sys, torch
tensors = torch.load(sys.argv[1], mmap=True, weights_only=True)
for name in sys.argv[2:] or sorted(tensors):
    print(name, tensors[name].nbytes, hashlib.sha256(tensors[name].contiguous().numpy()).hexdigest())
"""
PRETRAINED = """
import hashlib, sys
from transformers import AutoModel
for name, tensor in sorted(AutoModel.from_pretrained(sys.argv[1]).state_dict().items()):
    print(name, hashlib.sha256(tensor.numpy()).hexdigest())
"""


@pytest.fixture(scope="session")
def folder(loaders: Loaders) -> Path:
    """A model as a checkpoint, and in shards, which the real client has put into the hub."""
    folder = loaders.base / "torch"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", MAKE, folder, CHECKPOINT], check=True)
    loaders.hub.upload(REPO, folder)
    return folder


def run_local(program: str, folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def test_some_tensors_of_a_mapped_checkpoint(loaders: Loaders, folder: Path) -> None:
    names = [f"encoder.layer.{layer}.{part}.dense.weight" for layer in (1, 4, 6) for part in ("intermediate", "attention.output")]
    lines = run_local(RECORDS, folder, CHECKPOINT, *names)
    size = sum(int(line.split()[1]) for line in lines.splitlines())
    printed, moved = loaders.run(RECORDS, CHECKPOINT, *names, repo=REPO)
    assert printed == lines
    # It looks at the header of each record first: a few bytes, with which the kernel asks for 132 KiB.
    records = len(run_local(RECORDS, folder, CHECKPOINT).splitlines())
    assert moved <= size + records * MIB // 4 <= (folder / CHECKPOINT).stat().st_size / 2


def test_a_whole_mapped_checkpoint(loaders: Loaders, folder: Path) -> None:
    printed, moved = loaders.run(RECORDS, CHECKPOINT, repo=REPO)
    assert printed == run_local(RECORDS, folder, CHECKPOINT)
    assert moved <= 1.05 * (folder / CHECKPOINT).stat().st_size


def test_a_sharded_model_from_pretrained(loaders: Loaders, folder: Path) -> None:
    shards = set(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values())
    assert len(shards) > 3
    printed, moved = loaders.run(PRETRAINED, ".", repo=REPO)
    assert printed == run_local(PRETRAINED, folder, ".")
    assert moved <= 1.05 * sum((folder / shard).stat().st_size for shard in shards)
