CREATE SCHEMA IF NOT EXISTS "shardpact";
--> statement-breakpoint
CREATE TABLE "shardpact"."applied_state" (
	"only" boolean PRIMARY KEY NOT NULL,
	"boot" bigint NOT NULL,
	"applied_index" bigint NOT NULL,
	"chain" bytea NOT NULL,
	"state_digest" bytea NOT NULL,
	"log_time_ms" bigint NOT NULL,
	CONSTRAINT "applied_state_only" CHECK ("only")
);
--> statement-breakpoint
CREATE TABLE "shardpact"."datasets" (
	"name" text COLLATE "C" PRIMARY KEY NOT NULL,
	"head_version" bigint NOT NULL,
	"head_index" bigint NOT NULL,
	"head_root" bytea NOT NULL,
	"created_index" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "shardpact"."leases" (
	"dataset" text COLLATE "C" NOT NULL,
	"version" bigint NOT NULL,
	"run" text COLLATE "C" NOT NULL,
	"until_ms" bigint NOT NULL,
	"index" bigint NOT NULL,
	CONSTRAINT "leases_dataset_version_run_pk" PRIMARY KEY("dataset","version","run")
);
--> statement-breakpoint
CREATE TABLE "shardpact"."ledger" (
	"index" bigint PRIMARY KEY NOT NULL,
	"epoch" bigint NOT NULL,
	"time_ms" bigint NOT NULL,
	"kind" text COLLATE "C" NOT NULL,
	"actor" text COLLATE "C",
	"command_id" text COLLATE "C",
	"retry_of" bigint,
	"body_digest" bytea,
	"payload" bytea NOT NULL,
	"outcome" json NOT NULL,
	"chain" bytea NOT NULL
);
--> statement-breakpoint
CREATE TABLE "shardpact"."log" (
	"index" bigint PRIMARY KEY NOT NULL,
	"epoch" bigint NOT NULL,
	"kind" text COLLATE "C" NOT NULL,
	"payload" bytea NOT NULL,
	"checksum" bytea NOT NULL
);
--> statement-breakpoint
CREATE TABLE "shardpact"."pages" (
	"digest" bytea PRIMARY KEY NOT NULL,
	"kind" text COLLATE "C" NOT NULL,
	"bytes" bytea NOT NULL,
	"totals" json NOT NULL,
	"put_index" bigint NOT NULL,
	"actor" text COLLATE "C" NOT NULL,
	"hold_until_ms" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "shardpact"."peers" (
	"peer" text COLLATE "C" PRIMARY KEY NOT NULL,
	"incarnation" text COLLATE "C" NOT NULL,
	"boot" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "shardpact"."pins" (
	"dataset" text COLLATE "C" NOT NULL,
	"run" text COLLATE "C" NOT NULL,
	"version" bigint NOT NULL,
	"root" bytea NOT NULL,
	"note" text COLLATE "C" NOT NULL,
	"actor" text COLLATE "C" NOT NULL,
	"index" bigint NOT NULL,
	"time_ms" bigint NOT NULL,
	"released_index" bigint,
	CONSTRAINT "pins_dataset_run_index_pk" PRIMARY KEY("dataset","run","index")
);
--> statement-breakpoint
CREATE TABLE "shardpact"."receipts" (
	"run" text COLLATE "C" NOT NULL,
	"rank" integer NOT NULL,
	"index" bigint NOT NULL,
	"time_ms" bigint NOT NULL,
	"receipt" json NOT NULL,
	CONSTRAINT "receipts_run_rank_index_pk" PRIMARY KEY("run","rank","index")
);
--> statement-breakpoint
CREATE TABLE "shardpact"."replica_state" (
	"only" boolean PRIMARY KEY NOT NULL,
	"group_id" text COLLATE "C" NOT NULL,
	"replica" text COLLATE "C" NOT NULL,
	"engine" text COLLATE "C" NOT NULL,
	"incarnation" text COLLATE "C" NOT NULL,
	"system_id" text COLLATE "C" NOT NULL,
	"boot" bigint NOT NULL,
	"epoch" bigint NOT NULL,
	"voted_for" text COLLATE "C",
	"first_index" bigint NOT NULL,
	"last_index" bigint NOT NULL,
	"last_hash" bytea,
	"voting" boolean NOT NULL,
	"lost_reason" text COLLATE "C",
	CONSTRAINT "replica_state_only" CHECK ("only")
);
--> statement-breakpoint
CREATE TABLE "shardpact"."revocations" (
	"subject" text COLLATE "C" PRIMARY KEY NOT NULL,
	"index" bigint NOT NULL,
	"time_ms" bigint NOT NULL,
	"actor" text COLLATE "C" NOT NULL,
	"reason" text COLLATE "C" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "shardpact"."runs" (
	"run" text COLLATE "C" PRIMARY KEY NOT NULL,
	"plan" json NOT NULL,
	"meta" json NOT NULL,
	"actor" text COLLATE "C" NOT NULL,
	"index" bigint NOT NULL,
	"time_ms" bigint NOT NULL,
	"end_index" bigint,
	"outcome" text COLLATE "C"
);
--> statement-breakpoint
CREATE TABLE "shardpact"."shards" (
	"page" bytea NOT NULL,
	"ordinal" integer NOT NULL,
	"name" text COLLATE "C" NOT NULL,
	"split" integer NOT NULL,
	"rows" bigint NOT NULL,
	"bytes" bigint NOT NULL,
	"digest" bytea NOT NULL,
	"segment_index" bytea NOT NULL,
	CONSTRAINT "shards_page_ordinal_pk" PRIMARY KEY("page","ordinal")
);
--> statement-breakpoint
CREATE TABLE "shardpact"."tag_moves" (
	"dataset" text COLLATE "C" NOT NULL,
	"tag" text COLLATE "C" NOT NULL,
	"index" bigint NOT NULL,
	"time_ms" bigint NOT NULL,
	"actor" text COLLATE "C" NOT NULL,
	"from_version" bigint,
	"to_version" bigint NOT NULL,
	CONSTRAINT "tag_moves_dataset_tag_index_pk" PRIMARY KEY("dataset","tag","index")
);
--> statement-breakpoint
CREATE TABLE "shardpact"."tags" (
	"dataset" text COLLATE "C" NOT NULL,
	"tag" text COLLATE "C" NOT NULL,
	"version" bigint NOT NULL,
	"index" bigint NOT NULL,
	CONSTRAINT "tags_dataset_tag_pk" PRIMARY KEY("dataset","tag")
);
--> statement-breakpoint
CREATE TABLE "shardpact"."version_pages" (
	"dataset" text COLLATE "C" NOT NULL,
	"position" bigint NOT NULL,
	"from_version" bigint NOT NULL,
	"until_version" bigint,
	"page" bytea NOT NULL,
	"totals" json NOT NULL,
	"frontier_before" bytea NOT NULL,
	CONSTRAINT "version_pages_dataset_position_from_version_pk" PRIMARY KEY("dataset","position","from_version")
);
--> statement-breakpoint
CREATE TABLE "shardpact"."versions" (
	"dataset" text COLLATE "C" NOT NULL,
	"version" bigint NOT NULL,
	"index" bigint NOT NULL,
	"time_ms" bigint NOT NULL,
	"actor" text COLLATE "C" NOT NULL,
	"command_id" text COLLATE "C" NOT NULL,
	"root" bytea NOT NULL,
	"tree_hash" bytea NOT NULL,
	"page_count" bigint NOT NULL,
	"kept" bigint NOT NULL,
	"schema" bytea NOT NULL,
	"classes" bytea NOT NULL,
	"splits" json NOT NULL,
	"totals" json NOT NULL,
	"split_rule" json NOT NULL,
	"message" text COLLATE "C" NOT NULL,
	"frontier" bytea NOT NULL,
	CONSTRAINT "versions_dataset_version_pk" PRIMARY KEY("dataset","version")
);
--> statement-breakpoint
CREATE UNIQUE INDEX "ledger_command_id" ON "shardpact"."ledger" USING btree ("command_id");--> statement-breakpoint
CREATE INDEX "log_config" ON "shardpact"."log" USING btree ("index") WHERE "kind" = 'config';--> statement-breakpoint
CREATE INDEX "pins_run" ON "shardpact"."pins" USING btree ("run");--> statement-breakpoint
CREATE INDEX "runs_dataset" ON "shardpact"."runs" USING btree (("plan" ->> 'dataset') collate "C","run");--> statement-breakpoint
CREATE INDEX "shards_digest" ON "shardpact"."shards" USING btree ("digest");--> statement-breakpoint
CREATE INDEX "version_pages_page" ON "shardpact"."version_pages" USING btree ("page");--> statement-breakpoint
CREATE INDEX "version_pages_open" ON "shardpact"."version_pages" USING btree ("dataset","position") WHERE "until_version" is null;--> statement-breakpoint
CREATE INDEX "versions_root" ON "shardpact"."versions" USING btree ("root");
--> statement-breakpoint
-- The two single rows are rewritten by every append and apply: room on their page keeps those updates HOT.
ALTER TABLE "shardpact"."replica_state" SET (fillfactor = 10);--> statement-breakpoint
ALTER TABLE "shardpact"."applied_state" SET (fillfactor = 10);--> statement-breakpoint
-- Payloads are mostly digests, which do not compress: don't try.
ALTER TABLE "shardpact"."log" ALTER COLUMN "payload" SET STORAGE EXTERNAL;--> statement-breakpoint
ALTER TABLE "shardpact"."ledger" ALTER COLUMN "payload" SET STORAGE EXTERNAL;--> statement-breakpoint
ALTER TABLE "shardpact"."pages" ALTER COLUMN "bytes" SET STORAGE EXTERNAL;
