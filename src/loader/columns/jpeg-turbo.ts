/**
 * Owns small JPEG pictures: through libjpeg-turbo as WebAssembly, an optional package, in the thread that asks.
 *
 * sharp sets up a pipeline and wakes threads for each picture, which costs more than a small one itself does. Both end in
 * the same integer arithmetic, so the pixels are the same (by test). Whatever this decoder does not take, or takes with the
 * slightest warning, is sharp's to judge: it refuses nothing that sharp would take, and takes nothing that sharp would refuse.
 *
 * One difference is left. Values that no encoder writes, from a bit that fell over where the code has no check, overflow:
 * native code with vector instructions ends them at the largest number, portable code (this, and sharp on other processors)
 * goes round.
 */
import { createRequire } from "node:module";
import { plainJpegChannels } from "../../shards/image-header.ts";

export interface JpegTurbo {
  /** Rows of pixels, `channels` bytes each, valid until the next call; null: ask sharp. */
  decode(bytes: Uint8Array, height: number, width: number, channels: number): Uint8Array | null;
}

/** Beyond, vector instructions that only native code has are worth sharp's pipeline (measured: equal at 512 × 512). */
const PIXELS_MAX = 2 ** 18;
/** The decoder's memory never shrinks. */
const BYTES_MAX = 4 * 1024 * 1024;
/** Each refusal leaves some bytes behind in the decoder's memory. A data set of which so many were refused is none for it. */
const REFUSALS_MAX = 64;

/** The package's own interface. It throws the address of an exception, a number. */
interface TurboModule {
  readonly JPEGDecoder: new () => {
    getEncodedBuffer(bytes: number): Uint8Array;
    decode(): void;
    getDecodedBuffer(): Uint8ClampedArray<ArrayBuffer>;
    getFrameInfo(): { readonly height: number; readonly width: number; readonly componentCount: number };
  };
}
type TurboFactory = (options: { readonly printErr: () => void }) => Promise<TurboModule>;

/** A decoder of this thread; null when the package is not installed. */
export async function loadJpegTurbo(): Promise<JpegTurbo | null> {
  const require = createRequire(import.meta.url);
  try {
    const factory = require("@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasmjs") as TurboFactory;
    return createJpegTurbo(await factory({ printErr: () => undefined }));
  } catch {
    return null;
  }
}

function createJpegTurbo({ JPEGDecoder }: TurboModule): JpegTurbo {
  const decoder = new JPEGDecoder();
  let refusals = 0;
  return {
    decode(bytes, height, width, channels) {
      if (refusals >= REFUSALS_MAX || height * width > PIXELS_MAX || bytes.byteLength > BYTES_MAX) return null;
      if (plainJpegChannels(bytes) !== channels) return null;
      try {
        decoder.getEncodedBuffer(bytes.byteLength).set(bytes);
        decoder.decode();
      } catch (error) {
        refusals = typeof error === "number" ? refusals + 1 : REFUSALS_MAX; // anything else: it is broken
        return null;
      }
      const found = decoder.getFrameInfo();
      const isAsDeclared = found.height === height && found.width === width && found.componentCount === channels;
      if (!isAsDeclared) return null;
      const pixels = decoder.getDecodedBuffer();
      return new Uint8Array(pixels.buffer, pixels.byteOffset, pixels.byteLength);
    },
  };
}
