/**
 * Owns what the integration tests do with a real local group: tiny shards, SQL against one replica, waiting for
 * replicas to agree.
 */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { tableFromArrays, tableToIPC } from "apache-arrow";
import pg from "pg";
import type { LocalGroup } from "../../src/cli/embedded/local-group.ts";
import { waitFor } from "./wait-for.ts";

/** Writes `<dir>/<name>.arrow`: `rows` rows of one float32 column `x`, whose values follow from `seed`. */
export async function tinyShard(dir: string, name: string, seed: number, rows = 8): Promise<string> {
  await mkdir(dir, { recursive: true });
  const file = path.join(dir, `${name}.arrow`);
  const x = Float32Array.from({ length: rows }, (_, i) => seed * 1000 + i);
  await writeFile(file, tableToIPC(tableFromArrays({ x }), "file"));
  return file;
}

/** Runs one statement in a database and resolves with its rows. */
export async function sql(postgresUrl: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: postgresUrl });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

/** Every replica's applied index and chain, from its own database. */
export async function appliedPoints(
  local: LocalGroup,
): Promise<{ index: number; chain: string; stateDigest: string }[]> {
  return Promise.all(
    local.replicas.map(async (replica) => {
      const [row] = await sql(
        replica.postgresUrl,
        `select applied_index::int as index, encode(chain, 'hex') as chain, encode(state_digest, 'hex') as digest from shardpact.applied_state`,
      );
      return { index: Number(row?.["index"]), chain: String(row?.["chain"]), stateDigest: String(row?.["digest"]) };
    }),
  );
}

/** Waits until all replicas have applied the same index with equal chain and state digest; resolves with that point. */
export async function waitForAgreement(
  local: LocalGroup,
  timeoutMs = 30_000,
): Promise<{ index: number; chain: string }> {
  return waitFor(
    async () => {
      const [first, ...others] = await appliedPoints(local);
      const equal =
        first &&
        others.every((p) => p.index === first.index && p.chain === first.chain && p.stateDigest === first.stateDigest);
      return equal ? first : null;
    },
    { timeoutMs, what: "all replicas to hold the same log" },
  );
}
