/**
 * Owns the tree over a version's manifest: hash, frontier, inclusion and consistency proofs.
 *
 * The shape is that of RFC 9162, §2.1: the left subtree of n leaves holds the largest power of two below n. Instead of
 * the prefixes 0x00 and 0x01, leaves and nodes are hashed under `derive_key` contexts (`leaf`, `node`); a leaf here is
 * already hashed (`manifestLeaf`). The *frontier* of a tree is the list of its perfect subtrees' hashes, largest first:
 * enough to append in O(log n) and to compute the root.
 */
import { bytesEqual } from "../model/bytes.ts";
import { invariant, ShardpactError } from "../model/errors.ts";
import { hashAs } from "./hash.ts";

export type Hash = Uint8Array;

/** Hash of the tree over the leaves; of no leaves: the node hash of nothing. RFC 9162 §2.1.1. */
export function treeHash(leaves: readonly Hash[]): Hash {
  return rootOfFrontier(frontierOf(leaves), leaves.length);
}

export function frontierOf(leaves: readonly Hash[]): Hash[] {
  const frontier: Hash[] = [];
  leaves.forEach((leaf, size) => pushLeaf(frontier, size, leaf));
  return frontier;
}

/** True when the list is as long as the frontier of `size` leaves is: one hash for each one bit. */
export function isFrontier(frontier: readonly Hash[], size: number): boolean {
  let ones = 0;
  for (let rest = size; rest > 0; rest = half(rest)) ones += rest % 2;
  return frontier.length === ones;
}

/** The frontier of `size` + 1 leaves; the one given stays as it is. */
export function frontierAppend(frontier: readonly Hash[], size: number, leaf: Hash): Hash[] {
  requireFrontier(frontier, size);
  const next = [...frontier];
  pushLeaf(next, size, leaf);
  return next;
}

export function rootOfFrontier(frontier: readonly Hash[], size: number): Hash {
  requireFrontier(frontier, size);
  return frontier.length === 0 ? hashAs("node") : frontier.reduceRight((right, left) => node(left, right));
}

/** Sibling hashes from the leaf up. RFC 9162 §2.1.3.1. @throws ShardpactError `invalid_argument` outside the tree. */
export function inclusionProof(leaves: readonly Hash[], index: number): Hash[] {
  if (!Number.isInteger(index) || index < 0 || index >= leaves.length) {
    throw new ShardpactError("invalid_argument", `leaf ${index} is not in a tree of ${leaves.length}`);
  }
  return path(leaves, index, 0, leaves.length);
}

/** True when `proof` leads from the leaf at `index` to the root of a tree of `size`. RFC 9162 §2.1.3.2. */
export function verifyInclusion(leaf: Hash, index: number, size: number, proof: readonly Hash[], root: Hash): boolean {
  if (!Number.isInteger(index) || !Number.isInteger(size) || index < 0 || index >= size) return false;
  let fn = index;
  let sn = size - 1;
  let hash = leaf;
  for (const sibling of proof) {
    if (sn === 0) return false;
    if (fn % 2 === 1 || fn === sn) {
      hash = node(sibling, hash);
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [half(fn), half(sn)];
    } else {
      hash = node(hash, sibling);
    }
    [fn, sn] = [half(fn), half(sn)];
  }
  return sn === 0 && bytesEqual(hash, root);
}

/** Proves that the first `size` leaves are a tree of their own. RFC 9162 §2.1.4.1. @throws `invalid_argument` */
export function consistencyProof(leaves: readonly Hash[], size: number): Hash[] {
  if (!Number.isInteger(size) || size < 1 || size > leaves.length) {
    throw new ShardpactError("invalid_argument", `${size} leaves are no prefix of a tree of ${leaves.length}`);
  }
  return subproof(leaves, size, 0, leaves.length, true);
}

export interface TreeHead {
  readonly size: number;
  readonly root: Hash;
}

/** True when `proof` shows the tree `older` to be a prefix of `newer`. RFC 9162 §2.1.4.2. */
export function verifyConsistency(older: TreeHead, newer: TreeHead, proof: readonly Hash[]): boolean {
  if (!Number.isInteger(older.size) || !Number.isInteger(newer.size)) return false;
  if (older.size < 1 || older.size > newer.size) return false;
  if (older.size === newer.size) return proof.length === 0 && bytesEqual(older.root, newer.root);
  const siblings = isPowerOfTwo(older.size) ? [older.root, ...proof] : [...proof];
  let fn = older.size - 1;
  let sn = newer.size - 1;
  while (fn % 2 === 1) [fn, sn] = [half(fn), half(sn)];
  const first = siblings.shift();
  if (first === undefined) return false;
  let [fr, sr] = [first, first];
  for (const sibling of siblings) {
    if (sn === 0) return false;
    if (fn % 2 === 1 || fn === sn) {
      fr = node(sibling, fr);
      sr = node(sibling, sr);
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [half(fn), half(sn)];
    } else {
      sr = node(sr, sibling);
    }
    [fn, sn] = [half(fn), half(sn)];
  }
  return sn === 0 && bytesEqual(fr, older.root) && bytesEqual(sr, newer.root);
}

function node(left: Hash, right: Hash): Hash {
  return hashAs("node", left, right);
}

/** Appending leaf `size` merges one perfect subtree for each trailing one bit of `size`. */
function pushLeaf(frontier: Hash[], size: number, leaf: Hash): void {
  let hash = leaf;
  for (let rest = size; rest % 2 === 1; rest = half(rest)) {
    const left = frontier.pop();
    invariant(left, "a frontier holds one hash for each one bit of its size");
    hash = node(left, hash);
  }
  frontier.push(hash);
}

function requireFrontier(frontier: readonly Hash[], size: number): void {
  invariant(isFrontier(frontier, size), `a frontier of ${frontier.length} hashes is not one of ${size} leaves`);
}

function rangeHash(leaves: readonly Hash[], from: number, to: number): Hash {
  return treeHash(leaves.slice(from, to));
}

/** Where n > 1 leaves split: the largest power of two below n. */
function splitPoint(n: number): number {
  let k = 1;
  while (k * 2 < n) k *= 2;
  return k;
}

function path(leaves: readonly Hash[], index: number, from: number, to: number): Hash[] {
  if (to - from === 1) return [];
  const middle = from + splitPoint(to - from);
  return index < middle
    ? [...path(leaves, index, from, middle), rangeHash(leaves, middle, to)]
    : [...path(leaves, index, middle, to), rangeHash(leaves, from, middle)];
}

/** `whole`: the old tree's root is this subtree, so the verifier knows it. */
function subproof(leaves: readonly Hash[], size: number, from: number, to: number, whole: boolean): Hash[] {
  if (size === to - from) return whole ? [] : [rangeHash(leaves, from, to)];
  const k = splitPoint(to - from);
  return size <= k
    ? [...subproof(leaves, size, from, from + k, whole), rangeHash(leaves, from + k, to)]
    : [...subproof(leaves, size - k, from + k, to, false), rangeHash(leaves, from, from + k)];
}

function half(n: number): number {
  return Math.floor(n / 2);
}

function isPowerOfTwo(n: number): boolean {
  return (n & (n - 1)) === 0;
}
