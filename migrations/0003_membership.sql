CREATE INDEX "ledger_membership" ON "shardpact"."ledger" USING btree ("index") WHERE "kind" = 'config' OR ("kind" = 'configuration.sign' AND "command_id" IS NOT NULL);--> statement-breakpoint
CREATE FUNCTION shardpact.member_ids(members jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT coalesce(array_agg(m ->> 'id' ORDER BY at), '{}') FROM jsonb_array_elements(members) WITH ORDINALITY AS e(m, at) $$;
--> statement-breakpoint
COMMENT ON FUNCTION shardpact.member_ids(jsonb) IS 'Ids of the members in a configuration''s list.';
--> statement-breakpoint
CREATE VIEW shardpact.v_membership AS
SELECT l.index, shardpact.time_of(l.time_ms) AS at, coalesce((c.said ->> 'number')::bigint, 0) AS number,
  c.said #>> '{request,change,kind}' AS change,
  coalesce(c.said #>> '{request,change,id}', c.said #>> '{request,change,member,id}') AS member,
  c.said #>> '{request,change,by}' AS replaced_by,
  c.said #>> '{request,actor}' AS actor, c.said #>> '{request,signer}' AS signer,
  shardpact.member_ids(c.said -> 'voters') AS voters,
  shardpact.member_ids(coalesce(c.said -> 'votersOutgoing', '[]')) AS voters_outgoing,
  shardpact.member_ids(coalesce(c.said -> 'learners', '[]')) AS learners,
  ARRAY(
    SELECT h.header #>> '{body,replica}' FROM shardpact.ledger s, LATERAL (SELECT shardpact.command_header(s.payload) AS header) h
    WHERE s.kind = 'configuration.sign' AND s.command_id IS NOT NULL AND (h.header #>> '{body,index}')::bigint = l.index
    ORDER BY 1
  ) AS signed_by
FROM shardpact.ledger l, LATERAL (SELECT convert_from(l.payload, 'UTF8')::jsonb AS said) c
WHERE l.kind = 'config';
--> statement-breakpoint
COMMENT ON VIEW shardpact.v_membership IS 'Every configuration of the group: who decided from when on, who asked for it, and whose signatures prove it.';
--> statement-breakpoint
CALL shardpact.grant_roles();
