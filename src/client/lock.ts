/**
 * Owns the lock file: which version of which dataset, of which group, at which point of its history.
 *
 * Made to be read in a review: small, keys in one order, one dataset per entry. Writing merges and renames, so that a
 * crash leaves the old file or the new one.
 */
import { randomUUID } from "node:crypto";
import { open as openFile, readFile, rename, rm } from "node:fs/promises";
import { z } from "zod";
import { memberInfo } from "../model/api.ts";
import { ShardpactError } from "../model/errors.ts";
import { datasetName, groupName } from "../model/names.ts";
import type { Session } from "./session.ts";
import type { ConfirmedVersion } from "./types.ts";

const digest = z.templateLiteral(["b3:", z.string().regex(/^[0-9a-f]{64}$/)]);

const lockedDataset = z.object({
  version: z.number().int().positive(),
  root: digest,
  /** Log index at which a majority confirmed it, and the chain there: another chain is another history. */
  index: z.number().int().nonnegative(),
  chain: z.string().regex(/^[0-9a-f]{64}$/),
  stores: z.array(z.string()).optional(),
});
export type LockedDataset = z.infer<typeof lockedDataset>;

const lockSchema = z.object({
  format: z.literal("shardpact-lock/1"),
  group: z.object({
    name: groupName,
    id: digest,
    /** Whose signatures counted. */
    voters: z.array(memberInfo),
    /** Of these voters; left out: the group's first. Readers of the file trust it, so that old keys prove nothing to them. */
    configuration: z
      .object({
        number: z.number().int().positive(),
        index: z.number().int().positive(),
        digest,
        votersOutgoing: z.array(memberInfo).optional(),
      })
      .optional(),
  }),
  datasets: z.record(datasetName, lockedDataset),
});
export type Lock = z.infer<typeof lockSchema>;

const LOCK_FORMAT = "shardpact-lock/1";

/** What a lock file says of one confirmed version. `stores`: where its bytes were found; hints for the next reader. */
export function lockOf(
  session: Session,
  v: Pick<ConfirmedVersion, "dataset" | "version" | "root" | "confirmation">,
  stores: readonly string[],
): Omit<Lock, "format"> {
  const { index, chain } = v.confirmation;
  const locked: LockedDataset = { version: v.version, root: v.root, index, chain, stores: [...stores] };
  const id = session.groupId as Lock["group"]["id"];
  const { number, index: at, digest: named, votersOutgoing, ...trusted } = session.trusted();
  const voters = trusted.voters.map((voter) => ({ ...voter }));
  const outgoing = votersOutgoing.length === 0 ? {} : { votersOutgoing: votersOutgoing.map((voter) => ({ ...voter })) };
  const configuration = number === 0 ? {} : { configuration: { number, index: at, digest: named, ...outgoing } };
  return { group: { name: session.group, id, voters, ...configuration }, datasets: { [v.dataset]: locked } };
}

/** The session trusts what the file does. @throws ShardpactError `group_forked` when that contradicts what it trusts already */
export function trustLock(session: Session, { group }: Pick<Lock, "group">): void {
  if (group.configuration === undefined) return;
  const { votersOutgoing = [], ...configuration } = group.configuration;
  session.trust({ ...configuration, voters: group.voters, votersOutgoing }, null);
}

/** @throws ShardpactError `not_found`, `config_invalid` naming the field */
export async function readLock(file: string | URL): Promise<Lock> {
  const lock = await readLockIfThere(file);
  if (lock) return lock;
  throw new ShardpactError("not_found", `there is no lock file ${String(file)}`, {
    hint: "`dataset.lock(file)` or `shardpact pin` writes one.",
  });
}

async function readLockIfThere(file: string | URL): Promise<Lock | null> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new ShardpactError("config_invalid", `the lock file ${String(file)} cannot be read`, { cause });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new ShardpactError("config_invalid", `the lock file ${String(file)} is not JSON`, { cause });
  }
  const parsed = lockSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new ShardpactError(
    "config_invalid",
    `the lock file ${String(file)}: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? "malformed"}`,
    { hint: "Restore it from version control, or lock again." },
  );
}

/**
 * Merges the datasets into the file (or makes it) and replaces it atomically. Returns what it holds now.
 * @throws ShardpactError `lock_mismatch` when the file belongs to another group, `config_invalid`
 */
export async function writeLock(file: string, lock: Omit<Lock, "format">): Promise<Lock> {
  const old = await readLockIfThere(file);
  if (old && old.group.id !== lock.group.id) {
    throw new ShardpactError("lock_mismatch", `${file} locks group ${old.group.name} (${old.group.id})`, {
      details: { expected: old.group.id, got: lock.group.id },
      hint: "Write to another file, or remove this one.",
    });
  }
  const merged: Lock = {
    format: LOCK_FORMAT,
    group: lock.group,
    datasets: { ...old?.datasets, ...lock.datasets },
  };
  await replaceFile(file, formatLock(merged));
  return merged;
}

/** The file's text: stable key order, datasets by name, a newline at the end. */
function formatLock(lock: Lock): string {
  const datasets = Object.entries(lock.datasets)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, d]) => {
      const { version, root, index, chain, stores } = d;
      return [name, { version, root, index, chain, ...(stores === undefined ? {} : { stores }) }] as const;
    });
  const voters = [...lock.group.voters]
    .sort((a, b) => (a.id < b.id ? -1 : 1))
    .map(({ id, publicKey }) => ({ id, publicKey }));
  const { name, id, configuration } = lock.group;
  const group = { name, id, ...(configuration === undefined ? {} : { configuration }), voters };
  const ordered = { format: lock.format, group, datasets: Object.fromEntries(datasets) };
  return `${JSON.stringify(ordered, null, 2)}\n`;
}

/** The one locked dataset that is meant. @throws ShardpactError `not_found`, `invalid_argument` (several, no name) */
export function lockedDatasetOf(lock: Lock, name?: string): { name: string; locked: LockedDataset } {
  const names = Object.keys(lock.datasets).sort();
  const wanted = name ?? (names.length === 1 ? names[0] : undefined);
  if (wanted === undefined) {
    throw new ShardpactError("invalid_argument", `the lock file holds ${names.length} datasets and none was named`, {
      details: { names },
      hint: `Name one: ${names.join(", ")}.`,
    });
  }
  const locked = Object.hasOwn(lock.datasets, wanted) ? lock.datasets[wanted] : undefined;
  if (locked) return { name: wanted, locked };
  throw new ShardpactError("not_found", `the lock file does not hold ${wanted}`, {
    details: { nearest: names },
    hint: `It holds ${names.join(", ")}.`,
  });
}

async function replaceFile(file: string, text: string): Promise<void> {
  const aside = `${file}.${randomUUID().slice(0, 8)}.tmp`;
  try {
    const handle = await openFile(aside, "wx");
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(aside, file);
  } catch (cause) {
    await rm(aside, { force: true });
    throw new ShardpactError("config_invalid", `the lock file ${file} cannot be written`, { cause });
  }
}
