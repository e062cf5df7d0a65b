/**
 * Owns what @tensorflow/tfjs-node 4.22 needs on Node 23 and later: two functions of `node:util` that Node removed.
 *
 * Import it before tfjs-node (`import "shardpact/tfjs-node-compat"`), or start with `node --import
 * shardpact/tfjs-node-compat`. Does nothing where the functions are there. Source: tensorflow/tfjs issue 8609.
 */
import util from "node:util";

const target = util as unknown as Record<string, unknown>;
target["isNullOrUndefined"] ??= (value: unknown) => value === null || value === undefined;
target["isArray"] ??= Array.isArray;
