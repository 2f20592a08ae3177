"""When signed URLs of several kinds end."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetfs.protocol.expiry import signed_url_end

HOST = "https://data.example/xorbs/default/abc"


def policy(value: object) -> str:
    """As CloudFront writes it into a URL."""
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.b64encode(text.encode()).decode().translate(str.maketrans("+=/", "-_~"))


def until(end: object) -> dict[str, object]:
    return {"Statement": [{"Resource": "*", "Condition": {"DateLessThan": {"AWS:EpochTime": end}}}]}


@pytest.mark.parametrize(
    ("query", "end"),
    [
        ("X-Xet-Signed-Range=bytes%3D0-1&Expires=1790000000&Policy=x&Signature=s&Key-Pair-Id=K", 1_790_000_000),
        (f"Policy={policy(until(1_790_000_000))}&Signature=s&Key-Pair-Id=K", 1_790_000_000),
        (f"Expires=1790000005&Policy={policy(until(1_790_000_000))}&Signature=s", 1_790_000_000),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261129T021000Z&X-Amz-Expires=3600&X-Amz-Signature=s", 1_795_921_800),
        ("X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Date=20261129T021000Z&X-Goog-Expires=60&X-Goog-Signature=s", 1_795_918_260),
        ("GoogleAccessId=a&Expires=1790000000&Signature=s", 1_790_000_000),
        ("sv=2024-11-04&se=2026-11-29T02%3A10%3A00Z&sp=r&sig=s", 1_795_918_200),
        ("sv=2024-11-04&se=2026-11-29&sp=r&sig=s", 1_795_910_400),
    ],
)
def test_the_end_that_a_url_names(query: str, end: float) -> None:
    assert signed_url_end(f"{HOST}?{query}") == end


@pytest.mark.parametrize(
    "query",
    [
        "",
        "Expires=soon",
        "Expires=-1",
        "Expires=9999999999999",
        "Expires=%D9%A1%D9%A2",
        "X-Amz-Expires=3600",
        "X-Amz-Date=20261129T021000Z",
        "X-Amz-Date=20261399T021000Z&X-Amz-Expires=60",
        "X-Amz-Date=2026-11-29&X-Amz-Expires=60",
        "X-Amz-Date=20261129T021000&X-Amz-Expires=60",
        "se=tomorrow",
        "Policy=%00",
        f"Policy={policy('[1')}",
        f"Policy={policy([1])}",
        f"Policy={policy({'Statement': []})}",
        f"Policy={policy({'Statement': [{}]})}",
        f"Policy={policy(until('1790000000'))}",
        f"Policy={policy(until(1e400))}",
        f"Policy={policy('[' * 20_000)}",
    ],
)
def test_what_names_no_end(query: str) -> None:
    assert signed_url_end(f"{HOST}?{query}") is None


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80),
    st.sampled_from(["Expires", "Policy", "se", "X-Amz-Date"]),
)
def test_no_query_is_too_odd(text: str, name: str) -> None:
    end = signed_url_end(f"{HOST}?{name}={text}&X-Amz-Expires=5")
    assert end is None or isinstance(end, float)


def test_nothing_is_imported_to_read_one() -> None:
    """A daemon whose file descriptors are used up cannot import, and must not fail to read what is next to it for that."""
    program = f"""
import sys
from xetfs.protocol.expiry import signed_url_end
before = set(sys.modules)
print(signed_url_end("{HOST}?X-Amz-Date=20261129T021000Z&X-Amz-Expires=3600&se=2026-11-29&Policy=x"))
print(*set(sys.modules) - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1795910400.0\n\n"
