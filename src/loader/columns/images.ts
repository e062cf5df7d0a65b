/**
 * Owns decoding images: through sharp, whose threads do it beside the training step. Some at a time, so that memory is bounded.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { RowPlace } from "./refusals.ts";
import type { ColumnPlan, ImagePlan } from "./column-plan.ts";

type Sharp = typeof import("sharp");

export interface EncodedImage {
  readonly bytes: Uint8Array;
  readonly place: RowPlace;
}

const DECODED_AT_ONCE = 8;
/** A small file can declare a picture of any size. */
const PIXELS_MAX = 2 ** 28;

/**
 * Pixels of all images, `plan.width` numbers each, 0 … 255 times the scale; null rows as the plan's `nulls` says.
 * @throws ShardpactError `image_malformed`, `shape_differs`, `setup_failed` (sharp is not installed)
 */
export async function decodeImages(
  plan: ColumnPlan,
  image: ImagePlan,
  images: readonly (EncodedImage | null)[],
  present: Float32Array | null,
): Promise<Float32Array> {
  const sharp = await loadSharp();
  const out = new Float32Array(images.length * plan.width);
  const decode = async (row: number): Promise<void> => {
    const encoded = images[row];
    const at = row * plan.width;
    if (!encoded) {
      if (present) present[row] = 0;
      out.fill(plan.nulls === "nan" ? NaN : typeof plan.nulls === "number" ? plan.nulls : 0, at, at + plan.width);
      return;
    }
    const pixels = await decodeOne(sharp, plan, image, encoded);
    const { scale } = image;
    for (let i = 0; i < plan.width; i++) out[at + i] = (pixels[i] as number) * scale;
  };
  for (let from = 0; from < images.length; from += DECODED_AT_ONCE) {
    const rows = Array.from({ length: Math.min(DECODED_AT_ONCE, images.length - from) }, (_, i) => from + i);
    await Promise.all(rows.map(decode));
  }
  return out;
}

async function decodeOne(
  sharp: Sharp["default"],
  plan: ColumnPlan,
  { channels, resize }: ImagePlan,
  { bytes, place }: EncodedImage,
): Promise<Uint8Array> {
  let pipeline = sharp(bytes, { limitInputPixels: PIXELS_MAX, failOn: "error" }).toColourspace(
    channels === 1 ? "b-w" : "srgb",
  );
  if (resize) pipeline = pipeline.resize(resize[1], resize[0], { fit: "fill" });
  pipeline = channels === 4 ? pipeline.ensureAlpha() : pipeline.removeAlpha();
  const decoded = await pipeline
    .raw()
    .toBuffer({ resolveWithObject: true })
    .catch((cause: unknown) => {
      const said = cause instanceof Error ? cause.message : String(cause);
      throw new ShardpactError(
        "image_malformed",
        `an image of '${plan.name}' does not decode: ${said} ${where(place)}`,
        {
          cause,
          details: { column: plan.name, ...place },
          hint: "Publish the dataset without it, or mend the file.",
        },
      );
    });
  const { info, data } = decoded;
  if (info.channels === channels && data.byteLength === plan.width) return data;
  throw new ShardpactError(
    "shape_differs",
    `an image of '${plan.name}' is ${info.height} × ${info.width} × ${info.channels}, not [${plan.shape.join(", ")}] ${where(place)}`,
    {
      details: { column: plan.name, shape: [info.height, info.width, info.channels], expected: plan.shape, ...place },
      hint: "Pass image: { resize: [height, width] } to fit all of them to one size.",
    },
  );
}

function where({ shard, segment, row }: RowPlace): string {
  return `(shard ${shard}, segment ${segment}, row ${row})`;
}

async function loadSharp(): Promise<Sharp["default"]> {
  try {
    return (await import("sharp")).default;
  } catch (cause) {
    throw new ShardpactError("setup_failed", "images are decoded by the package sharp, which is not installed", {
      cause,
      hint: "npm install sharp",
    });
  }
}
