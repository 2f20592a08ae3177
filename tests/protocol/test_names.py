"""What users type, and how the Hub's own client reads it."""

from __future__ import annotations

import pytest
from huggingface_hub.utils import parse_hf_uri

from xetfs.errors import InvalidArgument
from xetfs.protocol.names import READINGS_MAX, RepoRef, check_revision


def readings(text: str) -> list[tuple[str, str, str]]:
    return [(str(ref.repo), ref.subfolder, ref.revision) for ref in RepoRef.parse(text).readings]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("o/n", [("o/n", "", "main")]),
        ("gpt2", [("gpt2", "", "main")]),
        ("gpt2@v1", [("gpt2", "", "v1")]),
        ("models/o/n", [("o/n", "", "main")]),
        ("datasets/o/n/a/b", [("datasets/o/n", "a/b", "main")]),
        ("hf://spaces/o/n/", [("spaces/o/n", "", "main")]),
        ("o/n@refs/pr/1", [("o/n", "", "refs/pr/1")]),
        ("o/n/sub@refs/pr/1", [("o/n", "sub", "refs/pr/1"), ("o/n", "sub@refs/pr/1", "main")]),
        ("datasets/o/n@~parquet", [("datasets/o/n", "", "~parquet")]),
        ("datasets/o/n@~parquet/default/train", [("datasets/o/n", "default/train", "~parquet")]),
        ("datasets/o/n@refs/convert/parquet", [("datasets/o/n", "", "refs/convert/parquet")]),
        ("datasets/o/n@refs/convert/parquet/default/train", [("datasets/o/n", "default/train", "refs/convert/parquet")]),
        (
            "datasets/o/n@refs%2Fconvert%2Fparquet",
            [("datasets/o/n", "", "refs/convert/parquet"), ("datasets/o/n", "", "refs%2Fconvert%2Fparquet")],
        ),
        ("o/n@v1@2", [("o/n", "", "v1@2")]),
        ("o/n@feature/x", [("o/n", "", "feature/x"), ("o/n", "x", "feature")]),
        ("gpt2@main/onnx", [("gpt2", "", "main/onnx"), ("gpt2", "onnx", "main")]),
        ("o/n@a/b/c", [("o/n", "", "a/b/c"), ("o/n", "b/c", "a"), ("o/n", "c", "a/b")]),
        ("o/n/icons@2x", [("o/n", "icons", "2x"), ("o/n", "icons@2x", "main")]),
        ("o/n/a@b@c", [("o/n", "a@b", "c"), ("o/n", "a", "b@c"), ("o/n", "a@b@c", "main")]),
        ("o/n/icons@2x/..", [("o/n", "", "never")]),
    ],
)
def test_every_reading_of_what_a_user_may_type(text: str, expected: list[tuple[str, str, str]]) -> None:
    if expected[0][2] == "never":
        with pytest.raises(InvalidArgument):
            RepoRef.parse(text)
        return
    assert readings(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "o/n", "datasets/o/n/a/b", "o/n@v1", "o/n@v1/a/b", "datasets/o/n@refs/convert/parquet/default/train", "o/n@refs/pr/3/x",
        "datasets/o/n@~parquet/default", "o/n@a%2Fb/c", "datasets/o/n@refs%2Fconvert%2Fparquet/default", "o/n/icons@2x",
        "o/n/a@b/c",
    ],
)  # fmt: skip
def test_the_reading_of_huggingface_hub_is_among_ours(text: str) -> None:
    theirs = parse_hf_uri(f"hf://{text}")
    repo = theirs.id if theirs.type == "model" else f"{theirs.type}s/{theirs.id}"
    assert (repo, theirs.path_in_repo, theirs.revision or "main") in readings(text)


@pytest.mark.parametrize("text", ["o/n", "gpt2@x", "datasets/o/n/a/b@v1", "o/n/a@b@main", "o/n@v1@2", "o/n/a@feature/x"])
def test_a_reading_written_out_is_read_back_first(text: str) -> None:
    for reading in RepoRef.parse(text).readings:
        assert reading in RepoRef.parse(str(reading)).readings
    assert RepoRef.parse(str(RepoRef.parse(text))) == RepoRef.parse(text)


def test_there_is_an_end_of_readings() -> None:
    assert len(readings("o/n@" + "/".join("abcdefghijklmnop"))) == READINGS_MAX
    assert len(readings("o/n/" + "@".join("abcdefghijklmnop"))) == READINGS_MAX


@pytest.mark.parametrize(
    "text",
    ["", "/", "@main", "o/n@", "a/b@/x@", "o--p/n", "o/n.git", "datasets/", "datasets", "https://hub/o/n", "o/n@a b", "o/n@-x",
     "o/n/../x", "o/n@~", "o/n@~a~b", "o/n@x~1", "o/n@a..b"],
)  # fmt: skip
def test_what_cannot_be_a_repo_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        RepoRef.parse(text)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://huggingface.co/o/n", "o/n"),
        ("https://huggingface.co/datasets/o/n/?x=y", "datasets/o/n"),
        ("http://localhost:8080/o/n/tree/v1/sub", "o/n@v1/sub"),
        ("https://huggingface.co/o/n/blob/main/config.json", "o/n"),
        ("https://user:hf_secret@huggingface.co/o/n", "o/n"),
        ("https://huggingface.co", "owner/name"),
    ],
)
def test_a_url_is_refused_with_the_name_in_it(url: str, name: str) -> None:
    with pytest.raises(InvalidArgument, match="not a URL") as caught:
        RepoRef.parse(url)
    assert caught.value.hint == f"write '{name}'"


@pytest.mark.parametrize("text", ["kernels/o/n", "buckets/o/n", "hf://buckets/o/n/folder", "kernels/o/n@v1"])
def test_kernels_and_buckets_are_named_as_what_is_not_supported(text: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be mounted") as caught:
        RepoRef.parse(text)
    assert "models, datasets and spaces" in str(caught.value)


def test_an_owner_called_like_them_is_none_of_them() -> None:
    assert readings("kernels-community/activation") == [("kernels-community/activation", "", "main")]


def test_the_short_form_of_a_converted_branch_is_a_revision() -> None:
    assert check_revision("~parquet") == "~parquet"
