CREATE TABLE "shardpact"."run_epochs" (
	"run" text COLLATE "C" NOT NULL,
	"epoch" bigint NOT NULL,
	"dataset" text COLLATE "C" NOT NULL,
	"version" bigint NOT NULL,
	"root" "bytea" NOT NULL,
	"order_spec" json NOT NULL,
	"actor" text COLLATE "C" NOT NULL,
	"index" bigint NOT NULL,
	"time_ms" bigint NOT NULL,
	CONSTRAINT "run_epochs_run_epoch_pk" PRIMARY KEY("run","epoch")
);
--> statement-breakpoint
CREATE INDEX "run_epochs_version" ON "shardpact"."run_epochs" USING btree ("dataset","version");--> statement-breakpoint
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON shardpact.run_epochs
  FOR EACH STATEMENT EXECUTE FUNCTION shardpact.refuse_change();
--> statement-breakpoint
ALTER TABLE shardpact.run_epochs ENABLE ALWAYS TRIGGER append_only;
--> statement-breakpoint
CREATE OR REPLACE VIEW shardpact.v_runs AS
SELECT r.run, r.plan ->> 'dataset' AS dataset, (r.plan ->> 'version')::bigint AS version, r.plan ->> 'root' AS root,
  r.actor, r.index, shardpact.time_of(r.time_ms) AS began_at, r.end_index,
  shardpact.time_of(e.time_ms) AS ended_at, r.outcome, (r.plan ->> 'world')::bigint AS world,
  (r.plan ->> 'batchSize')::bigint AS batch_size, r.plan -> 'order' ->> 'strength' AS order_strength,
  r.plan -> 'order' ->> 'seed' AS seed, r.plan ->> 'selection' AS selection,
  (SELECT count(*) FROM shardpact.receipts c WHERE c.run = r.run) AS receipts, r.meta,
  coalesce((r.plan ->> 'follow')::boolean, false) AS follows
FROM shardpact.runs r
LEFT JOIN shardpact.ledger e ON e.index = r.end_index;
--> statement-breakpoint
CREATE VIEW shardpact.v_run_epochs AS
SELECT e.run, e.epoch, e.dataset, e.version, shardpact.digest_text(e.root) AS root,
  e.version IS DISTINCT FROM lag(e.version) OVER (PARTITION BY e.run ORDER BY e.epoch) AS moved,
  e.order_spec ->> 'strength' AS order_strength, e.actor, e.index, shardpact.time_of(e.time_ms) AS at
FROM shardpact.run_epochs e;
--> statement-breakpoint
COMMENT ON VIEW shardpact.v_run_epochs IS 'Of runs that follow their dataset: the version that all ranks agreed on for each epoch, who came there first, and whether the run moved.';
--> statement-breakpoint
CREATE VIEW shardpact.v_run_versions AS
SELECT r.run, u.dataset, u.version, u.first_epoch, u.index, r.actor, r.end_index
FROM shardpact.runs r
CROSS JOIN LATERAL (
  SELECT r.plan ->> 'dataset' AS dataset, (r.plan ->> 'version')::bigint AS version, NULL::bigint AS first_epoch, r.index
  WHERE NOT EXISTS (SELECT FROM shardpact.run_epochs e WHERE e.run = r.run)
  UNION ALL
  SELECT e.dataset, e.version, min(e.epoch), min(e.index) FROM shardpact.run_epochs e WHERE e.run = r.run
  GROUP BY e.dataset, e.version
) u;
--> statement-breakpoint
COMMENT ON VIEW shardpact.v_run_versions IS 'Every version that a run trains or trained on: one for each run, or as many as a run moved through (from first_epoch on, agreed at index).';
--> statement-breakpoint
CREATE OR REPLACE VIEW shardpact.v_blast_radius AS
SELECT shardpact.digest_text(s.digest) AS digest, s.name AS shard, v.dataset, v.version,
  shardpact.digest_text(v.root) AS root, u.reached_by, u.run, u.actor, u.began_index, u.ended_index,
  s.digest AS digest_bytes
FROM shardpact.shards s
JOIN shardpact.version_pages p ON p.page = s.page
JOIN shardpact.versions v ON v.dataset = p.dataset AND v.version >= p.from_version
  AND (p.until_version IS NULL OR v.version < p.until_version)
LEFT JOIN (
  SELECT 'run' AS reached_by, r.run, r.actor, r.dataset, r.version, r.index AS began_index, r.end_index AS ended_index
  FROM shardpact.v_run_versions r
  UNION ALL
  SELECT 'pin', n.run, n.actor, n.dataset, n.version, n.index, n.released_index FROM shardpact.pins n
) u ON u.dataset = v.dataset AND u.version = v.version;
--> statement-breakpoint
DO $$
DECLARE c record;
BEGIN
  COMMENT ON TABLE shardpact.run_epochs IS 'On which version all ranks of a run that follows its dataset train, epoch by epoch. Append-only.';
  FOR c IN SELECT * FROM (VALUES
    ('run', 'Run id.'),
    ('epoch', 'Epoch, from the one on that the run began with.'),
    ('dataset', 'Dataset name.'),
    ('version', 'Version of this epoch.'),
    ('root', 'Its root.'),
    ('order_spec', 'The order in which its rows are taken.'),
    ('actor', 'Whose rank came to the epoch first.'),
    ('index', 'Log index of run.begin, or of the epoch.cut that fixed it.'),
    ('time_ms', 'Log time, ms since 1970.')
  ) AS v(col, txt) LOOP
    EXECUTE format('COMMENT ON COLUMN shardpact.run_epochs.%I IS %L', c.col, c.txt);
  END LOOP;
END $$;
--> statement-breakpoint
CREATE OR REPLACE PROCEDURE shardpact.grant_roles() LANGUAGE plpgsql AS $$
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
    GRANT INSERT ON shardpact.ledger, shardpact.versions, shardpact.shards, shardpact.tag_moves, shardpact.run_epochs,
      shardpact.receipts,
      shardpact.revocations TO shardpact_runtime;
    GRANT INSERT, UPDATE ON shardpact.replica_state, shardpact.applied_state, shardpact.peers, shardpact.datasets,
      shardpact.version_pages, shardpact.pages, shardpact.tags, shardpact.runs, shardpact.pins, shardpact.leases
      TO shardpact_runtime;
    GRANT INSERT, UPDATE, DELETE ON shardpact.log TO shardpact_runtime;
  END IF;
END $$;
--> statement-breakpoint
CALL shardpact.grant_roles();
