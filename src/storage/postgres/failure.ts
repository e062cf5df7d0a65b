/**
 * Owns what an error of Postgres means for a replica, and what its operator should do about it.
 *
 * A database that takes no writes (full, read-only, starting) is `unavailable`: nothing is acknowledged, the replica gives
 * up its office, and goes on by itself when the database does. Tables that contradict each other or can't be read are `damaged`.
 */
import { isShardpactError, ShardpactError } from "../../model/errors.ts";

interface Meaning {
  readonly what: string;
  readonly hint: string;
}

const READ_ONLY: Meaning = {
  what: "its database takes no writes",
  hint: "Make it writable (default_transaction_read_only, a failover to a standby); the replica goes on by itself.",
};
const MEANINGS: Readonly<Record<string, Meaning>> = {
  "53100": {
    what: "the disk of its database is full",
    hint: "Make room on the disk of Postgres; the replica goes on by itself.",
  },
  "58030": {
    what: "the disk of its database fails",
    hint: "Look at the log of Postgres and at its disk; the replica goes on by itself when it writes again.",
  },
  "25006": READ_ONLY,
  "57P03": { what: "its database is starting or stopping", hint: "The replica goes on by itself when it is up." },
  "53300": { what: "its database takes no more connections", hint: "Raise max_connections, or end other clients." },
};

/**
 * Our own errors pass. A broken constraint means that tables and log contradict each other (`damaged`); all else is
 * `unavailable`: the outcome is unknown, or the next attempt may work.
 */
export function asUnavailable(error: unknown, what: string): ShardpactError {
  if (isShardpactError(error)) return error;
  const { code, message } = saidByPostgres(error);
  const damaged = typeof code === "string" && (code.startsWith("23") || code === "XX001" || code === "XX002");
  const meaning = MEANINGS[code ?? ""];
  const said = message || code || String(error);
  return new ShardpactError(
    damaged ? "damaged" : "unavailable",
    `${what}: ${meaning === undefined ? said : `${meaning.what} (${said})`}`,
    {
      cause: error,
      details: { postgres: code ?? null },
      hint: damaged
        ? "Run `shardpact audit verify` on this replica's database."
        : (meaning?.hint ?? "Check that Postgres runs and that the replica's database URL reaches it."),
    },
  );
}

interface Said {
  readonly code?: string;
  readonly message?: string;
}

/** Drizzle puts the statement around what Postgres says; the statement tells nobody what to do. */
function saidByPostgres(error: unknown): Said {
  const said = error as Said & { readonly cause?: unknown };
  const cause = said.cause as Said | undefined;
  return said.code === undefined && typeof cause?.code === "string" ? cause : said;
}
