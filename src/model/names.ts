/**
 * Owns the names people type: datasets, tags, runs, splits, and references such as `mnist@v3`.
 */
import { z } from "zod";
import { ShardpactError } from "./errors.ts";
import { LIMITS } from "./limits.ts";

const NAME = /^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$/;

const name = (what: string) =>
  z
    .string()
    .max(LIMITS.nameCharsMax)
    .regex(
      NAME,
      `${what} may hold lower-case letters, digits, '.', '_' and '-', and starts and ends with a letter or digit`,
    );

export const datasetName = name("a dataset name");
/** A tag is a name that cannot be mistaken for a version (`v1`). */
export const tagName = name("a tag").refine((t) => !/^v[0-9]+$/.test(t), "a tag must not look like a version");
export const runId = name("a run id");
export const splitName = name("a split name");
export const groupName = name("a group name");
const REPLICA_ID = /^[a-z0-9][a-z0-9-]{0,31}$/;
export const replicaId = z.string().regex(REPLICA_ID, "a replica id is up to 32 lower-case letters, digits and '-'");
/** The same check without its words: for every message of a peer. */
export const isReplicaId = (text: string): boolean => REPLICA_ID.test(text);
export const versionNumber = z.number().int().positive();

/** What a reference points at: the head, a version, a tag, or a root digest. */
export type RefTarget =
  | { readonly kind: "head" }
  | { readonly kind: "version"; readonly version: number }
  | { readonly kind: "tag"; readonly tag: string }
  | { readonly kind: "root"; readonly root: string };

export interface Ref {
  readonly dataset: string;
  readonly target: RefTarget;
}

export const refTarget = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("head") }),
  z.object({ kind: z.literal("version"), version: versionNumber }),
  z.object({ kind: z.literal("tag"), tag: tagName }),
  z.object({ kind: z.literal("root"), root: z.string().regex(/^b3:[0-9a-f]{64}$/) }),
]);
export const ref = z.object({ dataset: datasetName, target: refTarget });

/**
 * Parses `name`, `name@v3`, `name@tag` or `name@b3:<64 hex>`.
 * @throws ShardpactError `invalid_argument`
 */
export function parseRef(text: string): Ref {
  const at = text.indexOf("@");
  const dataset = at === -1 ? text : text.slice(0, at);
  const rest = at === -1 ? "" : text.slice(at + 1);
  const target: unknown =
    at === -1
      ? { kind: "head" }
      : /^v[0-9]+$/.test(rest)
        ? { kind: "version", version: Number(rest.slice(1)) }
        : rest.startsWith("b3:")
          ? { kind: "root", root: rest }
          : { kind: "tag", tag: rest };
  const parsed = ref.safeParse({ dataset, target });
  if (parsed.success) return parsed.data;
  throw new ShardpactError(
    "invalid_argument",
    `'${text}' is not a dataset reference: ${parsed.error.issues[0]?.message ?? "malformed"}`,
    {
      details: { ref: text },
      hint: "Write name, name@v3, name@tag or name@b3:<digest>.",
    },
  );
}

/** The text that `parseRef` reads back. */
export function formatRef({ dataset, target }: Ref): string {
  switch (target.kind) {
    case "head":
      return dataset;
    case "version":
      return `${dataset}@v${target.version}`;
    case "tag":
      return `${dataset}@${target.tag}`;
    case "root":
      return `${dataset}@${target.root}`;
  }
}
