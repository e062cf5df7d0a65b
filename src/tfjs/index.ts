/**
 * The public door of `shardpact/tfjs`: loaders in the shape that TensorFlow.js takes.
 */
export {
  createEvaluation,
  type EvalBatch,
  type EvalIterator,
  type EvalLoader,
  type EvalOptions,
} from "./evaluation.ts";
export { createLoader, type Batch, type BatchIterator, type FitOptions, type Loader } from "./loader.ts";
export { checkpoint, checkpointedState, restore, type CheckpointOptions, type Restored } from "./checkpoint.ts";
export type { LoaderOptions } from "../loader/host-loader.ts";
export type { BatchTensors, Tensors } from "./tensors.ts";
