-- What people see: append-only guards, comments, views and roles. Nothing here takes part in deciding anything.

CREATE FUNCTION shardpact.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of shardpact.% is refused: its rows are history', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'restrict_violation', HINT = 'What the group agreed on is only ever added to.';
END $$;
--> statement-breakpoint
COMMENT ON FUNCTION shardpact.refuse_change() IS 'Trigger: refuses UPDATE, DELETE and TRUNCATE on append-only tables.';
--> statement-breakpoint
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['ledger', 'versions', 'shards', 'tag_moves', 'receipts', 'revocations'] LOOP
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON shardpact.%I
      FOR EACH STATEMENT EXECUTE FUNCTION shardpact.refuse_change()', t);
    -- ALWAYS: also under session_replication_role = replica.
    EXECUTE format('ALTER TABLE shardpact.%I ENABLE ALWAYS TRIGGER append_only', t);
  END LOOP;
END $$;
--> statement-breakpoint
CREATE FUNCTION shardpact.digest_text(d bytea) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  AS $$ SELECT 'b3:' || encode(d, 'hex') $$;
--> statement-breakpoint
COMMENT ON FUNCTION shardpact.digest_text(bytea) IS 'A BLAKE3 digest as people write it: b3: and 64 hex digits.';
--> statement-breakpoint
CREATE FUNCTION shardpact.time_of(ms bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  AS $$ SELECT to_timestamp(ms / 1000.0) $$;
--> statement-breakpoint
COMMENT ON FUNCTION shardpact.time_of(bigint) IS 'Log time in ms as a timestamp: the leader''s clock when it proposed, never backwards.';
--> statement-breakpoint
CREATE FUNCTION shardpact.command_header(payload bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
  length bigint;
BEGIN
  IF octet_length(payload) < 13 OR get_byte(payload, 0) <> 1 THEN
    RETURN NULL;
  END IF;
  length := get_byte(payload, 9) + get_byte(payload, 10) * 256 + get_byte(payload, 11) * 65536
    + get_byte(payload, 12) * 16777216::bigint;
  IF 13 + length > octet_length(payload) THEN
    RETURN NULL;
  END IF;
  RETURN convert_from(substring(payload FROM 14 FOR length::integer), 'UTF8')::jsonb;
EXCEPTION WHEN others THEN
  RETURN NULL;
END $$;
--> statement-breakpoint
COMMENT ON FUNCTION shardpact.command_header(bytea) IS 'The JSON header (id, actor, kind, body) of a ledger payload; null if the payload is not a command.';
--> statement-breakpoint
CREATE VIEW shardpact.v_ledger AS
SELECT l.index, l.epoch, shardpact.time_of(l.time_ms) AS at, l.kind, l.actor, l.command_id, l.retry_of,
  (l.outcome ->> 'ok')::boolean AS ok, l.outcome -> 'error' ->> 'code' AS error_code, l.outcome,
  CASE WHEN l.kind NOT IN ('noop', 'config') THEN shardpact.command_header(l.payload) END AS header,
  octet_length(l.payload) AS payload_bytes, encode(l.chain, 'hex') AS chain
FROM shardpact.ledger l;
--> statement-breakpoint
COMMENT ON VIEW shardpact.v_ledger IS 'Everything the group ever chose, one row per log index, with the command''s JSON header and its recorded answer.';
--> statement-breakpoint
CREATE VIEW shardpact.v_versions AS
SELECT v.dataset, v.version, v.dataset || '@v' || v.version AS ref, shardpact.digest_text(v.root) AS root,
  v.index, shardpact.time_of(v.time_ms) AS at, v.actor, v.message, v.page_count, t.shards, t.rows, t.bytes, v.splits,
  v.split_rule, shardpact.digest_text(v.schema) AS schema, shardpact.digest_text(v.classes) AS classes,
  d.head_version = v.version AS is_head, r.index AS revoked_index, r.actor AS revoked_by, r.reason AS revoked_reason,
  v.command_id
FROM shardpact.versions v
JOIN shardpact.datasets d ON d.name = v.dataset
CROSS JOIN LATERAL (
  SELECT coalesce(sum((e ->> 'shards')::bigint), 0) AS shards, coalesce(sum((e ->> 'rows')::bigint), 0) AS rows,
    coalesce(sum((e ->> 'bytes')::bigint), 0) AS bytes
  FROM json_array_elements(v.totals) e
) t
LEFT JOIN shardpact.revocations r ON r.subject = v.dataset || '@v' || v.version;
--> statement-breakpoint
COMMENT ON VIEW shardpact.v_versions IS 'Every committed version with its sizes, and its revocation if it has one.';
--> statement-breakpoint
CREATE VIEW shardpact.v_shards AS
SELECT v.dataset, v.version, p.position AS page_position, s.ordinal, s.name, v.splits ->> s.split AS split, s.rows,
  s.bytes, shardpact.digest_text(s.digest) AS digest, shardpact.digest_text(s.segment_index) AS segment_index,
  shardpact.digest_text(s.page) AS page, s.digest AS digest_bytes
FROM shardpact.versions v
JOIN shardpact.version_pages p ON p.dataset = v.dataset AND p.from_version <= v.version
  AND (p.until_version IS NULL OR p.until_version > v.version)
JOIN shardpact.shards s ON s.page = p.page;
--> statement-breakpoint
COMMENT ON VIEW shardpact.v_shards IS 'Every shard of every version, in manifest order by (page_position, ordinal). Filter by dataset and version.';
--> statement-breakpoint
CREATE VIEW shardpact.v_runs AS
SELECT r.run, r.plan ->> 'dataset' AS dataset, (r.plan ->> 'version')::bigint AS version, r.plan ->> 'root' AS root,
  r.actor, r.index, shardpact.time_of(r.time_ms) AS began_at, r.end_index,
  shardpact.time_of(e.time_ms) AS ended_at, r.outcome, (r.plan ->> 'world')::bigint AS world,
  (r.plan ->> 'batchSize')::bigint AS batch_size, r.plan -> 'order' ->> 'strength' AS order_strength,
  r.plan -> 'order' ->> 'seed' AS seed, r.plan ->> 'selection' AS selection,
  (SELECT count(*) FROM shardpact.receipts c WHERE c.run = r.run) AS receipts, r.meta
FROM shardpact.runs r
LEFT JOIN shardpact.ledger e ON e.index = r.end_index;
--> statement-breakpoint
COMMENT ON VIEW shardpact.v_runs IS 'Every training run: the version it fixed, its order and seed, and how it ended.';
--> statement-breakpoint
CREATE VIEW shardpact.v_pins AS
SELECT p.dataset, p.run, p.version, shardpact.digest_text(p.root) AS root, p.note, p.actor, p.index,
  shardpact.time_of(p.time_ms) AS at, p.released_index, p.released_index IS NULL AS active
FROM shardpact.pins p;
--> statement-breakpoint
COMMENT ON VIEW shardpact.v_pins IS 'Claims of runs on versions, one row for each time that a claim was taken; a released one stays.';
--> statement-breakpoint
CREATE VIEW shardpact.v_tag_history AS
SELECT m.dataset, m.tag, m.from_version, m.to_version, m.index, shardpact.time_of(m.time_ms) AS at, m.actor,
  t.index = m.index AS is_current
FROM shardpact.tag_moves m
LEFT JOIN shardpact.tags t ON t.dataset = m.dataset AND t.tag = m.tag;
--> statement-breakpoint
COMMENT ON VIEW shardpact.v_tag_history IS 'Every move of every tag, with who and when.';
--> statement-breakpoint
CREATE VIEW shardpact.v_blast_radius AS
SELECT shardpact.digest_text(s.digest) AS digest, s.name AS shard, v.dataset, v.version,
  shardpact.digest_text(v.root) AS root, u.reached_by, u.run, u.actor, u.began_index, u.ended_index,
  s.digest AS digest_bytes
FROM shardpact.shards s
JOIN shardpact.version_pages p ON p.page = s.page
JOIN shardpact.versions v ON v.dataset = p.dataset AND v.version >= p.from_version
  AND (p.until_version IS NULL OR v.version < p.until_version)
LEFT JOIN (
  SELECT 'run' AS reached_by, r.run, r.actor, r.plan ->> 'dataset' AS dataset, (r.plan ->> 'version')::bigint AS version,
    r.index AS began_index, r.end_index AS ended_index
  FROM shardpact.runs r
  UNION ALL
  SELECT 'pin', n.run, n.actor, n.dataset, n.version, n.index, n.released_index FROM shardpact.pins n
) u ON u.dataset = v.dataset AND u.version = v.version;
--> statement-breakpoint
COMMENT ON VIEW shardpact.v_blast_radius IS 'From a shard to every version that holds it, and to every run and pin of those versions (null: none). Filter by digest_bytes, which is indexed.';
--> statement-breakpoint
CREATE FUNCTION shardpact.v_diff(of_dataset text, a bigint, b bigint)
RETURNS TABLE (change text, shard text, split text, rows bigint, bytes bigint, digest text, was_digest text)
LANGUAGE sql STABLE AS $$
  WITH pages_a AS (
    SELECT p.page FROM shardpact.version_pages p
    WHERE p.dataset = of_dataset AND p.from_version <= a AND (p.until_version IS NULL OR p.until_version > a)
  ), pages_b AS (
    SELECT p.page FROM shardpact.version_pages p
    WHERE p.dataset = of_dataset AND p.from_version <= b AND (p.until_version IS NULL OR p.until_version > b)
  ), shards_a AS (
    SELECT s.*, v.splits ->> s.split AS split_name
    FROM (SELECT page FROM pages_a EXCEPT SELECT page FROM pages_b) p
    JOIN shardpact.shards s ON s.page = p.page
    JOIN shardpact.versions v ON v.dataset = of_dataset AND v.version = a
  ), shards_b AS (
    SELECT s.*, v.splits ->> s.split AS split_name
    FROM (SELECT page FROM pages_b EXCEPT SELECT page FROM pages_a) p
    JOIN shardpact.shards s ON s.page = p.page
    JOIN shardpact.versions v ON v.dataset = of_dataset AND v.version = b
  )
  SELECT CASE WHEN x.name IS NULL THEN 'added' WHEN y.name IS NULL THEN 'removed' ELSE 'changed' END,
    coalesce(y.name, x.name), coalesce(y.split_name, x.split_name), coalesce(y.rows, x.rows),
    coalesce(y.bytes, x.bytes), shardpact.digest_text(coalesce(y.digest, x.digest)), shardpact.digest_text(x.digest)
  FROM shards_a x
  FULL JOIN shards_b y ON y.name = x.name
  WHERE x.name IS NULL OR y.name IS NULL OR x.digest <> y.digest OR x.split_name IS DISTINCT FROM y.split_name
  ORDER BY 2
$$;
--> statement-breakpoint
COMMENT ON FUNCTION shardpact.v_diff(text, bigint, bigint) IS 'Shards added, removed and changed from version a to version b of a dataset. Reads only the pages that differ.';
--> statement-breakpoint
COMMENT ON SCHEMA shardpact IS 'One replica of a Shardpact group: its consensus log, and the catalog of dataset versions that the log leads to.';
--> statement-breakpoint
DO $$
DECLARE c record;
BEGIN
  FOR c IN SELECT * FROM (VALUES
    ('replica_state', '', 'One row: who this replica is, what it promised, where its log ends. Rewritten by every append.'),
    ('replica_state', 'only', 'Always true: there is one row.'),
    ('replica_state', 'group_id', 'Digest of the group''s first configuration.'),
    ('replica_state', 'replica', 'Name of this replica in the group.'),
    ('replica_state', 'engine', 'raft or paxos; fixed when the group was made.'),
    ('replica_state', 'incarnation', 'UUID made with this database: a replica with a new database is somebody else.'),
    ('replica_state', 'system_id', 'Identifier and timeline of the Postgres cluster: a change means a restore or a failover, and lost promises.'),
    ('replica_state', 'boot', 'Rises at every start and reconnect; a write under a lower boot is refused.'),
    ('replica_state', 'epoch', 'Raft: current term. Paxos: promised ballot.'),
    ('replica_state', 'voted_for', 'Whom this replica voted for in epoch.'),
    ('replica_state', 'first_index', 'First index the log holds.'),
    ('replica_state', 'last_index', 'Last index the log holds. A missing row at or below it is damage, not absence.'),
    ('replica_state', 'last_hash', 'Checksum of the entry at last_index.'),
    ('replica_state', 'voting', 'False: this incarnation has lost promises and never votes again.'),
    ('replica_state', 'lost_reason', 'Why voting is false.'),
    ('applied_state', '', 'One row: how far the log is applied to the tables. Rewritten by every apply, in the same transaction.'),
    ('applied_state', 'only', 'Always true: there is one row.'),
    ('applied_state', 'boot', 'As in replica_state.'),
    ('applied_state', 'applied_index', 'Every index up to here is in the tables.'),
    ('applied_state', 'chain', 'Chain value after applied_index; equal on every replica.'),
    ('applied_state', 'state_digest', 'Chain over the row changes of every apply; equal on every replica.'),
    ('applied_state', 'log_time_ms', 'Log time: highest leader time so far, ms since 1970.'),
    ('log', '', 'The consensus log: entries received, chosen or not yet.'),
    ('log', 'index', '1-based position.'),
    ('log', 'epoch', 'Term or ballot under which the entry was proposed.'),
    ('log', 'kind', 'noop, config or command.'),
    ('log', 'payload', 'Exact bytes that the group orders.'),
    ('log', 'checksum', 'BLAKE3 of index, epoch, kind and payload, first 16 bytes: finds damage at rest.'),
    ('peers', '', 'Highest identity seen of each peer.'),
    ('peers', 'peer', 'Replica name.'),
    ('peers', 'incarnation', 'Its database''s UUID.'),
    ('peers', 'boot', 'Its highest boot; messages of lower ones are refused.'),
    ('ledger', '', 'What the group chose: one row per log index, for ever. Append-only.'),
    ('ledger', 'index', 'Log index.'),
    ('ledger', 'epoch', 'Term or ballot of the entry.'),
    ('ledger', 'time_ms', 'Log time at this index, ms since 1970.'),
    ('ledger', 'kind', 'Command kind, noop, config, or invalid for a payload that is not a command.'),
    ('ledger', 'actor', 'Who proposed the command; null for noop and config.'),
    ('ledger', 'command_id', 'The client''s id of the command: applied once. Null for a retry.'),
    ('ledger', 'retry_of', 'For a retry: index where the command id was applied first.'),
    ('ledger', 'body_digest', 'Digest of header and blob: tells a retry from another command under the same id.'),
    ('ledger', 'payload', 'Exact bytes: u8 version, u64le leader ms, u32le header length, JSON header, blob.'),
    ('ledger', 'outcome', 'Recorded answer: {ok: true, result} or {ok: false, error}.'),
    ('ledger', 'chain', 'BLAKE3 derive_key over previous chain, index, kind and payload.'),
    ('datasets', '', 'Names of datasets and their heads.'),
    ('datasets', 'name', 'Dataset name.'),
    ('datasets', 'head_version', 'Highest committed version, revoked or not.'),
    ('datasets', 'head_index', 'Log index of the head''s commit.'),
    ('datasets', 'head_root', 'Root digest of the head.'),
    ('datasets', 'created_index', 'Log index of the first version.'),
    ('versions', '', 'Committed versions: immutable, identified by root. Append-only.'),
    ('versions', 'dataset', 'Dataset name.'),
    ('versions', 'version', '1, 2, 3, …'),
    ('versions', 'index', 'Log index of the commit.'),
    ('versions', 'time_ms', 'Log time of the commit, ms since 1970.'),
    ('versions', 'actor', 'Who committed it.'),
    ('versions', 'command_id', 'Command that committed it.'),
    ('versions', 'root', 'Digest over schema, classes, splits, page tree and totals.'),
    ('versions', 'tree_hash', 'RFC 9162 shaped tree hash over the manifest''s pages.'),
    ('versions', 'page_count', 'Pages in the manifest.'),
    ('versions', 'kept', 'Leading pages kept from the version before.'),
    ('versions', 'schema', 'Digest of the canonical schema (pages, kind schema).'),
    ('versions', 'classes', 'Digest of the class vocabularies (pages, kind classes).'),
    ('versions', 'splits', 'Split names; shards and totals refer to them by position.'),
    ('versions', 'totals', 'Rows, bytes and shards per split.'),
    ('versions', 'split_rule', 'How the splits were cut.'),
    ('versions', 'message', 'What the publisher wrote.'),
    ('versions', 'frontier', 'Perfect-subtree hashes of the tree over all pages, 32 bytes each, largest first: an append needs no other page.'),
    ('version_pages', '', 'Which page stands at which place of which versions.'),
    ('version_pages', 'dataset', 'Dataset name.'),
    ('version_pages', 'position', '0-based place in the manifest.'),
    ('version_pages', 'from_version', 'First version that has it there.'),
    ('version_pages', 'until_version', 'First version that no longer has it there; null: the head still does.'),
    ('version_pages', 'page', 'Page digest.'),
    ('version_pages', 'totals', 'Rows, bytes and shards of the page per split position; covered by the root.'),
    ('version_pages', 'frontier_before', 'Perfect-subtree hashes of the tree over the pages before this position, 32 bytes each.'),
    ('pages', '', 'Content-addressed objects: manifest pages, schemas, class vocabularies.'),
    ('pages', 'digest', 'Digest of bytes under the context of its kind.'),
    ('pages', 'kind', 'page, schema or classes.'),
    ('pages', 'bytes', 'The object.'),
    ('pages', 'totals', 'Pages: rows, bytes and shards per split position.'),
    ('pages', 'put_index', 'Log index of the put.'),
    ('pages', 'actor', 'Who put it.'),
    ('pages', 'hold_until_ms', 'Log time until which it is kept without a version that refers to it.'),
    ('shards', '', 'Shard entries, written once with their page. Append-only.'),
    ('shards', 'page', 'Page digest.'),
    ('shards', 'ordinal', '0-based place in the page.'),
    ('shards', 'name', 'File name, NFC.'),
    ('shards', 'split', 'Position in the version''s split names.'),
    ('shards', 'rows', 'Rows in the shard.'),
    ('shards', 'bytes', 'Size of the file.'),
    ('shards', 'digest', 'BLAKE3 of the whole file, as b3sum prints it.'),
    ('shards', 'segment_index', 'Digest of the shard''s segment index.'),
    ('tags', '', 'Where each tag points now.'),
    ('tags', 'dataset', 'Dataset name.'),
    ('tags', 'tag', 'Tag name.'),
    ('tags', 'version', 'Version it points at.'),
    ('tags', 'index', 'Log index of its last move.'),
    ('tag_moves', '', 'Every move of every tag. Append-only.'),
    ('tag_moves', 'dataset', 'Dataset name.'),
    ('tag_moves', 'tag', 'Tag name.'),
    ('tag_moves', 'index', 'Log index of the move.'),
    ('tag_moves', 'time_ms', 'Log time, ms since 1970.'),
    ('tag_moves', 'actor', 'Who moved it.'),
    ('tag_moves', 'from_version', 'Where it pointed; null: it was new.'),
    ('tag_moves', 'to_version', 'Where it points since.'),
    ('runs', '', 'Training runs and the plan that each fixed for all its ranks.'),
    ('runs', 'run', 'Run id.'),
    ('runs', 'plan', 'Dataset, version, root, selection, order, world, batch size, last-step rule.'),
    ('runs', 'meta', 'What the training script told about itself.'),
    ('runs', 'actor', 'Who began it.'),
    ('runs', 'index', 'Log index of run.begin.'),
    ('runs', 'time_ms', 'Log time of run.begin, ms since 1970.'),
    ('runs', 'end_index', 'Log index of run.end; null: not ended.'),
    ('runs', 'outcome', 'done, failed or stopped.'),
    ('pins', '', 'Claims of runs on versions.'),
    ('pins', 'dataset', 'Dataset name.'),
    ('pins', 'run', 'Run id.'),
    ('pins', 'version', 'Pinned version.'),
    ('pins', 'root', 'Its root.'),
    ('pins', 'note', 'What the experimenter wrote.'),
    ('pins', 'actor', 'Who pinned.'),
    ('pins', 'index', 'Log index of the pin.'),
    ('pins', 'time_ms', 'Log time, ms since 1970.'),
    ('pins', 'released_index', 'Log index of the release; null: active.'),
    ('receipts', '', 'What a run''s rank says it consumed. Append-only.'),
    ('receipts', 'run', 'Run id.'),
    ('receipts', 'rank', 'Rank of the reporting process.'),
    ('receipts', 'index', 'Log index.'),
    ('receipts', 'time_ms', 'Log time, ms since 1970.'),
    ('receipts', 'receipt', 'The receipt.'),
    ('revocations', '', 'Revoked versions and shards. Append-only.'),
    ('revocations', 'subject', 'dataset@vN, or b3:… of a shard file.'),
    ('revocations', 'index', 'Log index.'),
    ('revocations', 'time_ms', 'Log time, ms since 1970.'),
    ('revocations', 'actor', 'Who revoked.'),
    ('revocations', 'reason', 'Why.'),
    ('leases', '', 'Readers that may still be reading a version.'),
    ('leases', 'dataset', 'Dataset name.'),
    ('leases', 'version', 'Version.'),
    ('leases', 'run', 'Run id.'),
    ('leases', 'until_ms', 'Log time at which the lease ends.'),
    ('leases', 'index', 'Log index of the last renewal.')
  ) AS v(tab, col, txt) LOOP
    IF c.col = '' THEN
      EXECUTE format('COMMENT ON TABLE shardpact.%I IS %L', c.tab, c.txt);
    ELSE
      EXECUTE format('COMMENT ON COLUMN shardpact.%I.%I IS %L', c.tab, c.col, c.txt);
    END IF;
  END LOOP;
END $$;
--> statement-breakpoint
-- Roles live in the whole Postgres cluster: other databases may make the same ones at the same moment, and the
-- migrating role may not be allowed to. Neither stops a migration; an administrator can make them later and CALL this.
CREATE PROCEDURE shardpact.grant_roles() LANGUAGE plpgsql AS $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['shardpact_auditor', 'shardpact_runtime'] LOOP
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        IF wanted = 'shardpact_auditor' THEN
          ALTER ROLE shardpact_auditor SET statement_timeout = '60s';
          ALTER ROLE shardpact_auditor SET default_transaction_read_only = on;
        END IF;
      END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege OR internal_error THEN
      RAISE NOTICE 'role % was not made: %', wanted, SQLERRM;
    END;
  END LOOP;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'shardpact_auditor') THEN
    GRANT USAGE ON SCHEMA shardpact TO shardpact_auditor;
    GRANT SELECT ON ALL TABLES IN SCHEMA shardpact TO shardpact_auditor;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'shardpact_runtime') THEN
    GRANT USAGE ON SCHEMA shardpact TO shardpact_runtime;
    GRANT SELECT ON ALL TABLES IN SCHEMA shardpact TO shardpact_runtime;
    GRANT INSERT ON shardpact.ledger, shardpact.versions, shardpact.shards, shardpact.tag_moves, shardpact.receipts,
      shardpact.revocations TO shardpact_runtime;
    GRANT INSERT, UPDATE ON shardpact.replica_state, shardpact.applied_state, shardpact.peers, shardpact.datasets,
      shardpact.version_pages, shardpact.pages, shardpact.tags, shardpact.runs, shardpact.pins, shardpact.leases
      TO shardpact_runtime;
    GRANT INSERT, UPDATE, DELETE ON shardpact.log TO shardpact_runtime;
  END IF;
END $$;
--> statement-breakpoint
COMMENT ON PROCEDURE shardpact.grant_roles() IS 'Makes shardpact_auditor (reads) and shardpact_runtime (what a replica needs, owns nothing, only adds to the ledger), where permitted, and grants. Settings of a group role don''t reach its members: give each auditor''s login role statement_timeout too.';
--> statement-breakpoint
CALL shardpact.grant_roles();
