"""The cache: bounded, forgetful, and never filled with what was outdated before it arrived."""

from runstore.domain.expiring import CacheFigures, ExpiringMap, cache_figures


def test_entry_expires(clock) -> None:
    """A value is returned until its time to live has passed, not after."""
    cache: ExpiringMap[str, int] = ExpiringMap(clock, max_entries=2, ttl_s=5)
    cache.put("a", 1, cache.ticket())
    clock.advance(4.999)
    assert cache.get("a") == 1
    clock.advance(0.001)
    assert cache.get("a") is None


def test_oldest_entry_makes_room(clock) -> None:
    """The bound holds; putting a key again makes it the newest."""
    cache: ExpiringMap[str, int] = ExpiringMap(clock, max_entries=2, ttl_s=5)
    for key in ("a", "b", "a", "c"):
        cache.put(key, 1, cache.ticket())
    assert [key for key in "abc" if cache.get(key)] == ["a", "c"]


def test_value_read_before_a_change_is_not_kept(clock) -> None:
    """A reader that was overtaken by a deletion cannot bring the deleted back."""
    cache: ExpiringMap[str, int] = ExpiringMap(clock, max_entries=2, ttl_s=5)
    ticket = cache.ticket()
    cache.forget("a")
    cache.put("a", 1, ticket)
    assert cache.get("a") is None


def test_figures_are_of_all_maps_of_a_name(clock) -> None:
    """Hits, misses and entries add up; what has expired is a miss, and maps without a name are not shown."""
    maps: list[ExpiringMap[str, int]] = [
        ExpiringMap(clock, max_entries=2, ttl_s=5, name="of this test") for _ in range(2)
    ]
    for each in maps:
        each.put("a", 1, each.ticket())
        each.get("a")
    maps[0].get("b")
    clock.advance(5)
    maps[1].get("a")
    assert cache_figures()["of this test"] == CacheFigures(hits=2, misses=2, entries=1)
    assert "" not in cache_figures()
