/**
 * Owns what the first bytes of an encoded image say: its format, and the size that it declares, before anything is decoded.
 *
 * Only pictures made of pixels are taken, told by their first bytes: decoders know formats that are programs (SVG), too.
 * Sources: PNG (third edition) §11.2.1; ITU-T T.81 §B.2.2 (frame header of JPEG).
 */

export interface ImageHeader {
  readonly format: string;
  /** Null where it is not in the first bytes: then the decoder finds out. */
  readonly pixels: number | null;
  readonly height: number;
  readonly width: number;
}

type Size = readonly [height: number, width: number];

/** Null for anything that is no picture. */
export function imageHeader(bytes: Uint8Array): ImageHeader | null {
  const format = formatOf(bytes);
  if (format === null) return null;
  const size = format === "png" ? pngSize(bytes) : format === "jpeg" ? jpegSize(bytes) : null;
  const [height, width] = size ?? [0, 0];
  return { format, pixels: size && height * width, height, width };
}

const MAGIC: readonly (readonly [format: string, at: number, magic: string])[] = [
  ["png", 0, "\x89PNG\r\n\x1a\n"],
  ["jpeg", 0, "\xff\xd8\xff"],
  ["gif", 0, "GIF8"],
  ["webp", 8, "WEBP"],
  ["tiff", 0, "II*\0"],
  ["tiff", 0, "MM\0*"],
  ["avif", 4, "ftypavif"],
  ["avif", 4, "ftypmif1"],
];

function formatOf(bytes: Uint8Array): string | null {
  const start = Buffer.from(bytes.subarray(0, 16)).toString("latin1");
  return MAGIC.find(([, at, magic]) => start.startsWith(magic, at))?.[0] ?? null;
}

function pngSize(bytes: Uint8Array): Size | null {
  if (bytes.byteLength < 24) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return [view.getUint32(20), view.getUint32(16)];
}

/** Walks the segments to the frame header. */
function jpegSize(bytes: Uint8Array): Size | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const { marker, at } of jpegSegments(bytes)) {
    if (isFrame(marker)) return at + 9 <= bytes.byteLength ? [view.getUint16(at + 5), view.getUint16(at + 7)] : null;
  }
  return null;
}

/** Components that are not subsampled at all, or colour at half the width, or at half of both: as nearly all files are. */
const PLAIN_SAMPLINGS = ["11", "11,11,11", "21,11,11", "22,11,11"];
const ICC = "ICC_PROFILE";

/**
 * Channels of a JPEG that every decoder reads alike: 8 bits, grey or in three components, not progressive, without a colour
 * profile to be applied. Null for any other.
 */
export function plainJpegChannels(bytes: Uint8Array): 1 | 3 | null {
  let channels: 1 | 3 | null = null;
  for (const { marker, at } of jpegSegments(bytes)) {
    if (marker === 0xda) return channels;
    if (marker === 0xe2 && Buffer.from(bytes.subarray(at + 4, at + 4 + ICC.length)).toString("latin1") === ICC)
      return null;
    if (!isFrame(marker)) continue;
    const count = bytes[at + 9] ?? 0;
    const sampling = Array.from({ length: count }, (_, i) => (bytes[at + 11 + 3 * i] ?? 0).toString(16)).join();
    const isPlain = (marker === 0xc0 || marker === 0xc1) && bytes[at + 4] === 8 && PLAIN_SAMPLINGS.includes(sampling);
    if (!isPlain || channels !== null) return null;
    channels = count === 1 ? 1 : 3;
  }
  return null;
}

function isFrame(marker: number): boolean {
  return marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
}

/** The segments before the first scan, and that one's head: where each marker stands, its length behind it. */
function* jpegSegments(bytes: Uint8Array): Generator<{ readonly marker: number; readonly at: number }> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 2; at + 4 <= bytes.byteLength;) {
    if (bytes[at] !== 0xff) return;
    const marker = bytes[at + 1] as number;
    if (marker === 0xff) {
      at++; // filling
      continue;
    }
    if (marker < 0xc0 || marker === 0xd9) return;
    yield { marker, at };
    if (marker === 0xda) return;
    at += 2 + view.getUint16(at + 2);
  }
}
