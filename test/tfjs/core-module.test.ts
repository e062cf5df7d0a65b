/**
 * Which tfjs-core is found in the layouts that package managers make.
 */
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import * as backend from "@tensorflow/tfjs-node";
import { afterEach, beforeEach, expect, test } from "vitest";
import { findTfjsCore } from "../../src/tfjs/core-module.ts";
import { loadTfjs } from "../../src/tfjs/tensors.ts";

let root = "";
beforeEach(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), "shardpact-core-")));
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** Makes a package below `folder`; returns where its main file is. */
async function install(folder: string, name: string): Promise<string> {
  const at = join(folder, "node_modules", ...name.split("/"));
  await mkdir(at, { recursive: true });
  await writeFile(join(at, "package.json"), JSON.stringify({ name, version: "4.22.0", main: "main.js" }));
  await writeFile(join(at, "main.js"), `exports.at = ${JSON.stringify(at)};\n`);
  return join(at, "main.js");
}

const NODE = "@tensorflow/tfjs-node";
const TFJS = "@tensorflow/tfjs";
const CORE = "@tensorflow/tfjs-core";

test("where only tfjs-node can be reached, its own is found", async () => {
  const node = join(root, "node_modules", ...NODE.split("/"));
  await install(root, NODE);
  await install(node, TFJS);
  const core = await install(join(node, "node_modules", ...TFJS.split("/")), CORE);
  expect(findTfjsCore(join(root, "loader.js"))).toBe(pathToFileURL(core).href);
});

test("of two copies the backend's is found, and the one that is loaded before it", async () => {
  const flat = await install(root, CORE);
  await install(root, NODE);
  const nested = await install(join(root, "node_modules", ...NODE.split("/")), CORE);
  const from = join(root, "loader.js");
  expect(findTfjsCore(from)).toBe(pathToFileURL(nested).href);
  createRequire(from)(flat);
  expect(findTfjsCore(from)).toBe(pathToFileURL(flat).href);
});

test("without any the name is left for the import to refuse", () => {
  expect(findTfjsCore(join(root, "loader.js"))).toBe(CORE);
});

test("tensors are made by the module that the backend registered with", async () => {
  const core = await loadTfjs();
  expect(core.Tensor).toBe(backend.Tensor);
  expect(core.engine()).toBe(backend.engine());
});
