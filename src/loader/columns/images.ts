/**
 * Owns decoding the images of a job in the thread that it is called in: through sharp, some at a time, so that memory is
 * bounded; small JPEG pictures, where a decoder for them is installed, one after the other.
 */
import { ShardpactError, toShardpactError } from "../../model/errors.ts";
import { LIMITS } from "../../model/limits.ts";
import { imageHeader, type ImageHeader } from "../../shards/image-header.ts";
import { encodedOf, rowsOf, type ImageFailure, type ImageJob, type ImageOutcome } from "./image-job.ts";
import { IMAGE_PIXELS_MAX_DEFAULT } from "./image-plan.ts";
import { loadJpegTurbo, type JpegTurbo } from "./jpeg-turbo.ts";

type Sharp = typeof import("sharp");

interface Decoders {
  readonly sharp: Sharp["default"];
  readonly turbo: JpegTurbo | null;
}

const DECODED_AT_ONCE = 8;
/** Pixels of all pictures that a thread decodes, unless it is one: some formats are unpacked whole, at up to eight bytes each. */
const PIXELS_AT_ONCE = IMAGE_PIXELS_MAX_DEFAULT / LIMITS.imageThreadsMax;

/**
 * Pixels of all images, `job.width` numbers each, 0 … 255 times the scale. Never rejects; settles when nothing reads the
 * encoded bytes any more.
 * @param memory of `pixelBytesOf(job)`, of any content: the pixels are written there
 * @param isStopped asked before each image: whether anybody still wants them
 */
export async function decodeImages(
  job: ImageJob,
  memory: ArrayBufferLike,
  isStopped: () => boolean,
): Promise<ImageOutcome> {
  try {
    return await decodeAll(job, new Float32Array(memory), await loadDecoders(), isStopped);
  } catch (error) {
    return { kind: "failed", error: toShardpactError(error).toJSON() };
  }
}

async function decodeAll(
  job: ImageJob,
  out: Float32Array,
  { sharp, turbo }: Decoders,
  isStopped: () => boolean,
): Promise<ImageOutcome> {
  const { image, width, nullValue } = job;
  const rows = rowsOf(job);
  const running = new Set<Promise<void>>();
  let pixelsRunning = 0;
  let failure: ImageFailure | null = null;

  function put(row: number, pixels: Uint8Array): void {
    out.set(pixels, row * width);
    if (image.scale !== 1) scaleBy(image.scale, out, row * width, (row + 1) * width);
  }
  async function decode(row: number, bytes: Uint8Array): Promise<void> {
    const pixels = await decodeOne(sharp, job, row, bytes);
    if (pixels instanceof Uint8Array) put(row, pixels);
    else failure ??= pixels;
  }

  for (let row = 0; row < rows && failure === null; row++) {
    const bytes = encodedOf(job, row);
    if (!bytes) {
      out.fill(nullValue, row * width, (row + 1) * width);
      continue;
    }
    const header = isStopped() ? ({ kind: "stopped" } as const) : checkHeader(job, row, bytes);
    if ("kind" in header) {
      failure = header;
      break;
    }
    const atOnce = image.resize ? null : decodeAtOnce(turbo, job, header, bytes);
    if (atOnce) {
      put(row, atOnce);
      continue;
    }
    const pixels = header.pixels ?? image.pixelsMax;
    const isFull = () =>
      running.size >= DECODED_AT_ONCE || (running.size > 0 && pixelsRunning + pixels > PIXELS_AT_ONCE);
    while (isFull()) await Promise.race(running);
    pixelsRunning += pixels;
    const decoding = decode(row, bytes).finally(() => {
      running.delete(decoding);
      pixelsRunning -= pixels;
    });
    running.add(decoding);
  }
  await Promise.all(running); // whatever fails: the encoded bytes are views, and belong to others afterwards
  return failure ?? { kind: "pixels" };
}

const HINT = "Publish the dataset without it, or mend the file.";

/** Refuses by what an image says of itself, before it is decoded. */
function checkHeader({ image, shape }: ImageJob, row: number, bytes: Uint8Array): ImageHeader | ImageFailure {
  const { resize, pixelsMax, channels } = image;
  const header = imageHeader(bytes);
  if (header === null) {
    return { kind: "malformed", row, said: "it is no PNG, JPEG, WebP, GIF, TIFF or AVIF", hint: HINT };
  }
  if (header.pixels !== null && header.pixels > pixelsMax) {
    const said = `it declares ${header.height} × ${header.width} pixels; ${pixelsMax} are allowed`;
    const hint = "Pass image: { pixelsMax } if it is honest, or publish the dataset without it.";
    return { kind: "malformed", row, said, hint };
  }
  const [height, width] = shape.length === 3 ? shape : [];
  const isOther = height !== undefined && (header.height !== height || header.width !== width);
  if (resize || header.pixels === null || !isOther) return header;
  return { kind: "other_shape", row, shape: [header.height, header.width, channels] };
}

function scaleBy(scale: number, values: Float32Array, from: number, to: number): void {
  for (let i = from; i < to; i++) values[i] = (values[i] as number) * scale;
}

/** Pixels of a small JPEG, valid until the next call; null for any other picture, or where there is no decoder for it. */
function decodeAtOnce(
  turbo: JpegTurbo | null,
  { image, width }: ImageJob,
  header: ImageHeader,
  bytes: Uint8Array,
): Uint8Array | null {
  if (header.format !== "jpeg" || header.pixels === null || header.pixels * image.channels !== width) return null;
  return turbo?.decode(bytes, header.height, header.width, image.channels) ?? null;
}

async function decodeOne(
  sharp: Sharp["default"],
  { image, width }: ImageJob,
  row: number,
  bytes: Uint8Array,
): Promise<Uint8Array | ImageFailure> {
  const { channels, resize, pixelsMax } = image;
  try {
    let pipeline = sharp(bytes, { limitInputPixels: pixelsMax, failOn: "error" }).toColourspace(
      channels === 1 ? "b-w" : "srgb",
    );
    if (resize) pipeline = pipeline.resize(resize[1], resize[0], { fit: "fill" });
    pipeline = channels === 4 ? pipeline.ensureAlpha() : pipeline.removeAlpha();
    const { info, data } = await pipeline.raw().toBuffer({ resolveWithObject: true });
    if (info.channels === channels && data.byteLength === width) return data;
    return { kind: "other_shape", row, shape: [info.height, info.width, info.channels] };
  } catch (cause) {
    return { kind: "malformed", row, said: cause instanceof Error ? cause.message : String(cause), hint: HINT };
  }
}

/** Of this thread. */
let decoders: Promise<Decoders> | null = null;

async function loadDecoders(): Promise<Decoders> {
  decoders ??= Promise.all([loadSharp(), loadJpegTurbo()]).then(([sharp, turbo]) => ({ sharp, turbo }));
  return decoders;
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
