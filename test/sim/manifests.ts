/**
 * Owns the versions that simulated clients commit: small manifests, each with a root of its own.
 */
import type { Draft, DraftObject } from "../../src/client/draft.ts";
import { encodeClasses } from "../../src/merkle/classes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { type ManifestEntry, summarizeManifest } from "../../src/merkle/manifest.ts";
import { encodePage, pageDigest, pageTotals } from "../../src/merkle/page.ts";
import { computeRoot, objectDigest } from "../../src/merkle/root.ts";
import { type Digest, formatDigest, utf8 } from "../../src/model/bytes.ts";
import type { MemoryDisk } from "../../src/storage/memory/disk.ts";
import { below, type Random } from "./scheduler.ts";

const PAGES_MAX = 5;
const SCHEMA = utf8("schema");
const CLASSES = encodeClasses({});

export interface Manifests {
  /** One more page named `name` after some or all of the base's. */
  draft(
    dataset: string,
    base: { version: number; index: number; root: string } | null,
    name: string,
    random: Random,
  ): Draft;
  /** Root of a version that is committed, for commands that name it. */
  rootOf(dataset: string, version: number, oracle: MemoryDisk): Digest | null;
}

export function createManifests(): Manifests {
  const byRoot = new Map<string, readonly ManifestEntry[]>();
  const schema = objectDigest("schema", SCHEMA);
  const classes = objectDigest("classes", CLASSES);

  return {
    draft(dataset, base, name, random) {
      const before = (base === null ? null : byRoot.get(base.root)) ?? [];
      const kept = before.length < PAGES_MAX ? before.length : below(random, PAGES_MAX);
      const digest = formatDigest(hashBytes(utf8(name)));
      const shard = { name: `${name}.arrow`, split: 0, rows: 10, bytes: 100, digest, segmentIndex: digest };
      const bytes = encodePage([shard]);
      const page: DraftObject = { kind: "page", digest: pageDigest(bytes), bytes };
      const manifest = [...before.slice(0, kept), { page: page.digest, totals: pageTotals([shard]) }];
      const { treeHash, totals } = summarizeManifest(manifest);
      const fields = { schema, classes, splits: ["train"], splitRule: { kind: "none" as const } };
      const pageCount = manifest.length;
      const root = computeRoot({ ...fields, pageCount, treeHash: formatDigest(treeHash), totals });
      byRoot.set(root, manifest);
      const first: DraftObject[] = [
        { kind: "schema", digest: schema, bytes: SCHEMA },
        { kind: "classes", digest: classes, bytes: CLASSES },
      ];
      return {
        ...{ dataset, message: name, root, kept, added: [page.digest], ...fields },
        expectedHead: base && { version: base.version, index: base.index },
        objects: base === null ? [...first, page] : [page],
        rows: 0,
        bytes: 0,
        shards: manifest.length,
      };
    },
    rootOf(dataset, version, oracle) {
      const row = oracle.rows.get("version")?.get(["version", dataset, version].join("\n"));
      return row?.table === "version" ? row.root : null;
    },
  };
}
