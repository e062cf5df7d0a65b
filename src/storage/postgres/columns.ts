/**
 * Owns the column types of the schema: how our words lie in Postgres.
 *
 * Digests are 32 raw bytes on disk and `b3:` text in memory; texts compare by bytes (COLLATE "C"), so that two
 * databases with different locales sort alike; integers are bigint on disk and safe integers in memory.
 */
import { bigint, customType } from "drizzle-orm/pg-core";
import { type Digest, formatDigest, fromHex, parseDigest, toHex } from "../../model/bytes.ts";

/** A bytea column as the driver hands it over, without the driver's own subclass. */
export function plainBytes(buffer: Uint8Array): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

/** Text that sorts and compares by its UTF-8 bytes, whatever the database's locale. */
export const textC = customType<{ data: string; driverData: string }>({
  dataType: () => 'text COLLATE "C"',
});

export const bytes = customType<{ data: Uint8Array; driverData: Buffer }>({
  dataType: () => "bytea",
  toDriver: (value) => Buffer.from(value.buffer, value.byteOffset, value.byteLength),
  fromDriver: plainBytes,
});

/** 32 bytes ↔ `b3:…`. */
export const digest = customType<{ data: Digest; driverData: Buffer }>({
  dataType: () => "bytea",
  toDriver: (value) => Buffer.from(parseDigest(value)),
  fromDriver: formatDigest,
});

/** n × 32 bytes ↔ n digests. */
export const digests = customType<{ data: readonly Digest[]; driverData: Buffer }>({
  dataType: () => "bytea",
  toDriver: (value) => Buffer.concat(value.map(parseDigest)),
  fromDriver: (value) => splitDigests(toHex(value)),
});

/** 32 bytes ↔ bare hex (chain values). */
export const hash = customType<{ data: string; driverData: Buffer }>({
  dataType: () => "bytea",
  toDriver: (value) => Buffer.from(fromHex(value)),
  fromDriver: toHex,
});

/** A safe integer in a bigint column. */
export const integer = (name?: string) =>
  name === undefined ? bigint({ mode: "number" }) : bigint(name, { mode: "number" });

/** Cuts the hex of n × 32 bytes into n digests. */
export function splitDigests(hex: string): readonly Digest[] {
  return (hex.match(/.{64}/g) ?? []).map((part): Digest => `b3:${part}`);
}
