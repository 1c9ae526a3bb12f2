-- 1: first tables
CREATE TABLE IF NOT EXISTS runs (`tenant_id` UUID, `project_id` UUID, `start_time` DateTime64(6, 'UTC'), `run_id` UUID, `seq` UInt64, `present` UInt32, `trace_id` UUID, `dotted_order` String CODEC(ZSTD(1)), `parent_run_ids` Array(UUID), `name` String CODEC(ZSTD(1)), `run_type` LowCardinality(String), `end_time` DateTime64(6, 'UTC'), `first_token_time` DateTime64(6, 'UTC'), `tags` Array(String), `metadata` Map(LowCardinality(String), String) CODEC(ZSTD(1)), `thread_id` String CODEC(ZSTD(1)), `thread_rank` UInt8, `ls_user_id` String CODEC(ZSTD(1)), `reference_example_id` UUID, `usage_rank` UInt8, `prompt_tokens` Int64, `completion_tokens` Int64, `total_tokens` Int64, `prompt_token_details` Map(LowCardinality(String), Int64) CODEC(ZSTD(1)), `completion_token_details` Map(LowCardinality(String), Int64) CODEC(ZSTD(1)), `is_cost_told` Bool, `prompt_cost` Nullable(Decimal(38, 18)), `completion_cost` Nullable(Decimal(38, 18)), `total_cost` Nullable(Decimal(38, 18)), `prompt_cost_details` Map(LowCardinality(String), Decimal(38, 18)) CODEC(ZSTD(1)), `completion_cost_details` Map(LowCardinality(String), Decimal(38, 18)) CODEC(ZSTD(1)), `price_model_id` UUID, INDEX by_reference_example reference_example_id TYPE bloom_filter(0.01) GRANULARITY 4) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(start_time) ORDER BY (tenant_id, project_id, start_time, run_id, seq, present) SETTINGS index_granularity = 2048, fsync_after_insert = 1, fsync_part_directory = 1
CREATE TABLE IF NOT EXISTS run_payloads (`tenant_id` UUID, `project_id` UUID, `start_time` DateTime64(6, 'UTC'), `run_id` UUID, `seq` UInt64, `present` UInt32, `inputs` String CODEC(ZSTD(1)), `outputs` String CODEC(ZSTD(1)), `error` String CODEC(ZSTD(1)), `events` String CODEC(ZSTD(1)), `extra` String CODEC(ZSTD(1)), `manifest` String CODEC(ZSTD(1)), blob_keys Array(String) MATERIALIZED arrayMap(column -> substring(column, 2, position(column, ' ') - 2), arrayFilter(column -> startsWith(column, '\0'), [substring(inputs, 1, 256), substring(outputs, 1, 256), substring(events, 1, 256), substring(manifest, 1, 256)])), INDEX inputs_words inputs TYPE text(tokenizer = 'splitByNonAlpha', preprocessor = lower(inputs)), INDEX outputs_words outputs TYPE text(tokenizer = 'splitByNonAlpha', preprocessor = lower(outputs))) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(start_time) ORDER BY (tenant_id, project_id, start_time, run_id, seq, present) SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1
CREATE TABLE IF NOT EXISTS run_attachments (tenant_id UUID, project_id UUID, start_time DateTime64(6, 'UTC'), run_id UUID, name String, seq UInt64, mime_type String, content String CODEC(ZSTD(1)), blob_key String, size_bytes UInt64) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(start_time) ORDER BY (tenant_id, project_id, start_time, run_id, name, seq) SETTINGS index_granularity = 64, fsync_after_insert = 1, fsync_part_directory = 1
CREATE TABLE IF NOT EXISTS run_keys (tenant_id UUID, run_id UUID, project_id UUID, start_time DateTime64(6, 'UTC'), seq UInt64, gone Bool) ENGINE = ReplacingMergeTree ORDER BY (tenant_id, run_id, project_id, start_time, seq, gone) SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1
CREATE MATERIALIZED VIEW IF NOT EXISTS run_keys_feed TO run_keys AS SELECT tenant_id, run_id, project_id, start_time, seq, bitAnd(present, 2147483648) != 0 AS gone FROM runs
CREATE TABLE IF NOT EXISTS trace_keys (tenant_id UUID, trace_id UUID, project_id UUID, first_start SimpleAggregateFunction(min, DateTime64(6, 'UTC')), last_start SimpleAggregateFunction(max, DateTime64(6, 'UTC'))) ENGINE = AggregatingMergeTree ORDER BY (tenant_id, trace_id, project_id) SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1
CREATE MATERIALIZED VIEW IF NOT EXISTS trace_keys_feed TO trace_keys AS SELECT tenant_id, trace_id, project_id, min(start_time) AS first_start, max(start_time) AS last_start FROM runs GROUP BY tenant_id, trace_id, project_id
CREATE TABLE IF NOT EXISTS model_prices (price_model_id UUID, prompt_prices Map(String, Decimal(38, 18)), completion_prices Map(String, Decimal(38, 18))) ENGINE = ReplacingMergeTree ORDER BY price_model_id SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
CREATE TABLE IF NOT EXISTS parked_operations (tenant_id UUID, awaited_run_id UUID, run_id UUID, seq UInt64, done Bool, operation String CODEC(ZSTD(1))) ENGINE = ReplacingMergeTree ORDER BY (tenant_id, awaited_run_id, seq, run_id, done) SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
CREATE TABLE IF NOT EXISTS dead_letters (tenant_id UUID, run_id UUID, seq UInt64, reason String, operation String CODEC(ZSTD(1))) ENGINE = ReplacingMergeTree ORDER BY (tenant_id, seq, run_id) SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
-- 2: burials
ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS burial UUID, ADD COLUMN IF NOT EXISTS buried_at DateTime64(6, 'UTC')
-- 3: wider merges
ALTER TABLE runs MODIFY SETTING merge_selector_base = 16
ALTER TABLE run_payloads MODIFY SETTING merge_selector_base = 16
ALTER TABLE run_keys MODIFY SETTING merge_selector_base = 16
ALTER TABLE trace_keys MODIFY SETTING merge_selector_base = 16
-- 4: feedback
CREATE TABLE IF NOT EXISTS feedback (tenant_id UUID, run_id UUID, feedback_id UUID, seq UInt64, present UInt32, project_id UUID, trace_id UUID, key LowCardinality(String), score Nullable(Float64), value String CODEC(ZSTD(1)), comment Nullable(String) CODEC(ZSTD(1)), correction String CODEC(ZSTD(1)), error Bool, source_type LowCardinality(String), source_user_id String CODEC(ZSTD(1)), source_user_name String CODEC(ZSTD(1)), source_metadata String CODEC(ZSTD(1)), extra String CODEC(ZSTD(1)), comparative_experiment_id UUID, feedback_group_id UUID, run_start_time DateTime64(6, 'UTC'), created_at DateTime64(6, 'UTC'), modified_at DateTime64(6, 'UTC')) ENGINE = ReplacingMergeTree ORDER BY (tenant_id, run_id, feedback_id, seq, present) SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1
CREATE TABLE IF NOT EXISTS feedback_keys (tenant_id UUID, feedback_id UUID, run_id UUID, seq SimpleAggregateFunction(max, UInt64)) ENGINE = AggregatingMergeTree ORDER BY (tenant_id, feedback_id, run_id) SETTINGS index_granularity = 512, fsync_after_insert = 1, fsync_part_directory = 1
CREATE MATERIALIZED VIEW IF NOT EXISTS feedback_keys_feed TO feedback_keys AS SELECT tenant_id, feedback_id, run_id, max(seq) AS seq FROM feedback WHERE bitAnd(present, 1) != 0 GROUP BY tenant_id, feedback_id, run_id
-- 5: indexes for filters
ALTER TABLE runs ADD INDEX IF NOT EXISTS by_tag tags TYPE text(tokenizer = 'array')
ALTER TABLE runs MATERIALIZE INDEX by_tag
ALTER TABLE runs ADD INDEX IF NOT EXISTS by_metadata arrayConcat(mapKeys(metadata), arrayMap((key, value) -> concat(key, '=', substringUTF8(value, 1, 64)), mapKeys(metadata), mapValues(metadata))) TYPE text(tokenizer = 'array')
ALTER TABLE runs MATERIALIZE INDEX by_metadata
ALTER TABLE runs ADD INDEX IF NOT EXISTS by_thread thread_id TYPE bloom_filter(0.01) GRANULARITY 1
ALTER TABLE runs MATERIALIZE INDEX by_thread
ALTER TABLE run_payloads DROP INDEX IF EXISTS inputs_words, DROP INDEX IF EXISTS outputs_words
ALTER TABLE run_payloads ADD INDEX IF NOT EXISTS by_inputs_words lower(inputs) TYPE text(tokenizer = 'splitByNonAlpha')
ALTER TABLE run_payloads MATERIALIZE INDEX by_inputs_words
ALTER TABLE run_payloads ADD INDEX IF NOT EXISTS by_outputs_words lower(outputs) TYPE text(tokenizer = 'splitByNonAlpha')
ALTER TABLE run_payloads MATERIALIZE INDEX by_outputs_words
-- 6: deletions
CREATE TABLE IF NOT EXISTS deleted_runs (tenant_id UUID, seq UInt64, run_id UUID) ENGINE = ReplacingMergeTree ORDER BY (tenant_id, seq, run_id) SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
-- 7: index on traces
ALTER TABLE runs ADD INDEX IF NOT EXISTS by_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1
ALTER TABLE runs MATERIALIZE INDEX by_trace
-- 8: kept traces
ALTER TABLE trace_keys ADD COLUMN IF NOT EXISTS kept SimpleAggregateFunction(max, UInt8)
