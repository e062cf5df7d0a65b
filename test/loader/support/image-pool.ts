/**
 * A few tiny encoded images whose pixels are known.
 */
import sharp from "sharp";

/** Encoded images by channels, and their pixels. */
export interface ImagePool {
  readonly height: number;
  readonly width: number;
  readonly encoded: Readonly<Record<1 | 3, readonly Uint8Array[]>>;
  readonly pixelsOf: ReadonlyMap<string, readonly number[]>;
}

export async function imagePool(): Promise<ImagePool> {
  const [height, width] = [2, 3];
  const pixelsOf = new Map<string, readonly number[]>();
  const encode =
    (channels: 1 | 3) =>
    async (_: unknown, n: number): Promise<Uint8Array> => {
      const pixels = Uint8Array.from({ length: height * width * channels }, (_v, i) => (i * 37 + n * 91) % 256);
      const raw = sharp(pixels, { raw: { width, height, channels } }).toColourspace(channels === 1 ? "b-w" : "srgb");
      const bytes = new Uint8Array(await raw.png().toBuffer());
      pixelsOf.set(Buffer.from(bytes).toString("hex"), [...pixels]);
      return bytes;
    };
  const five = Array.from({ length: 5 });
  const encoded = { 1: await Promise.all(five.map(encode(1))), 3: await Promise.all(five.map(encode(3))) };
  return { height, width, encoded, pixelsOf };
}
