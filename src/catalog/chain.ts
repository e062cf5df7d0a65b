/**
 * Owns the two chains that replicas compare: over what was chosen, and over what it came to.
 *
 * Equal chains with unequal state digests mean that the same log led to different tables.
 */
import { createByteWriter } from "../model/byte-writer.ts";
import { canonicalJson } from "../model/json.ts";
import { hashHexAs } from "../merkle/hash.ts";
import type { Decision } from "./decide.ts";
import type { LogPoint } from "./rule.ts";
import type { Row } from "./rows.ts";
import { rowKey } from "./view.ts";

/** Both chains before the first entry: 32 zero bytes in hex. */
export const CHAIN_ZERO = "0".repeat(64);

const writer = createByteWriter();
const KIND_BYTES = { noop: 0, config: 1, command: 2 } as const;

/** Cᵢ = hashAs("chain", Cᵢ₋₁ ‖ u64le i ‖ u8 kind ‖ payload): no term or ballot, so equal under both engines. */
export function chainNext(
  chain: string,
  { index, kind, payload }: { index: number; kind: keyof typeof KIND_BYTES; payload: Uint8Array },
): string {
  return hashHexAs("chain", writer.start().hex(chain).u64(index).u8(KIND_BYTES[kind]).bytes(payload).view());
}

/**
 * Sᵢ = hashAs("stateDigest", Sᵢ₋₁ ‖ u64le i ‖ u64le log time ‖ u32le rows ‖ text(row)… ‖ text(outcome)).
 * Rows are canonical JSON in the order of their keys' text. A page's bytes are left out: its digest covers them. Of a
 * rejection only the code counts: messages may be worded differently by another release.
 */
export function stateDigestNext(stateDigest: string, at: LogPoint, { changes, outcome }: Decision): string {
  const rows = changes
    .map(({ row }) => ({ key: rowKey(row), json: canonicalJson(withoutBytes(row)) }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  const said = outcome.ok ? outcome : { ok: false, code: outcome.error.code };
  writer.start().hex(stateDigest).u64(at.index).u64(at.timeMs).u32(rows.length);
  for (const { json } of rows) writer.text(json);
  return hashHexAs("stateDigest", writer.text(canonicalJson(said)).view());
}

function withoutBytes(row: Row): unknown {
  if (row.table !== "page") return row;
  const { bytes: _, ...rest } = row;
  return rest;
}
