/**
 * What is asked for in vain is refused: an option that nobody looks at would train another model in silence.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { createHostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { schemaFromCanonical } from "../../src/shards/schema.ts";
import { makeVersion, numberedBatches, type TestVersion } from "./support/version.ts";

let data: TestVersion;
beforeAll(async () => {
  data = await makeVersion({ splits: { train: numberedBatches(40, 8) } });
});
afterAll(() => data.close());

const make = (o: object) => createHostLoader(data.version, { xs: "x", batchSize: 4, ...o } as unknown as LoaderOptions);
const refusal = (message: RegExp, hint = /./s) =>
  expect.objectContaining({
    code: "invalid_argument",
    message: expect.stringMatching(message) as string,
    hint: expect.stringMatching(hint) as string,
  }) as Error;

test.each([
  [{ xs: { x: { shap: [3] } } }, /'shap' is no option of 'x'/, /shape/],
  [{ xs: { x: { pad: { lenght: 3 } } } }, /'lenght' is no option of pad of 'x'/, /length/],
  [{ xs: { x: { image: { chanels: 3 } } } }, /'chanels' is no option of image of 'x'/, /channels/],
  [{ xs: { x: true } }, /options of 'x'/, /\{\}/],
  [{ xs: undefined }, /xs names no column/, /^/],
  [{ xs: null }, /xs names no column/, /^/],
  [{ receipt: "byte" }, /receipt must be one of order, bytes/, /^/],
  [{ onUnconfirmed: "go on" }, /onUnconfirmed/, /^/],
  [{ onUnfit: "leave" }, /onUnfit/, /^/],
  [{ reconfirm: "never" }, /reconfirm must be open, epoch/, /^/],
  [{ reconfirm: { everyMs: 0 } }, /reconfirm/, /^/],
  [{ reconfirm: null }, /reconfirm/, /^/],
  [{ run: "exp-1" }, /run must be .*not "exp-1"/, /^/],
  [{ map: "flip" }, /map must be a function/, /^/],
  [{ seed: 2 ** 60, shuffle: true }, /seed/, /bigint/],
  [{ batchSize: "4" }, /not "4"/, /^/],
])("%o", (o, message, hint) => {
  expect(() => make(o)).toThrow(refusal(message, hint));
});

test("a map that gives nothing, or a promise, is told so", async () => {
  const maps = [
    [() => undefined, /map gave nothing/],
    [async (columns: unknown) => columns, /map gave a promise/],
    [() => ({ xs: {} }), /map gave no/],
  ] as const;
  for (const [map, message] of maps) {
    await using loader = make({ map });
    await expect(loader.iterate().next()).rejects.toEqual(refusal(message));
  }
});

test("what is no state is not called one of another order", () => {
  for (const resume of [{}, null, "x"]) {
    expect(() => make({ resume })).toThrow(
      expect.objectContaining({
        code: "resume_mismatch",
        message: expect.stringMatching(/no loader state/) as string,
      }) as Error,
    );
  }
});

test("a name is found in whichever form its letters were typed", () => {
  const schema = schemaFromCanonical(data.version.schema);
  expect(schema.fields.map(({ name }) => name)).toContain("x");
  const text = new TextDecoder().decode(data.version.schema).replaceAll('"x"', '"größe"');
  const version = { ...data.version, schema: new TextEncoder().encode(text) };
  const name = "größe".normalize("NFD");
  expect(name).not.toBe("größe");
  expect(createHostLoader(version, { xs: name, batchSize: 4 }).plan.rows).toBe(40);
});
