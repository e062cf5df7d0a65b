/**
 * Owns what a loader and its decoding threads say to each other about the images of one column of one batch, as plain data
 * that travels: where the encoded bytes lie, what to make of them, and what came out.
 *
 * Bytes do not travel. They are views of the memory that tiles are read into, which threads share, and stay pinned until the
 * outcome is there. What lies elsewhere (an image of a compressed batch) is copied once.
 */
import { type ErrorJson, ShardpactError } from "../../model/errors.ts";
import type { ColumnPlan, ImagePlan } from "./column-plan.ts";
import type { RowPlace } from "./refusals.ts";

/** An image as it is stored, and its place for messages. */
export interface EncodedImage {
  readonly bytes: Uint8Array;
  readonly place: RowPlace;
}

export interface ImageJob {
  readonly image: ImagePlan;
  /** [height, width, channels] where it is known, and numbers of one row. */
  readonly shape: readonly number[];
  readonly width: number;
  /** What a row without an image becomes. */
  readonly nullValue: number;
  readonly memories: readonly (SharedArrayBuffer | ArrayBuffer)[];
  /** Of each row: which of the memories, or −1 where there is no image; offset in it; bytes. */
  readonly places: Float64Array;
}

/** Why a job has no pixels: the row that is to blame, or an error that is no row's. */
export type ImageFailure =
  | { readonly kind: "malformed"; readonly row: number; readonly said: string; readonly hint: string }
  | { readonly kind: "other_shape"; readonly row: number; readonly shape: readonly number[] }
  | { readonly kind: "failed"; readonly error: ErrorJson }
  | { readonly kind: "stopped" };

/** Pixels lie in the memory that was given for them. */
export type ImageOutcome = { readonly kind: "pixels" } | ImageFailure;

const NUMBERS_PER_PLACE = 3;

export function imageJob(plan: ColumnPlan, image: ImagePlan, images: readonly (EncodedImage | null)[]): ImageJob {
  const memories: (SharedArrayBuffer | ArrayBuffer)[] = [];
  const places = new Float64Array(images.length * NUMBERS_PER_PLACE);
  for (let row = 0; row < images.length; row++) {
    const bytes = images[row]?.bytes;
    const at = row * NUMBERS_PER_PLACE;
    if (!bytes) {
      places[at] = -1;
      continue;
    }
    const isShared = (bytes.buffer as unknown) instanceof SharedArrayBuffer;
    const memory = isShared ? bytes.buffer : bytes.slice().buffer;
    let m = memories.lastIndexOf(memory);
    if (m === -1) m = memories.push(memory) - 1;
    places[at] = m;
    places[at + 1] = isShared ? bytes.byteOffset : 0;
    places[at + 2] = bytes.byteLength;
  }
  const nullValue = plan.nulls === "nan" ? NaN : typeof plan.nulls === "number" ? plan.nulls : 0;
  return { image, shape: plan.shape, width: plan.width, nullValue, memories, places };
}

/** Bytes of a job's pixels. */
export function pixelBytesOf(job: ImageJob): number {
  return rowsOf(job) * job.width * Float32Array.BYTES_PER_ELEMENT;
}

export function rowsOf({ places }: ImageJob): number {
  return places.length / NUMBERS_PER_PLACE;
}

/** The encoded image of a row; null where there is none. */
export function encodedOf({ memories, places }: ImageJob, row: number): Uint8Array | null {
  const at = row * NUMBERS_PER_PLACE;
  const memory = memories[places[at] as number];
  return memory ? new Uint8Array(memory as ArrayBuffer, places[at + 1], places[at + 2]) : null;
}

/** The failure of a job as an error that names the row: `image_malformed`, `shape_differs`, `setup_failed`, `aborted`. */
export function failureOf(
  plan: ColumnPlan,
  images: readonly (EncodedImage | null)[],
  failure: ImageFailure,
): ShardpactError {
  switch (failure.kind) {
    case "malformed":
      return malformed(plan, failure, placeOf(images, failure.row));
    case "other_shape":
      return otherShape(plan, failure.shape, placeOf(images, failure.row));
    case "failed":
      return ShardpactError.fromJSON(failure.error);
    case "stopped":
      return new ShardpactError("aborted", "decoding images was aborted");
  }
}

function malformed(plan: ColumnPlan, { said, hint }: { said: string; hint: string }, place: RowPlace): ShardpactError {
  return new ShardpactError("image_malformed", `an image of '${plan.name}' does not decode: ${said} ${where(place)}`, {
    details: { column: plan.name, ...place },
    hint,
  });
}

function otherShape(plan: ColumnPlan, shape: readonly number[], place: RowPlace): ShardpactError {
  return new ShardpactError(
    "shape_differs",
    `an image of '${plan.name}' is ${shape.join(" × ")}, not [${plan.shape.join(", ")}] ${where(place)}`,
    {
      details: { column: plan.name, shape, expected: plan.shape, ...place },
      hint: "Pass image: { resize: [height, width] } to fit all of them to one size.",
    },
  );
}

function placeOf(images: readonly (EncodedImage | null)[], row: number): RowPlace {
  return images[row]?.place ?? { shard: "", segment: -1, row };
}

function where({ shard, segment, row }: RowPlace): string {
  return `(shard ${shard}, segment ${segment}, row ${row})`;
}
