/**
 * Owns the question whether a tensor has memory of its own, so that the array it was made of can be used again.
 *
 * tfjs-node keeps a tensor's array until the first op. Then it hands it to TensorFlow, which copies it; only one that begins at a
 * multiple of 64 bytes it uses for as long as the tensor lives. Both are inner ways of tfjs-node (4.22), so an array counts
 * as copied when a change of it did not reach its tensor, tried once for each array. Other backends keep arrays.
 */
import type * as Tfjs from "@tensorflow/tfjs-core";
import type { BatchArray } from "../loader/columns/gather.ts";

/** tfjs-node's way to the inputs of an op. */
interface OpInputs {
  getInputTensorIds(tensors: readonly Tfjs.Tensor[]): unknown;
}

/** By memory, whether a tensor made of all of it is a copy. */
const copied = new WeakMap<ArrayBufferLike, boolean>();

/** Has the backend copy the tensor's values now, if it can; true when `data` is free. */
export function copyNow(backend: object, tensor: Tfjs.Tensor, data: BatchArray): boolean {
  const { getInputTensorIds } = backend as Partial<OpInputs>;
  if (!getInputTensorIds || data.length === 0 || copied.get(data.buffer) === false) return false;
  getInputTensorIds.call(backend, [tensor]);
  return copied.get(data.buffer) ?? tryOut(tensor, data);
}

/** The first value by way of an op: reading all of a large tensor would be one more copy of it. */
function firstOf(tensor: Tfjs.Tensor): number | undefined {
  const one = tensor.slice(
    tensor.shape.map(() => 0),
    tensor.shape.map(() => 1),
  );
  const [value] = one.dataSync();
  one.dispose();
  return value;
}

function tryOut(tensor: Tfjs.Tensor, data: BatchArray): boolean {
  const [first = 0] = data;
  data[0] = first === 0 ? 1 : 0;
  const isCopied = Object.is(firstOf(tensor), first);
  data[0] = first;
  copied.set(data.buffer, isCopied);
  return isCopied;
}
