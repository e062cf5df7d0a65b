/**
 * Owns the test vectors of docs/spec.md: inputs with the bytes and digests that they make.
 *
 * `vectors.json` is what this build made once; `vectors.test.ts` compares, `check_vectors.py` repeats it from the text of
 * the specification alone. A vector that changes is a new format.
 */
import { applyBatch, APPLIED_ZERO } from "../../src/catalog/apply.ts";
import type { ChosenEntry } from "../../src/catalog/apply.ts";
import { chainNext, stateDigestNext } from "../../src/catalog/chain.ts";
import type { Row } from "../../src/catalog/rows.ts";
import { encodeClasses } from "../../src/merkle/classes.ts";
import { CONTEXTS, hashAs, hashBytes } from "../../src/merkle/hash.ts";
import type { Context } from "../../src/merkle/hash.ts";
import { manifestLeaf } from "../../src/merkle/manifest.ts";
import { encodePage, pageDigest, pageTotals } from "../../src/merkle/page.ts";
import type { PageEntry } from "../../src/merkle/page.ts";
import { computeRoot, objectDigest, rootBytes } from "../../src/merkle/root.ts";
import { encodeSegmentIndex, segmentIndexDigest, tileSegments } from "../../src/merkle/segment-index.ts";
import { consistencyProof, frontierOf, inclusionProof, treeHash } from "../../src/merkle/tree.ts";
import { formatDigest, toHex, u32le, utf8 } from "../../src/model/bytes.ts";
import { canonicalJson, encodeCommand, parseCommand, stampCommand } from "../../src/model/commands.ts";
import { digestOf } from "../support/catalog.ts";

const ENTRIES: readonly PageEntry[] = [
  {
    name: "train/00000.arrow",
    split: 0,
    rows: 4096,
    bytes: 67_108_864,
    digest: digestOf("0"),
    segmentIndex: digestOf("0i"),
  },
  { name: "train/größe.arrow", split: 0, rows: 0, bytes: 1024, digest: digestOf("1"), segmentIndex: digestOf("1i") },
  {
    name: "val/00000.arrow",
    split: 3,
    rows: Number.MAX_SAFE_INTEGER - 1,
    bytes: 2 ** 40 + 1,
    digest: digestOf("2"),
    segmentIndex: digestOf("2i"),
  },
];

export function makeVectors(): unknown {
  return {
    contexts: contextVectors(),
    canonicalJson: jsonVectors(),
    page: pageVector(),
    tree: treeVectors(),
    root: rootVector(),
    classes: classesVector(),
    segmentIndex: segmentIndexVector(),
    log: logVectors(),
  };
}

function contextVectors(): unknown {
  return Object.keys(CONTEXTS).map((name) => {
    const context = CONTEXTS[name as Context];
    return { context, material: toHex(utf8(name)), digest: toHex(hashAs(name as Context, utf8(name))) };
  });
}

function jsonVectors(): unknown {
  const values = [
    { b: 1, a: [true, null, "ä\n\u2028"], "10": 0.1, "9": -0 },
    { "\u{1f600}": 1, "\ufb33": 2 },
    [1e21, 1e-7, 100],
  ];
  return values.map((value) => ({ value, json: canonicalJson(value) }));
}

function pageVector(): unknown {
  const bytes = encodePage(ENTRIES);
  const entry = { page: pageDigest(bytes), totals: pageTotals(ENTRIES) };
  return {
    entries: ENTRIES,
    bytes: toHex(bytes),
    digest: entry.page,
    totals: entry.totals,
    leaf: toHex(manifestLeaf(entry)),
  };
}

/** Leaf i of these trees is the `leaf` digest of u32le i. */
function treeVectors(): unknown {
  const leaves = (n: number): Uint8Array[] => Array.from({ length: n }, (_, i) => hashAs("leaf", u32le(i)));
  const sizes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 100];
  return {
    roots: sizes.map((size) => ({
      size,
      root: toHex(treeHash(leaves(size))),
      frontier: frontierOf(leaves(size)).map(toHex),
    })),
    inclusion: [0, 5, 12].map((index) => ({ index, size: 13, proof: inclusionProof(leaves(13), index).map(toHex) })),
    consistency: [1, 6, 8].map((older) => ({
      older,
      newer: 13,
      proof: consistencyProof(leaves(13), older).map(toHex),
    })),
  };
}

function rootVector(): unknown {
  const fields = {
    schema: objectDigest("schema", utf8("{}")),
    classes: objectDigest("classes", encodeClasses({})),
    splits: ["10", "9", "test"],
    splitRule: { kind: "positional", salt: "ä", ppm: { "9": 1000, "10": 0, test: 250_000 } },
    pageCount: 2,
    treeHash: formatDigest(treeHash([hashAs("leaf", u32le(0)), hashAs("leaf", u32le(1))])),
    totals: [
      { split: 0, rows: 60_000, bytes: 2 ** 40, shards: 12 },
      { split: 2, rows: 1, bytes: 2, shards: 3 },
    ],
  } as const;
  return { fields, bytes: toHex(rootBytes(fields)), root: computeRoot(fields) };
}

function classesVector(): unknown {
  const classes = { label: ["cat", "dog"], Étage: ["0", "\u0001"] };
  const bytes = encodeClasses(classes);
  return { classes, bytes: toHex(bytes), digest: objectDigest("classes", bytes) };
}

function segmentIndexVector(): unknown {
  const parts = [
    { kind: "head", bytes: 8, rows: 0 },
    { kind: "schema", bytes: 400, rows: 0 },
    { kind: "dictionary", bytes: 200, rows: 7 },
    { kind: "batch", bytes: 300_000, rows: 1000 },
    { kind: "footer", bytes: 310, rows: 0 },
  ] as const;
  const segments = tileSegments(parts);
  const leafCount = segments.reduce((sum, segment) => sum + segment.leafCount, 0);
  const leaves = Array.from({ length: leafCount }, (_, i) => hashBytes(u32le(i)));
  const fileBytes = parts.reduce((sum, part) => sum + part.bytes, 0);
  const fileDigest = hashBytes(utf8("file"));
  const bytes = encodeSegmentIndex({
    fileBytes,
    fileDigest,
    segments,
    leaves: Buffer.concat(leaves),
    dictionaryIds: [3],
  });
  return {
    ...{ fileBytes, fileDigest: toHex(fileDigest), segments: parts, leaves: leaves.map(toHex), dictionaryIds: [3] },
    bytes: toHex(bytes),
    digest: formatDigest(segmentIndexDigest(bytes)),
  };
}

/** A log of four entries: its payloads, both chains, and the rows that each entry put. */
function logVectors(): unknown {
  const put = parseCommand({
    ...{ id: "a".repeat(32), actor: "ada", kind: "page.put", blob: encodePage(ENTRIES) },
    body: { kind: "page", digest: pageDigest(encodePage(ENTRIES)) },
  });
  const revoke = parseCommand({
    ...{ id: "b".repeat(32), actor: "ada", kind: "version.revoke" },
    body: { dataset: "mnist", version: 1, reason: "labels" },
  });
  const entries: ChosenEntry[] = [
    { index: 1, epoch: 1, kind: "config", payload: utf8("genesis") },
    { index: 2, epoch: 1, kind: "noop", payload: new Uint8Array(0) },
    { index: 3, epoch: 1, kind: "command", payload: stampCommand(encodeCommand(put), 1_700_000_000_000) },
    { index: 4, epoch: 2, kind: "command", payload: stampCommand(encodeCommand(revoke), 1_600_000_000_000) },
  ];
  let state = APPLIED_ZERO;
  const log = entries.map((entry) => {
    const { state: next, changes, ledger } = applyBatch({ entries: [entry], state, rows: [], outcomes: new Map() });
    const [recorded] = ledger;
    if (!recorded) throw new Error("each entry has a ledger row");
    const { outcome, kind, bodyDigest } = recorded;
    const decision = { changes, outcome };
    const again = [chainNext(state.chain, entry), stateDigestNext(state.stateDigest, next, decision)];
    if (again[0] !== next.chain || again[1] !== next.stateDigest) throw new Error("apply chains in another way");
    state = next;
    return {
      ...{ index: entry.index, kind: entry.kind, payload: toHex(entry.payload), timeMs: next.timeMs },
      ...{ ledgerKind: kind, bodyDigest, rows: changes.map(({ row }) => withoutBytes(row)), outcome },
      ...{ chain: next.chain, stateDigest: next.stateDigest },
    };
  });
  const commands = [put, revoke].map(({ blob, ...command }) => ({ ...command, blob: toHex(blob) }));
  return { commands, log };
}

function withoutBytes(row: Row): unknown {
  return Object.fromEntries(
    Object.entries(row).filter(([name, value]) => name !== "bytes" || typeof value === "number"),
  );
}
