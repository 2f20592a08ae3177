"""Programs that know nothing of xetfs read a mounted repo by path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mount_data
import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy
from mount_hub import Everything, HubProcess
from mount_user import MountRepo
from safetensors import safe_open
from transformers import AutoTokenizer

PROGRAM_S = 60


@pytest.fixture
def mounted(everything: Everything, hub: HubProcess, mount_repo: MountRepo) -> Path:
    return mount_repo(hub.endpoint).path


@pytest.mark.production
def test_safetensors(everything: Everything, hub: HubProcess, mounted: Path) -> None:
    hub.reset()
    original = safetensors.numpy.load_file(everything.folder / mount_data.MODEL)
    with safe_open(mounted / mount_data.MODEL, framework="numpy") as file:
        assert set(file.keys()) == set(original)
        np.testing.assert_array_equal(file.get_tensor("layer.7.weight"), original["layer.7.weight"])
        size = (mounted / mount_data.MODEL).stat().st_size
        assert sum(request["bytes_sent"] for request in hub.requests("transfer")) < size
        for name in original:
            np.testing.assert_array_equal(file.get_tensor(name), original[name])


def test_a_tokenizer_by_path(mounted: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(mounted / "tokenizer")
    assert tokenizer("what is read")["input_ids"] == [2, 3, 4]


@pytest.mark.torch
def test_a_transformers_model_by_path(hub: HubProcess, mount_repo: MountRepo, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, vocab_size=5000)
    original = BertModel(config).eval()
    original.save_pretrained(tmp_path)
    hub.upload("local/bert", tmp_path)
    loaded = AutoModel.from_pretrained(mount_repo(hub.endpoint, "local/bert").path).eval()
    words = torch.arange(1, 40).reshape(1, -1)
    with torch.no_grad():
        torch.testing.assert_close(loaded(words)[0], original(words)[0], rtol=0, atol=0)


def test_numpy_memmap(everything: Everything, mounted: Path) -> None:
    original = np.load(everything.folder / mount_data.FLOATS)
    array = np.load(mounted / mount_data.FLOATS, mmap_mode="r")
    assert isinstance(array, np.memmap)
    np.testing.assert_array_equal(array[700], original[700])
    np.testing.assert_array_equal(array[:, ::997], original[:, ::997])
    np.testing.assert_array_equal(array, original)


@pytest.mark.production
def test_parquet(everything: Everything, hub: HubProcess, mounted: Path) -> None:
    original = pyarrow.parquet.read_table(everything.folder / mount_data.TABLE)
    file = pyarrow.parquet.ParquetFile(mounted / mount_data.TABLE, memory_map=True)
    assert file.metadata.num_row_groups == 10
    assert file.read_row_group(6, columns=["square"]).equals(original.select(["square"]).slice(120_000, 20_000))
    assert pyarrow.parquet.read_table(mounted / mount_data.TABLE).equals(original)


@pytest.mark.parametrize("pattern", ["read", "randread"])
@pytest.mark.parametrize("engine", ["psync", "mmap", "libaio", "io_uring"])
def test_fio_finds_its_checksums(everything: Everything, mounted: Path, tmp_path: Path, engine: str, pattern: str) -> None:
    """The file was laid out by fio with a checksum in each block, uploaded, and is now read back through the mount."""
    command = [
        "fio", "--name=check", "--readonly", f"--filename={mounted / mount_data.VERIFIED}", f"--size={mount_data.VERIFIED_BYTES}",
        f"--rw={pattern}", "--bs=64k", "--verify=crc32c", "--verify_fatal=1", f"--ioengine={engine}", "--output-format=json",
        *(["--iodepth=8", "--direct=1"] if engine in ("libaio", "io_uring") else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_S, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [job] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    assert job["error"] == 0
    assert job["read"]["io_bytes"] == mount_data.VERIFIED_BYTES


def test_fio_would_notice_a_wrong_byte(everything: Everything, tmp_path: Path) -> None:
    """So that the test above can fail."""
    content = bytearray((everything.folder / mount_data.VERIFIED).read_bytes())
    content[5_000_000] ^= 1
    wrong = tmp_path / "wrong"
    wrong.write_bytes(content)
    command = ["fio", "--name=check", "--readonly", f"--filename={wrong}", f"--size={len(content)}", "--rw=read", "--bs=64k",
               "--verify=crc32c", "--verify_fatal=1", "--ioengine=psync"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=PROGRAM_S, check=False, cwd=tmp_path)
    assert done.returncode != 0


COMMANDS = {
    "grep": ["grep", "-rl", "license: mit", "."],
    "find": ["find", ".", "-name", "*.bin", "-size", "+1M"],
    "du": ["du", "-sb", "--apparent-size", "names"],
    "tail": ["tail", "-c", "100", "weights/text.bin"],
    "head": ["head", "-c", "100", "weights/text.bin"],
    "wc": ["wc", "-l", "weights/text.bin"],
    "python": [sys.executable, "-c", "import json; print(json.load(open('config.json')))"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_everyday_commands_say_the_same(everything: Everything, mounted: Path, command: list[str]) -> None:
    def output(cwd: Path) -> list[str]:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PROGRAM_S, check=True)
        assert done.stdout
        return sorted(done.stdout.splitlines())

    if command[0] == "du":  # a directory has a size of its own on every file system
        total = sum(path.stat().st_size for path in (everything.folder / "names").iterdir())
        size = (mounted / "names").stat().st_size
        assert output(mounted) == [f"{total + size}\tnames"]
    else:
        assert output(mounted) == output(everything.folder)


def test_cp_and_tar(everything: Everything, mounted: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", mounted / "weights", tmp_path / "copy"], check=True, timeout=PROGRAM_S)
    subprocess.run(["diff", "-r", everything.folder / "weights", tmp_path / "copy"], check=True, timeout=PROGRAM_S)
    subprocess.run(["tar", "-C", mounted, "-cf", tmp_path / "all.tar", "terms"], check=True, timeout=PROGRAM_S)
    subprocess.run(["tar", "-C", tmp_path, "-xf", tmp_path / "all.tar"], check=True, timeout=PROGRAM_S)
    subprocess.run(["diff", "-r", everything.folder / "terms", tmp_path / "terms"], check=True, timeout=PROGRAM_S)
