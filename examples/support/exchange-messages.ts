/**
 * Owns what workers say to each other: messages of a JSON header and bytes, and a worker's contribution to a step as
 * bytes that travel in parts.
 */
import { createHash } from "node:crypto";
import { batchOrigin } from "shardpact/loader";
import { z } from "zod";

/** One message on NATS; a server takes 1 MiB unless told otherwise, and smaller ones let others in between. */
export const PART_BYTES = 64 * 1024;
/** What a contribution may hold beside its gradient: origin, row ids. */
export const HEADER_BYTES_MAX = 1024 * 1024;

const count = z.number().int().nonnegative();
/** `process`: drawn at a worker's start, so that two processes that came as one rank are told apart. */
const sender = { rank: count, process: z.uuid() };

const message = z.discriminatedUnion("kind", [
  /** I am here, and I listen. */
  z.object({ kind: z.literal("hello"), ...sender }),
  /** Bytes from `offset` on of my contribution to step `step`, which has `total` bytes. */
  z.object({ kind: z.literal("part"), ...sender, step: count, offset: count, total: count }),
  /** I hold all contributions to the step, each is good, and this is the digest of all of them. */
  z.object({ kind: z.literal("ready"), ...sender, step: count, digest: z.string() }),
  /** I stop, and why. */
  z.object({ kind: z.literal("leave"), ...sender, reason: z.string().max(2000) }),
]);
export type Message = z.infer<typeof message>;

const contributionHeader = z.object({
  origin: batchOrigin,
  /** Digest of the weights that the gradient was computed with. */
  weights: z.string(),
  loss: z.number(),
  ids: z.array(count),
});
/** What one worker brings to a step: a gradient, and what it was made from. */
export type Contribution = z.infer<typeof contributionHeader> & { readonly gradient: Float32Array };

export const encodeMessage = (header: Message, bytes: Uint8Array = new Uint8Array(0)): Uint8Array =>
  join(header, bytes);

/** Null for what is no message of ours. */
export function decodeMessage(data: Uint8Array): { readonly header: Message; readonly bytes: Uint8Array } | null {
  const parts = split(data);
  const header = message.safeParse(parts?.header);
  return parts && header.success ? { header: header.data, bytes: parts.bytes } : null;
}

export function encodeContribution({ gradient, ...header }: Contribution): Uint8Array {
  return join(header, new Uint8Array(gradient.buffer, gradient.byteOffset, gradient.byteLength));
}

/** Null for bytes that are no contribution. */
export function decodeContribution(data: Uint8Array): Contribution | null {
  const parts = split(data);
  const header = contributionHeader.safeParse(parts?.header);
  if (!parts || !header.success || parts.bytes.byteLength % 4 !== 0) return null;
  return { ...header.data, gradient: new Float32Array(new Uint8Array(parts.bytes).buffer) };
}

export function digestOf(...all: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const bytes of all) hash.update(bytes);
  return hash.digest("hex");
}

/** u32 length of the header, the header as JSON, the bytes. */
function join(header: object, bytes: Uint8Array): Uint8Array {
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.byteLength);
  return Buffer.concat([length, text, bytes]);
}

function split(data: Uint8Array): { readonly header: unknown; readonly bytes: Uint8Array } | null {
  const all = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const from = all.byteLength < 4 ? Infinity : 4 + all.readUInt32LE(0);
  if (from > all.byteLength) return null;
  try {
    return { header: JSON.parse(all.toString("utf8", 4, from)) as unknown, bytes: all.subarray(from) };
  } catch {
    return null;
  }
}
