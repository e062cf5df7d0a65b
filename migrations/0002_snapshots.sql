ALTER TABLE "shardpact"."replica_state" ADD COLUMN "base_epoch" bigint NOT NULL DEFAULT 0;--> statement-breakpoint
-- Logs were whole until now: 0 is what stood before their first entry. From here on the replica says it.
ALTER TABLE "shardpact"."replica_state" ALTER COLUMN "base_epoch" DROP DEFAULT;--> statement-breakpoint
COMMENT ON COLUMN "shardpact"."replica_state"."base_epoch" IS 'Epoch of the entry before first_index, which was compacted or came in a snapshot; 0 when there was none.';--> statement-breakpoint
CREATE INDEX "ledger_config" ON "shardpact"."ledger" USING btree ("index") WHERE "kind" = 'config';
