/**
 * The public door of `shardpact/loader`: what needs no TensorFlow.js.
 */
export { arrowBatches, type ArrowBatchesOptions } from "./arrow-batches.ts";
export type { ColumnArray, ColumnArrays, Columns } from "./batch.ts";
export type { ColumnOptions, Cols } from "./columns/options.ts";
export { loaderState, stateDigest, type LoaderState } from "./cursor.ts";
export { explainPlan, type Explanation } from "./explain.ts";
export type { MapColumns, MapContext } from "./feed.ts";
export type { LoaderOptions } from "./host-loader.ts";
export type { LastRule } from "./order/slices.ts";
export type { ReadShare, ShuffleQuality } from "./order/quality.ts";
export type { Shuffle, Strength } from "./order/spec.ts";
export { batchOrigin, requireSameStep, type BatchOrigin } from "./origin.ts";
export { planLoader, type LoaderPlan, type PlanOptions } from "./plan.ts";
export { orderDigest, type Receipt, type Span } from "./receipt.ts";
export type { RunOptions } from "./reports.ts";
export type { Rng } from "../merkle/rng.ts";
export type { Reconfirm } from "./watch.ts";
