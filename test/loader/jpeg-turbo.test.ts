/**
 * The decoder for small JPEG pictures is held to sharp: the same pixels, and nothing taken that sharp refuses.
 */
import { spawnSync } from "node:child_process";
import sharp from "sharp";
import { beforeAll, describe, expect, test } from "vitest";
import { plainJpegChannels } from "../../src/shards/image-header.ts";
import { loadJpegTurbo, type JpegTurbo } from "../../src/loader/columns/jpeg-turbo.ts";

let turbo: JpegTurbo;
const load = async (): Promise<JpegTurbo> => {
  const loaded = await loadJpegTurbo();
  if (loaded === null) throw new Error("the package is not installed");
  return loaded;
};
beforeAll(async () => void (turbo = await load()));

/** Numbers from 0 to 1, the same in each run. */
function drawer(): () => number {
  let state = 1;
  return () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
}
const draw = drawer();

/** Noise on a slope: every coefficient has something to say. */
const picture = (height: number, width: number, channels: 1 | 3) =>
  sharp(
    Uint8Array.from({ length: height * width * channels }, (_, i) => ((i * 2) % 160) + draw() * 96),
    { raw: { height, width, channels } },
  ).toColourspace(channels === 1 ? "b-w" : "srgb");

async function bySharp(bytes: Uint8Array, channels: 1 | 3): Promise<Buffer | null> {
  const pipeline = sharp(bytes, { failOn: "error", limitInputPixels: 2 ** 22 });
  const pixels = pipeline
    .toColourspace(channels === 1 ? "b-w" : "srgb")
    .removeAlpha()
    .raw();
  return pixels.toBuffer().catch(() => null);
}

const SIZES = [
  [1, 1],
  [1, 31],
  [2, 3],
  [7, 9],
  [8, 8],
  [15, 17],
  [16, 16],
  [33, 47],
  [64, 100],
  [224, 224],
] as const;

describe.each([1, 3] as const)("of %i channels", (channels) => {
  test.each(["4:2:0", "4:4:4"])("%s: the pixels that sharp gives", async (chromaSubsampling) => {
    for (const [height, width] of SIZES) {
      for (const quality of [1, 30, 75, 90, 100]) {
        const options = { quality, chromaSubsampling, optimiseCoding: quality !== 75 };
        const jpeg = new Uint8Array(await picture(height, width, channels).jpeg(options).toBuffer());
        const pixels = turbo.decode(jpeg, height, width, channels);
        expect(pixels && Buffer.compare(pixels, (await bySharp(jpeg, channels)) as Buffer)).toBe(0);
      }
    }
  });

  test("whatever was changed in the scan: left to sharp, or the pixels of libjpeg-turbo without vector instructions", async () => {
    const jpeg = new Uint8Array(await picture(40, 50, channels).jpeg().toBuffer());
    const scanAt = Buffer.from(jpeg).indexOf("ffda", 0, "hex");
    const taken: { readonly bad: Uint8Array; readonly pixels: string }[] = [];
    for (let i = 0; i < 600; i++) {
      if (i % 60 === 0) turbo = await load(); // it gives up on a data set that is all like this
      const bad = jpeg.slice();
      for (let flips = 0; flips <= i % 3; flips++) {
        const at = scanAt + Math.floor(draw() * (bad.length - scanAt));
        bad[at] = (bad[at] as number) ^ (1 << Math.floor(draw() * 8));
      }
      const pixels = turbo.decode(bad, 40, 50, channels);
      if (pixels) taken.push({ bad, pixels: Buffer.from(pixels).toString("base64") });
    }
    expect(taken.length).toBeGreaterThan(100);
    expect(
      portable(
        taken.map(({ bad }) => bad),
        channels,
      ),
    ).toEqual(taken.map(({ pixels }) => pixels));
  });
});

/** Pixels in base64 by sharp, in a process whose libjpeg-turbo uses no vector instructions; null: refused. */
function portable(images: readonly Uint8Array[], channels: 1 | 3): unknown {
  const script = `
    import sharp from "sharp";
    import { readFileSync } from "node:fs";
    const { images, space } = JSON.parse(readFileSync(0, "utf8"));
    const decode = (image) => sharp(Buffer.from(image, "base64"), { failOn: "error" }).toColourspace(space).removeAlpha().raw().toBuffer();
    console.log(JSON.stringify(await Promise.all(images.map((image) => decode(image).then((b) => b.toString("base64"), () => null)))));
  `;
  const input = {
    images: images.map((b) => Buffer.from(b).toString("base64")),
    space: channels === 1 ? "b-w" : "srgb",
  };
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "--eval", script], {
    input: JSON.stringify(input),
    env: { ...process.env, JSIMD_FORCENONE: "1" },
    cwd: import.meta.dirname,
    maxBuffer: 64 * 1024 * 1024,
    stdio: ["pipe", "pipe", "inherit"],
  });
  return JSON.parse(stdout.toString()) as unknown;
}

test("one that is cut off anywhere is left to sharp", async () => {
  const jpeg = new Uint8Array(await picture(9, 7, 3).jpeg().toBuffer());
  for (let cut = 0; cut < jpeg.length; cut++) {
    if (cut % 50 === 0) turbo = await load();
    expect(turbo.decode(jpeg.subarray(0, cut), 9, 7, 3)).toBeNull();
  }
});

test("only what all decoders read alike is taken", async () => {
  const plain = picture(16, 16, 3);
  const jpeg = new Uint8Array(await plain.clone().jpeg().toBuffer());
  expect([plainJpegChannels(jpeg), turbo.decode(jpeg, 16, 16, 3)?.length]).toEqual([3, 16 * 16 * 3]);
  expect(turbo.decode(jpeg, 16, 17, 3)).toBeNull();
  expect(turbo.decode(jpeg, 16, 16, 1)).toBeNull();
  const others = {
    progressive: await plain.clone().jpeg({ progressive: true }).toBuffer(),
    "with a profile": await plain.clone().withIccProfile("p3").jpeg().toBuffer(),
    cmyk: await plain.clone().toColourspace("cmyk").jpeg().toBuffer(),
    png: await plain.clone().png().toBuffer(),
  };
  for (const other of Object.values(others)) {
    expect(plainJpegChannels(new Uint8Array(other))).toBeNull();
    expect(turbo.decode(new Uint8Array(other), 16, 16, 3)).toBeNull();
  }
  const twelveBits = jpeg.slice();
  twelveBits[Buffer.from(jpeg).indexOf("ffc0", 0, "hex") + 4] = 12;
  expect(plainJpegChannels(twelveBits)).toBeNull();
  for (let cut = 0; cut < jpeg.length; cut++) plainJpegChannels(jpeg.subarray(0, cut));
  const large = new Uint8Array(await picture(513, 512, 3).jpeg().toBuffer());
  expect([plainJpegChannels(large), turbo.decode(large, 513, 512, 3)]).toEqual([3, null]);
});

test("a decoder that refused many gives up, so that what they leave behind does not add up", async () => {
  const own = await load();
  const jpeg = new Uint8Array(await picture(8, 8, 3).jpeg().toBuffer());
  const cut = jpeg.subarray(0, jpeg.length - 20);
  for (let i = 0; i < 63; i++) expect(own.decode(cut, 8, 8, 3)).toBeNull();
  expect(own.decode(jpeg, 8, 8, 3)).not.toBeNull();
  expect(own.decode(cut, 8, 8, 3)).toBeNull();
  expect(own.decode(jpeg, 8, 8, 3)).toBeNull();
});
