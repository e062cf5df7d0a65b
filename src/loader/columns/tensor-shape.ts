/**
 * Owns the shape of one row of a column of fixed-size lists: the lists', or that of the extension type `arrow.fixed_shape_tensor`.
 */
import type { Field } from "apache-arrow";
import { ShardpactError } from "../../model/errors.ts";

const EXTENSION_NAME = "ARROW:extension:name";
const EXTENSION_METADATA = "ARROW:extension:metadata";

interface TensorShape {
  readonly shape: readonly number[];
  readonly permutation: Uint32Array | null;
}

/** The shape of one row: that of `arrow.fixed_shape_tensor` if the field is one, else the list sizes. */
export function tensorShape(name: string, field: Field, lists: readonly number[]): TensorShape {
  if (field.metadata.get(EXTENSION_NAME) !== "arrow.fixed_shape_tensor") return { shape: lists, permutation: null };
  const text = field.metadata.get(EXTENSION_METADATA) ?? "";
  let meta: { shape?: unknown; permutation?: unknown };
  try {
    meta = Object(JSON.parse(text)) as typeof meta; // `null` is JSON, too
  } catch (cause) {
    throw new ShardpactError("shard_malformed", `'${name}' has malformed tensor metadata`, { cause });
  }
  const { shape, permutation } = meta;
  const width = lists.reduce((a, b) => a * b, 1);
  if (
    !Array.isArray(shape) ||
    !shape.every((side) => Number.isInteger(side) && (side as number) > 0) ||
    shape.reduce((a: number, b: number) => a * b, 1) !== width
  ) {
    throw new ShardpactError("shard_malformed", `'${name}' has a tensor shape that is not its ${width} values`);
  }
  if (permutation === undefined || permutation === null) return { shape: shape as number[], permutation: null };
  return permuted(name, shape as number[], permutation);
}

/**
 * `permutation` maps logical to physical dimensions: logical dimension i is stored as dimension permutation[i], and `shape` is the
 * stored one. Source: Arrow's canonical extension types, Fixed shape tensor.
 */
function permuted(name: string, stored: readonly number[], permutation: unknown): TensorShape {
  const order = Array.isArray(permutation) ? (permutation as number[]) : [];
  if (order.length !== stored.length || order.toSorted((a, b) => a - b).some((p, i) => p !== i)) {
    throw new ShardpactError("shard_malformed", `'${name}' has a tensor permutation that is none of its dimensions`);
  }
  if (order.every((p, i) => p === i)) return { shape: stored, permutation: null };
  const shape = order.map((p) => stored[p] as number);
  const strides = stored.map((_, i) => stored.slice(i + 1).reduce((a, b) => a * b, 1));
  const places = new Uint32Array(shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < places.length; i++) {
    let rest = i;
    let place = 0;
    for (let d = shape.length - 1; d >= 0; d--) {
      const size = shape[d] as number;
      place += (rest % size) * (strides[order[d] as number] as number);
      rest = Math.floor(rest / size);
    }
    places[i] = place;
  }
  return { shape, permutation: places };
}
