/**
 * Encoded images that nobody vouches for: cut off, empty, programs, or of a size that no memory holds.
 */
import { crc32 } from "node:zlib";
import { Binary, makeVector } from "apache-arrow";
import sharp from "sharp";
import { expect, test } from "vitest";
import { imageHeader } from "../../src/shards/image-header.ts";
import type { ColumnOptions } from "../../src/loader/columns/options.ts";
import { createHostLoader } from "../../src/loader/host-loader.ts";
import { dataOf } from "./support/arrow-data.ts";
import { batchOf, makeVersion } from "./support/version.ts";

const MiB = 1024 * 1024;

async function read(
  images: readonly (Uint8Array | null)[],
  image: ColumnOptions["image"],
  rest: ColumnOptions = {},
): Promise<number[]> {
  await using data = await makeVersion({ splits: { "": [batchOf({ c: makeVector(dataOf(new Binary(), images)) })] } });
  await using loader = createHostLoader(data.version, { xs: { c: { image: image ?? {}, ...rest } }, batchSize: 1000 });
  return [...((await loader.iterate().next())?.columns.xs["c"]?.data ?? [])];
}

const picture = (height: number, width: number, n: number) =>
  sharp(
    Uint8Array.from({ length: height * width * 3 }, (_, i) => (i * 31 + n * 7) % 256),
    { raw: { height, width, channels: 3 } },
  );

/** A PNG that declares a size and has nothing in it. */
function declaring(height: number, width: number): Uint8Array {
  const chunk = (type: string, body: Buffer): Buffer => {
    const named = Buffer.concat([Buffer.from(type, "latin1"), body]);
    const frame = Buffer.alloc(8);
    frame.writeUInt32BE(body.length, 0);
    frame.writeUInt32BE(crc32(named), 4);
    return Buffer.concat([frame.subarray(0, 4), named, frame.subarray(4)]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const magic = Buffer.from("\x89PNG\r\n\x1a\n", "latin1");
  return new Uint8Array(
    Buffer.concat([magic, chunk("IHDR", header), chunk("IDAT", Buffer.alloc(9)), chunk("IEND", Buffer.alloc(0))]),
  );
}

test("one that declares more pixels than are allowed is refused before it is decoded", async () => {
  const rss = process.memoryUsage().rss;
  for (const bomb of [declaring(60_000, 60_000), declaring(2 ** 31 - 1, 2 ** 31 - 1), declaring(1, 2 ** 31)]) {
    await expect(read([bomb], { resize: [2, 2] })).rejects.toMatchObject({
      code: "image_malformed",
      details: { column: "c", row: 0 },
    });
  }
  const jpeg = new Uint8Array(await picture(40, 50, 0).jpeg().toBuffer());
  await expect(read([jpeg], { resize: [2, 2], pixelsMax: 1999 })).rejects.toThrow(/40 × 50 pixels; 1999 are allowed/);
  expect((await read([jpeg], { resize: [2, 2], pixelsMax: 2000 })).length).toBe(12);
  const webp = new Uint8Array(await picture(40, 50, 0).webp().toBuffer()); // its decoder finds out
  await expect(read([webp], { resize: [2, 2], pixelsMax: 1999 })).rejects.toMatchObject({ code: "image_malformed" });
  await expect(read([jpeg], { resize: [2, 2], pixelsMax: 0 })).rejects.toMatchObject({ code: "invalid_argument" });
  expect(process.memoryUsage().rss - rss).toBeLessThan(300 * MiB);
});

test("one of another size than all have is refused before it is decoded", async () => {
  await expect(read([declaring(8000, 8000)], {}, { shape: [2, 3, 3] })).rejects.toMatchObject({
    code: "shape_differs",
    details: { shape: [8000, 8000, 3] },
  });
});

test("what is no picture made of pixels is refused: a program is not run", async () => {
  const svg = new TextEncoder().encode(
    '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>',
  );
  for (const bytes of [
    svg,
    new Uint8Array(0),
    Uint8Array.of(0x89),
    new TextEncoder().encode("%PDF-1.7"),
    new Uint8Array(64),
  ]) {
    await expect(read([bytes], { resize: [2, 2] })).rejects.toMatchObject({ code: "image_malformed" });
  }
});

test("one that is cut off anywhere is refused, or its pixels are right", async () => {
  for (const format of ["png", "jpeg"] as const) {
    const whole = new Uint8Array(await picture(9, 7, 3).toFormat(format).toBuffer());
    const expected = await read([whole], {}, { shape: [9, 7, 3] });
    const cuts = Array.from({ length: whole.length - 1 }, (_, i) => i).filter(
      (i) => i % 9 === 0 || i > whole.length - 20,
    );
    let refused = 0;
    for (const cut of cuts) {
      const got = await read([whole.subarray(0, cut)], {}, { shape: [9, 7, 3] }).catch((error: unknown) => {
        expect(error).toMatchObject({ code: "image_malformed", details: { row: 0 } });
        refused++;
        return expected;
      });
      expect(got).toEqual(expected);
    }
    expect(refused).toBeGreaterThan(cuts.length - 15); // the last bytes of a file say only that it ends
  }
});

test("many at a time come in their places, and a bad one is named", async () => {
  const images = await Promise.all(
    Array.from({ length: 40 }, async (_, n) =>
      n % 7 === 3 ? null : new Uint8Array(await picture(5, 4, n).png().toBuffer()),
    ),
  );
  const pixels = await read(images, {}, { shape: [5, 4, 3], nulls: -1 });
  images.forEach((image, n) => {
    const expected = Array.from({ length: 60 }, (_, i) => (image === null ? -1 : (i * 31 + n * 7) % 256));
    expect(pixels.slice(n * 60, (n + 1) * 60)).toEqual(expected);
  });
  images[22] = Uint8Array.of(1, 2, 3);
  await expect(read(images, {}, { shape: [5, 4, 3], nulls: -1 })).rejects.toMatchObject({
    code: "image_malformed",
    details: { row: 22 },
  });
});

test("headers tell the size of PNG and JPEG, and never fail", async () => {
  const jpeg = await picture(40, 50, 0)
    .jpeg({ progressive: true })
    .withExif({ IFD0: { Copyright: "x".repeat(3000) } })
    .toBuffer();
  expect(imageHeader(jpeg)).toMatchObject({ format: "jpeg", height: 40, width: 50, pixels: 2000 });
  expect(imageHeader(await picture(40, 50, 0).png().toBuffer())).toMatchObject({
    format: "png",
    height: 40,
    width: 50,
  });
  expect(imageHeader(await picture(40, 50, 0).avif().toBuffer())).toMatchObject({ format: "avif", pixels: null });
  for (let cut = 0; cut < jpeg.length; cut++) imageHeader(jpeg.subarray(0, cut));
});
