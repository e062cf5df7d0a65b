import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createBufferPool, type PooledBuffer } from "../../src/shards/buffer-pool.ts";

const MiB = 1024 * 1024;

describe("the buffer pool", () => {
  it("reuses memory and never holds more than its bound", async () => {
    const property = fc.asyncProperty(fc.array(fc.integer({ min: 1, max: MiB }), { maxLength: 60 }), async (sizes) => {
      using pool = createBufferPool(4 * MiB);
      const lent: PooledBuffer[] = [];
      for (const size of sizes) {
        while (pool.bytesInUse + size * 1.125 + 64 > pool.bytesMax) lent.shift()?.release();
        const buffer = await pool.acquire(size);
        expect(buffer.bytes.byteLength).toBeGreaterThanOrEqual(size);
        expect(buffer.bytes.byteLength).toBeLessThanOrEqual(Math.max(128, size * 1.25));
        expect(buffer.bytes.byteOffset % 64).toBe(0);
        lent.push(buffer);
        expect(pool.bytesInUse).toBeLessThanOrEqual(pool.bytesMax);
      }
    });
    await fc.assert(property, { numRuns: 50 });
    using pool = createBufferPool(MiB);
    const first = await pool.acquire(1000);
    const memory = first.bytes.buffer;
    first.release();
    first.release();
    expect((await pool.acquire(1000)).bytes.buffer).toBe(memory);
  });

  it("makes others wait in turn, and gives way to abort and close", async () => {
    const pool = createBufferPool(2 * MiB);
    const held = await pool.acquire(1.5 * MiB);
    const order: string[] = [];
    const abort = new AbortController();
    const large = pool.acquire(2 * MiB, abort.signal).catch((error: { code: string }) => order.push(error.code));
    const small = pool.acquire(100).then((buffer) => {
      order.push("small");
      return buffer;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(order).toEqual([]); // the small one does not overtake
    abort.abort();
    await large;
    (await small).release();
    expect(order).toEqual(["aborted", "small"]);
    const waiting = pool.acquire(2 * MiB);
    pool.close();
    await expect(waiting).rejects.toMatchObject({ code: "closed" });
    await expect(pool.acquire(1)).rejects.toMatchObject({ code: "closed" });
    held.release();
  });

  it("refuses what can never fit", async () => {
    using pool = createBufferPool(MiB);
    await expect(pool.acquire(2 * MiB)).rejects.toMatchObject({ code: "budget_too_small" });
  });
});
