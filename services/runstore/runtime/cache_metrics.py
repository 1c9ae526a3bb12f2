"""What the caches of a process do, for Prometheus."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runstore.domain.expiring import cache_figures


class CacheCollector(Collector):
    """Shows the caches of this process, read anew for every scrape."""

    def collect(self) -> Iterator[Metric]:
        """Hits, misses and entries of each."""
        hits = CounterMetricFamily("runstore_cache_hits", "Times that a value was there.", labels=["cache"])
        misses = CounterMetricFamily("runstore_cache_misses", "Times that none was.", labels=["cache"])
        entries = GaugeMetricFamily("runstore_cache_entries", "Values that are kept.", labels=["cache"])
        for name, figures in cache_figures().items():
            hits.add_metric([name], figures.hits)
            misses.add_metric([name], figures.misses)
            entries.add_metric([name], figures.entries)
        yield from (hits, misses, entries)
