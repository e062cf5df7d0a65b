/**
 * Owns decoding images: through sharp, whose threads do it beside the training step. Some at a time, so that memory is bounded.
 */
import { isShardpactError, ShardpactError } from "../../model/errors.ts";
import type { RowPlace } from "./refusals.ts";
import type { ColumnPlan, ImagePlan } from "./column-plan.ts";
import { imageHeader, type ImageHeader } from "./image-header.ts";
import { IMAGE_PIXELS_MAX_DEFAULT } from "./image-plan.ts";

type Sharp = typeof import("sharp");

export interface EncodedImage {
  readonly bytes: Uint8Array;
  readonly place: RowPlace;
}

const DECODED_AT_ONCE = 8;
/** Pixels of all pictures that are being decoded: some formats are unpacked whole, at up to eight bytes each. */
const PIXELS_AT_ONCE = IMAGE_PIXELS_MAX_DEFAULT;

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
  const decode = async (row: number, encoded: EncodedImage): Promise<void> => {
    const pixels = await decodeOne(sharp, plan, image, encoded);
    const at = row * plan.width;
    out.set(pixels, at);
    if (image.scale !== 1) scaleBy(image.scale, out, at, at + plan.width);
  };
  const running = new Set<Promise<void>>();
  let pixelsRunning = 0;
  let failure: { readonly error: unknown } | null = null;
  for (let row = 0; row < images.length && failure === null; row++) {
    const encoded = images[row];
    if (!encoded) {
      if (present) present[row] = 0;
      const value = plan.nulls === "nan" ? NaN : typeof plan.nulls === "number" ? plan.nulls : 0;
      out.fill(value, row * plan.width, (row + 1) * plan.width);
      continue;
    }
    let header: ImageHeader;
    try {
      header = checkHeader(plan, image, encoded);
    } catch (error) {
      failure = { error };
      break;
    }
    const pixels = header.pixels ?? image.pixelsMax;
    const isFull = () =>
      running.size >= DECODED_AT_ONCE || (running.size > 0 && pixelsRunning + pixels > PIXELS_AT_ONCE);
    while (isFull()) await Promise.race(running);
    pixelsRunning += pixels;
    const decoding = decode(row, encoded)
      .catch((error: unknown) => void (failure ??= { error }))
      .finally(() => {
        running.delete(decoding);
        pixelsRunning -= pixels;
      });
    running.add(decoding);
  }
  await Promise.all(running); // whatever fails: the encoded bytes are views, and belong to others afterwards
  if (failure) throw failure.error;
  return out;
}

/** Refuses by what an image says of itself, before it is decoded. @throws `image_malformed`, `shape_differs` */
function checkHeader(
  plan: ColumnPlan,
  { resize, pixelsMax, channels }: ImagePlan,
  { bytes, place }: EncodedImage,
): ImageHeader {
  const header = imageHeader(bytes);
  if (header === null) throw malformedImage(plan, place, "it is no PNG, JPEG, WebP, GIF, TIFF or AVIF");
  if (header.pixels !== null && header.pixels > pixelsMax) {
    throw malformedImage(
      plan,
      place,
      `it declares ${header.height} × ${header.width} pixels; ${pixelsMax} are allowed`,
      "Pass image: { pixelsMax } if it is honest, or publish the dataset without it.",
    );
  }
  const [height, width] = plan.shape.length === 3 ? plan.shape : [];
  const isOther = height !== undefined && (header.height !== height || header.width !== width);
  if (!resize && header.pixels !== null && isOther)
    throw otherShape(plan, place, [header.height, header.width, channels]);
  return header;
}

function scaleBy(scale: number, values: Float32Array, from: number, to: number): void {
  for (let i = from; i < to; i++) values[i] = (values[i] as number) * scale;
}

async function decodeOne(
  sharp: Sharp["default"],
  plan: ColumnPlan,
  { channels, resize, pixelsMax }: ImagePlan,
  { bytes, place }: EncodedImage,
): Promise<Uint8Array> {
  try {
    let pipeline = sharp(bytes, { limitInputPixels: pixelsMax, failOn: "error" }).toColourspace(
      channels === 1 ? "b-w" : "srgb",
    );
    if (resize) pipeline = pipeline.resize(resize[1], resize[0], { fit: "fill" });
    pipeline = channels === 4 ? pipeline.ensureAlpha() : pipeline.removeAlpha();
    const { info, data } = await pipeline.raw().toBuffer({ resolveWithObject: true });
    if (info.channels === channels && data.byteLength === plan.width) return data;
    throw otherShape(plan, place, [info.height, info.width, info.channels]);
  } catch (cause) {
    if (isShardpactError(cause)) throw cause;
    throw malformedImage(plan, place, cause instanceof Error ? cause.message : String(cause), undefined, cause);
  }
}

function malformedImage(
  plan: ColumnPlan,
  place: RowPlace,
  said: string,
  hint = "Publish the dataset without it, or mend the file.",
  cause?: unknown,
): ShardpactError {
  return new ShardpactError("image_malformed", `an image of '${plan.name}' does not decode: ${said} ${where(place)}`, {
    details: { column: plan.name, ...place },
    hint,
    cause,
  });
}

function otherShape(plan: ColumnPlan, place: RowPlace, shape: readonly number[]): ShardpactError {
  return new ShardpactError(
    "shape_differs",
    `an image of '${plan.name}' is ${shape.join(" × ")}, not [${plan.shape.join(", ")}] ${where(place)}`,
    {
      details: { column: plan.name, shape, expected: plan.shape, ...place },
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
