/**
 * Owns what a caller may say about encoded images, and the shape that follows.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { ColumnOptions } from "./options.ts";
import type { ImagePlan } from "./column-plan.ts";

const SIDE_MAX = 16_384;
/** A file of some bytes can declare a picture of any size. The largest cameras for everyone make 50 million pixels. */
export const IMAGE_PIXELS_MAX_DEFAULT = 2 ** 26;
const PIXELS_MAX = 2 ** 31;

/** @throws ShardpactError `invalid_argument` */
export function imageOf(name: string, { image }: ColumnOptions): ImagePlan {
  const { channels = 3, resize = null, scale = 1, pixelsMax = IMAGE_PIXELS_MAX_DEFAULT } = image ?? {};
  const isSize = resize === null || resize.every((side) => Number.isInteger(side) && side >= 1 && side <= SIDE_MAX);
  const isBound = Number.isInteger(pixelsMax) && pixelsMax >= 1 && pixelsMax <= PIXELS_MAX;
  if (isSize && isBound && [1, 3, 4].includes(channels) && Number.isFinite(scale)) {
    return { channels, resize, scale, pixelsMax };
  }
  throw new ShardpactError("invalid_argument", `image of '${name}' has channels, sizes or a scale that can't be`, {
    details: { column: name, image },
    hint: `Channels are 1, 3 or 4; resize is [height, width], each up to ${SIDE_MAX}; pixelsMax goes to 2^31.`,
  });
}

/** [height, width, channels] of every image. @throws ShardpactError `shape_differs`, `invalid_argument` */
export function imageShape(name: string, { channels, resize }: ImagePlan, { shape }: ColumnOptions): readonly number[] {
  if (resize) return [...resize, channels];
  if (shape?.length === 3 && shape[2] === channels) return shape;
  throw new ShardpactError(
    "invalid_argument",
    `the size of the images of '${name}' has to be known before they are read`,
    {
      details: { column: name, shape: shape ?? null },
      hint: `Pass image: { resize: [height, width] }, or the shape that all of them have: [height, width, ${channels}].`,
    },
  );
}
