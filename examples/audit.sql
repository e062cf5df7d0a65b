-- What an auditor asks, in plain SQL, of any replica's database:
--   psql "$DATABASE_URL" -f examples/audit.sql
-- The role shardpact_auditor may run all of it and change nothing. Give people logins of their own in it:
--   CREATE ROLE alice LOGIN PASSWORD '…' IN ROLE shardpact_auditor;
--   ALTER ROLE alice SET statement_timeout = '60s';
-- `shardpact audit verify` recomputes what these tables say from the ledger's exact bytes.

-- How far is this replica, and does it still vote? Equal (applied_index, chain) on two replicas is equal history.
SELECT r.group_id, r.replica, r.engine, r.boot, r.epoch, r.last_index, r.voting, r.lost_reason,
  a.applied_index, encode(a.chain, 'hex') AS chain
FROM shardpact.replica_state r, shardpact.applied_state a;

-- Which versions are there, who made them, how large are they, and is one revoked?
SELECT ref, at, actor, shards, rows, pg_size_pretty(bytes) AS size, root, revoked_reason, message
FROM shardpact.v_versions
ORDER BY dataset, version;

-- Who moved the tag 'prod', when, from where to where?
SELECT dataset, tag, from_version, to_version, at, actor, is_current
FROM shardpact.v_tag_history
WHERE tag = 'prod'
ORDER BY index;

-- Where did a tag point on a given day? (The last move before it.)
SELECT DISTINCT ON (dataset, tag) dataset, tag, to_version, at, actor
FROM shardpact.v_tag_history
WHERE at < now()
ORDER BY dataset, tag, index DESC;

-- The shards of one version, in the order in which the manifest holds them.
SELECT name, split, rows, bytes, digest
FROM shardpact.v_shards
WHERE dataset = 'mnist' AND version = 1
ORDER BY page_position, ordinal
LIMIT 20;

-- What changed between two versions?
SELECT change, shard, split, rows, digest, was_digest
FROM shardpact.v_diff('mnist', 1, 2);

-- A shard turned out to be bad: which versions hold it, and which runs and pins used those?
-- (Put the digest that `b3sum` prints in place of the first one below.)
SELECT shard, dataset, version, reached_by, run, actor
FROM shardpact.v_blast_radius
WHERE digest_bytes = (SELECT digest FROM shardpact.shards ORDER BY page, ordinal LIMIT 1)
ORDER BY dataset, version, run;

-- Which runs trained on something that was revoked, before or after they began?
SELECT r.run, r.dataset, r.version, r.first_epoch, v.revoked_index < r.index AS knew, v.revoked_by, v.revoked_reason
FROM shardpact.v_run_versions r
JOIN shardpact.v_versions v USING (dataset, version)
WHERE v.revoked_index IS NOT NULL
ORDER BY r.index;

-- Every run with the exact order that it fixed, and how many receipts its ranks left.
SELECT run, dataset, version, root, world, batch_size, order_strength, seed, began_at, ended_at, outcome, receipts
FROM shardpact.v_runs
ORDER BY index;

-- Runs that follow their dataset: when did which one move to which version, and whose rank came there first?
SELECT run, epoch, dataset, version, root, actor, at
FROM shardpact.v_run_epochs
WHERE moved
ORDER BY run, epoch;

-- Claims that keep a version alive.
SELECT dataset, version, run, actor, at, note
FROM shardpact.v_pins
WHERE active
ORDER BY dataset, version, run;

-- What was refused, and why? A rejection is history like a success.
SELECT index, at, actor, kind, error_code, outcome -> 'error' ->> 'message' AS why
FROM shardpact.v_ledger
WHERE NOT ok
ORDER BY index DESC
LIMIT 20;

-- Commands that arrived more than once: a retry has one effect and gets the first answer.
SELECT l.index, l.at, l.kind, l.retry_of, f.at AS first_at
FROM shardpact.v_ledger l
JOIN shardpact.v_ledger f ON f.index = l.retry_of
ORDER BY l.index;

-- Who does what, day by day?
SELECT date_trunc('day', at) AS day, actor, kind, count(*) AS commands, count(*) FILTER (WHERE NOT ok) AS refused
FROM shardpact.v_ledger
WHERE actor IS NOT NULL
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;

-- The exact command behind an index, as its proposer wrote it.
SELECT index, at, actor, jsonb_pretty(header -> 'body') AS body, outcome
FROM shardpact.v_ledger
WHERE kind = 'version.commit'
ORDER BY index DESC
LIMIT 3;

-- Is the ledger whole? (No row: yes.) Indexes are contiguous from 1.
SELECT index + 1 AS first_missing
FROM (SELECT index, lead(index) OVER (ORDER BY index) AS next FROM shardpact.ledger) gaps
WHERE next <> index + 1;

-- Pages that no version refers to, and until when they are held.
SELECT shardpact.digest_text(p.digest) AS page, p.kind, octet_length(p.bytes) AS bytes, p.actor,
  shardpact.time_of(p.hold_until_ms) AS held_until
FROM shardpact.pages p
WHERE p.kind = 'page' AND NOT EXISTS (SELECT FROM shardpact.version_pages v WHERE v.page = p.digest)
ORDER BY p.put_index;
