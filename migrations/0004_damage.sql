ALTER TABLE "shardpact"."replica_state" ADD COLUMN "promised_last" bigint;--> statement-breakpoint
ALTER TABLE "shardpact"."replica_state" ADD COLUMN "state_hash" "bytea";--> statement-breakpoint
COMMENT ON COLUMN "shardpact"."replica_state"."promised_last" IS 'Where the log once ended, while it is cut before a damaged entry: until the replica is given back what it promised, or the group proves that it was not chosen, it does not vote. NULL: nothing is damaged.';--> statement-breakpoint
COMMENT ON COLUMN "shardpact"."replica_state"."state_hash" IS 'Checksum over epoch, voted_for, voting, last_index and promised_last.';
