"""What is known of servers, and for how long."""

from __future__ import annotations

import trio
import trio.testing

from xetfs.cas.facts import FACT_LIFETIME_S, FACTS_MAX, Fact, ServerFacts
from xetfs.net.origins import Origin

HERE = Origin("https", "cas.example", 443)
THERE = Origin("https", "data.example", 443)


async def test_a_fact_holds_of_its_origin_until_it_expires(autojump_clock: trio.testing.MockClock) -> None:
    facts = ServerFacts()
    assert not facts.holds(HERE, Fact.V1_ONLY)
    assert facts.note(HERE, Fact.V1_ONLY)
    assert facts.holds(HERE, Fact.V1_ONLY)
    assert not facts.holds(THERE, Fact.V1_ONLY)
    assert not facts.holds(HERE, Fact.SINGLE_RANGES)
    assert not facts.holds(None, Fact.V1_ONLY)
    await trio.sleep(FACT_LIFETIME_S - 1)
    assert facts.holds(HERE, Fact.V1_ONLY)
    assert not facts.note(HERE, Fact.V1_ONLY), "a confirmation is no news"
    await trio.sleep(FACT_LIFETIME_S - 1)
    assert facts.holds(HERE, Fact.V1_ONLY)
    await trio.sleep(1)
    assert not facts.holds(HERE, Fact.V1_ONLY)
    assert not facts.note(HERE, Fact.V1_ONLY), "nor is one after it expired"


async def test_a_fact_may_have_a_lifetime_of_its_own_and_be_refuted(autojump_clock: trio.testing.MockClock) -> None:
    facts = ServerFacts()
    facts.note(HERE, Fact.REFUSES_URLS, lifetime_s=5)
    await trio.sleep(5)
    assert not facts.holds(HERE, Fact.REFUSES_URLS)
    facts.note(HERE, Fact.SEVERAL_RANGES)
    facts.forget(HERE, Fact.SEVERAL_RANGES)
    facts.forget(HERE, Fact.SINGLE_RANGES)
    assert not facts.holds(HERE, Fact.SEVERAL_RANGES)
    assert facts.note(HERE, Fact.SEVERAL_RANGES), "after a refutation it is news"


async def test_no_more_are_kept_than_is_sensible() -> None:
    facts = ServerFacts()
    origins = [Origin("https", f"host{number}.example", 443) for number in range(FACTS_MAX + 1)]
    for origin in origins:
        facts.note(origin, Fact.HAS_FILES)
    assert not facts.holds(origins[0], Fact.HAS_FILES)
    assert all(facts.holds(origin, Fact.HAS_FILES) for origin in origins[1:])
