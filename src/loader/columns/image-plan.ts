/**
 * Owns what a caller may say about encoded images, and the shape that follows.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { ColumnOptions } from "./options.ts";
import type { ImagePlan } from "./column-plan.ts";

const SIDE_MAX = 16_384;

/** @throws ShardpactError `invalid_argument` */
export function imageOf(name: string, { image }: ColumnOptions): ImagePlan {
  const { channels = 3, resize = null, scale = 1 } = image ?? {};
  const isSize = resize === null || resize.every((side) => Number.isInteger(side) && side >= 1 && side <= SIDE_MAX);
  if (isSize && [1, 3, 4].includes(channels) && Number.isFinite(scale)) return { channels, resize, scale };
  throw new ShardpactError("invalid_argument", `image of '${name}' has channels, a size or a scale that can't be`, {
    details: { column: name, image },
    hint: `Channels are 1, 3 or 4; resize is [height, width], each up to ${SIDE_MAX}.`,
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
