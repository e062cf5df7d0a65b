/**
 * The public door of `shardpact`: what a training script needs. Loaders without TensorFlow.js: `shardpact/loader`.
 */
export { connect, type ConnectOptions } from "./connect.ts";
export type {
  Dataset,
  Group,
  GroupPublishOptions,
  OpenLockOptions,
  OpenOptions,
  Pin,
  Run,
  TagOptions,
} from "./dataset.ts";
export type { Lock, LockedDataset } from "./client/lock.ts";
export type { PublishProgress, PublishSource, VersionInfo } from "./client/publish.ts";
export type { Notice } from "./client/session.ts";
export type { Confirmation, ConfirmedVersion, SplitSummary } from "./client/types.ts";
export { isShardpactError, ShardpactError, type ErrorCode } from "./model/errors.ts";
export { parseRef, type Ref, type RefTarget } from "./model/names.ts";
export type { Digest } from "./model/bytes.ts";
export type { Batch, BatchIterator, FitOptions, Loader, LoaderOptions } from "./tfjs/loader.ts";
export type { EvalLoader, EvalOptions } from "./tfjs/evaluation.ts";
export type { LoaderState } from "./loader/cursor.ts";
export type { BatchOrigin } from "./loader/origin.ts";
export type { Receipt } from "./loader/receipt.ts";
