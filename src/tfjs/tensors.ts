/**
 * Owns making tensors of host columns. tfjs is loaded when the first batch is, so a loader can be made without it.
 *
 * The tensors alias the batch's arrays, which nobody else holds: a batch's memory is never used again.
 */
import type { Tensor, Tensor1D } from "@tensorflow/tfjs-core";
import type { ColumnArray, ColumnArrays, Columns } from "../loader/batch.ts";
import { ShardpactError } from "../model/errors.ts";
import { findTfjsCore } from "./core-module.ts";

export type TfjsCore = typeof import("@tensorflow/tfjs-core");

/** One tensor for one column, else tensors by column name. Rows are the first dimension. */
export type Tensors = Tensor | { [column: string]: Tensor };

export interface BatchTensors {
  readonly xs: Tensors;
  readonly ys: Tensors;
  readonly mask?: Tensor1D;
}

let core: Promise<TfjsCore> | null = null;

/**
 * The tfjs-core that the caller's backend registered itself with: the one module instance of the process.
 * @throws ShardpactError `setup_failed` when it is not installed
 */
export function loadTfjs(): Promise<TfjsCore> {
  core ??= (import(findTfjsCore(import.meta.url)) as Promise<TfjsCore>).catch((cause: unknown) => {
    core = null;
    throw new ShardpactError("setup_failed", "@tensorflow/tfjs-core could not be loaded", {
      cause,
      hint: "Install @tensorflow/tfjs-node (or @tensorflow/tfjs) beside shardpact.",
    });
  });
  return core;
}

/** Tensors of a batch; the caller disposes them. */
export function toTensors(tf: TfjsCore, { xs, ys, mask }: Columns): BatchTensors {
  const tensors = { xs: toTensor(tf, xs), ys: toTensor(tf, ys) };
  return mask ? { ...tensors, mask: one(tf, mask) as Tensor1D } : tensors;
}

function toTensor(tf: TfjsCore, columns: ColumnArrays): Tensors {
  const all = Object.entries(columns);
  const [first] = all;
  if (all.length === 1 && first) return one(tf, first[1]);
  return Object.fromEntries(all.map(([name, column]) => [name, one(tf, column)]));
}

function one(tf: TfjsCore, { data, shape, dtype }: ColumnArray): Tensor {
  return tf.tensor(data, [...shape], dtype);
}

export function disposeTensors({ xs, ys, mask }: BatchTensors): void {
  for (const tensors of [xs, ys]) {
    if (isTensor(tensors)) tensors.dispose();
    else for (const tensor of Object.values(tensors)) tensor.dispose();
  }
  mask?.dispose();
}

function isTensor(tensors: Tensors): tensors is Tensor {
  return typeof (tensors as Tensor).dispose === "function" && Array.isArray((tensors as Tensor).shape);
}
