/**
 * Owns making tensors of host columns. tfjs is loaded when the first batch is, so a loader can be made without it.
 *
 * The tensors alias the batch's arrays, which nobody else holds; where the backend has copied one, it is given back.
 */
import type * as Tfjs from "@tensorflow/tfjs-core";
import type { ColumnArray, ColumnArrays } from "../loader/batch.ts";
import { listColumns, type Cols } from "../loader/columns/options.ts";
import type { HostBatch } from "../loader/feed.ts";
import { ShardpactError } from "../model/errors.ts";
import { copyNow } from "./backend-copy.ts";
import { findTfjsCore } from "./core-module.ts";

export type TfjsCore = typeof Tfjs;

/** One tensor for one column, else tensors by column name. Rows are the first dimension. */
export type Tensors = Tfjs.Tensor | { [column: string]: Tfjs.Tensor };

export interface BatchTensors {
  readonly xs: Tensors;
  readonly ys: Tensors;
  readonly mask?: Tfjs.Tensor1D;
}

let core: Promise<TfjsCore> | null = null;

/**
 * The tfjs-core that the caller's backend registered itself with: the one module instance of the process. Its backend
 * is ready: some start in the background.
 * @throws ShardpactError `setup_failed` when tfjs-core is not installed, or no backend is registered or starts
 */
export async function loadTfjs(): Promise<TfjsCore> {
  core ??= importCore();
  const tf = await core;
  try {
    await tf.ready();
  } catch (cause) {
    const none = Object.keys(tf.engine().registryFactory).length === 0;
    const what = none ? "no TensorFlow.js backend is registered" : "no TensorFlow.js backend could be started";
    throw new ShardpactError("setup_failed", `${what}: tensors need one`, {
      cause,
      hint: "Import @tensorflow/tfjs-node (or another backend) in this script, before the first batch.",
    });
  }
  return tf;
}

async function importCore(): Promise<TfjsCore> {
  try {
    return (await import(findTfjsCore(import.meta.url))) as TfjsCore;
  } catch (cause) {
    core = null;
    throw new ShardpactError("setup_failed", "@tensorflow/tfjs-core could not be loaded", {
      cause,
      hint: "Install @tensorflow/tfjs-node (or @tensorflow/tfjs) beside shardpact.",
    });
  }
}

type Recycle = HostBatch["recycle"];

/** Columns that stay one dimension where a model gets them: those whose `shape` is `[]`. */
export interface Scalars {
  readonly xs: ReadonlySet<string>;
  readonly ys: ReadonlySet<string>;
}

/**
 * Tensors of a batch; the caller disposes them, and does not look at the batch's arrays any more.
 * @param forModel null: shapes as the columns have them. Else single values are [rows, 1], as `model.fit`, `evaluate` and `trainOnBatch` make
 * them and `fitDataset` does not: a model's output is [rows, 1], and minus [rows] it is [rows, rows], of which the loss is a number, too.
 */
export function toTensors(
  tf: TfjsCore,
  { columns: { xs, ys, mask }, recycle }: HostBatch,
  forModel: Scalars | null,
): BatchTensors {
  const tensors = {
    xs: toTensor(tf, xs, forModel?.xs ?? null, recycle),
    ys: toTensor(tf, ys, forModel?.ys ?? null, recycle),
  };
  return mask ? { ...tensors, mask: one(tf, mask, mask.shape, recycle) as Tfjs.Tensor1D } : tensors;
}

function toTensor(tf: TfjsCore, columns: ColumnArrays, scalars: Scalars["xs"] | null, recycle: Recycle): Tensors {
  const make = (name: string, column: ColumnArray): Tfjs.Tensor => {
    const { shape } = column;
    const isSingle = shape.length === 1 && scalars !== null && !scalars.has(name);
    return one(tf, column, isSingle ? [...shape, 1] : shape, recycle);
  };
  const all = Object.entries(columns);
  const [first] = all;
  if (all.length === 1 && first) return make(...first);
  return Object.fromEntries(all.map(([name, column]) => [name, make(name, column)]));
}

function one(
  tf: TfjsCore,
  { data, texts, dtype }: ColumnArray,
  shape: readonly number[],
  recycle: Recycle,
): Tfjs.Tensor {
  if (texts) return tf.tensor([...texts], [...shape], "string");
  const tensor = tf.tensor(data, [...shape], dtype as "float32");
  if (copyNow(tf.backend(), tensor, data)) recycle(data);
  return tensor;
}

/** Of the columns that a caller asked for. */
export function scalarsOf({ xs, ys }: { readonly xs: Cols; readonly ys?: Cols | undefined }): Scalars {
  const named = (columns: Cols, what: "xs" | "ys") =>
    new Set(listColumns(columns, what).flatMap(({ name, options }) => (options.shape?.length === 0 ? [name] : [])));
  return { xs: named(xs, "xs"), ys: ys === undefined ? new Set() : named(ys, "ys") };
}

export function disposeTensors({ xs, ys, mask }: BatchTensors): void {
  for (const tensors of [xs, ys]) {
    if (isTensor(tensors)) tensors.dispose();
    else for (const tensor of Object.values(tensors)) tensor.dispose();
  }
  mask?.dispose();
}

function isTensor(tensors: Tensors): tensors is Tfjs.Tensor {
  return typeof (tensors as Tfjs.Tensor).dispose === "function" && Array.isArray((tensors as Tfjs.Tensor).shape);
}
