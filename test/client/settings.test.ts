import { expect, it } from "vitest";
import { loadSettings } from "../../src/client/settings.ts";

it("refuses a cache that could keep nothing, or has no folder", async () => {
  const bad = [
    { dir: "c", bytesMax: 0 },
    { dir: "c", bytesMax: 1024 },
    { dir: "c", bytesMax: Number.NaN },
    { bytesMax: 2 ** 30 },
  ];
  for (const cache of [...bad, 5]) {
    await expect(loadSettings({ cache } as never, {}, "/nowhere")).rejects.toMatchObject({ code: "config_invalid" });
  }
  const { cache } = await loadSettings({ cache: { dir: "c", bytesMax: 2 ** 24 } }, {}, "/nowhere");
  expect(cache).toEqual({ dir: "/nowhere/c", bytesMax: 2 ** 24 });
});
