/**
 * Owns checkpoints: model, optimizer and cursor as one thing that is there whole or not at all.
 *
 *   dir/latest                      which folder holds the newest checkpoint, and its digest; replaced by rename
 *   dir/<epoch>-<offset>-<digest>/  model.json, weights.bin (tfjs's own format), checkpoint.json
 *
 * The files of a checkpoint are named by their digests in `checkpoint.json`, and that one by its own in `latest`: a model
 * that was put beside another state is refused.
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, open, readFile, readdir, rename, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { LayersModel } from "@tensorflow/tfjs-node";
import { z } from "zod";
import { loaderState, type LoaderState } from "../loader/cursor.ts";
import type { LoaderOptions } from "../loader/host-loader.ts";
import { hashBytes } from "../merkle/hash.ts";
import { type Digest, formatDigest, utf8 } from "../model/bytes.ts";
import { canonicalJson } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { hostOf, type Loader } from "./loader.ts";
import { type ModelFiles, readModel, writeModel } from "./model-files.ts";

const digest = z.templateLiteral(["b3:", z.string().regex(/^[0-9a-f]{64}$/)]);
const latestFile = z.strictObject({ format: z.literal("shardpact-checkpoint/1"), folder: z.string(), digest });
const checkpointFile = z.object({
  format: z.literal("shardpact-checkpoint/1"),
  model: digest,
  weights: digest,
  state: loaderState,
  extra: z.unknown(),
});
type CheckpointFile = z.infer<typeof checkpointFile>;

export interface CheckpointOptions {
  readonly model: LayersModel;
  /** Its acknowledged cursor is what is saved: with `fitDataset`, call after the callbacks of `fit()`. */
  readonly loader: Loader;
  /** JSON of the caller's own. */
  readonly extra?: unknown;
}

export interface Restored {
  /** Compiled, with its optimizer's state, if it was. The caller disposes it, and its optimizer with it. */
  readonly model: LayersModel;
  /** Goes on where the checkpoint stands. The caller closes it. */
  readonly loader: Loader;
  readonly extra: unknown;
}

/**
 * Saves model, optimizer and cursor together, and tells the group when the loader belongs to a run. Resolves with the
 * checkpoint's digest once it is durable; the one before it is removed then. Killed at any moment, it leaves the old one or the new.
 * @throws ShardpactError `store_failed` (the folder), `invalid_argument` (`extra` is no JSON)
 */
export async function checkpoint(dir: string, { model, loader, extra }: CheckpointOptions): Promise<Digest> {
  const host = hostOf(loader);
  const state = host.state();
  return inFolder(dir, "writing a checkpoint to", async () => {
    const files = await writeModel(model);
    const body: CheckpointFile = {
      format: "shardpact-checkpoint/1",
      model: digestOf(files.model),
      weights: digestOf(files.weights),
      state,
      extra: plainJson(extra),
    };
    const described = utf8(canonicalJson(body));
    const named = digestOf(described);
    const folder = newFolder(dir, `${state.epoch}-${state.offset}-${named.slice(3, 15)}`);
    await writeFolder(dir, folder, { ...files, described });
    // Before anybody can resume from it: what a model saw is told by the receipts at the checkpoints that it came from.
    await host.checkpointed(named);
    await point(dir, { format: "shardpact-checkpoint/1", folder, digest: named });
    await removeOthers(dir, folder);
    return named;
  });
}

/**
 * The newest checkpoint of `dir`: its model, and a loader of `dataset` that goes on where it stands, at any world size.
 * @throws ShardpactError `not_found` (no checkpoint), `damaged` (a file is not the one that was written), `resume_mismatch`
 * (another version, split, shuffle or seed), and what `dataset.loader` throws
 */
export async function restore<S = unknown>(
  dir: string,
  dataset: { loader<T>(options: LoaderOptions<T>): Loader },
  options: Omit<LoaderOptions<S>, "resume">,
): Promise<Restored> {
  const { files, state, extra } = await inFolder(dir, "reading the checkpoint in", () => readNewest(dir));
  const loader = dataset.loader<S>({ ...options, resume: state } as LoaderOptions<S>);
  try {
    return { model: await readModel(files), loader, extra };
  } catch (error) {
    await loader.close();
    throw error;
  }
}

/**
 * The state in the newest checkpoint of `dir`: which version to open (`state.dataset`) before it is restored.
 * @throws ShardpactError `not_found` (no checkpoint), `damaged`
 */
export async function checkpointedState(dir: string): Promise<LoaderState> {
  return inFolder(dir, "reading the checkpoint in", async () => (await readDescription(dir)).body.state);
}

/** As JSON.stringify would have it, dates and all. @throws ShardpactError `invalid_argument` */
function plainJson(extra: unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(extra ?? null)) as unknown;
  } catch (cause) {
    throw new ShardpactError("invalid_argument", `extra is no JSON: ${(cause as Error).message}`, {
      cause,
      hint: "Pass plain objects, arrays, texts, finite numbers.",
    });
  }
}

interface Description {
  /** The checkpoint's own folder. */
  readonly at: string;
  readonly body: CheckpointFile;
}

async function readDescription(dir: string): Promise<Description> {
  const text = await readFile(join(dir, "latest"), "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT") throw cause;
    throw new ShardpactError("not_found", `there is no checkpoint in ${resolve(dir)}`, { cause });
  });
  const latest = parse(latestFile, text, join(dir, "latest"));
  const at = join(dir, latest.folder);
  const described = await readPart(join(at, "checkpoint.json"));
  requireDigest(join(at, "checkpoint.json"), described, latest.digest);
  const body = parse(checkpointFile, new TextDecoder().decode(described), join(at, "checkpoint.json"));
  return { at, body };
}

async function readNewest(
  dir: string,
): Promise<{ readonly files: ModelFiles; readonly state: LoaderState; readonly extra: unknown }> {
  const { at, body } = await readDescription(dir);
  const [model, weights] = await Promise.all(["model.json", "weights.bin"].map((name) => readPart(join(at, name))));
  requireDigest(join(at, "model.json"), model as Uint8Array, body.model);
  requireDigest(join(at, "weights.bin"), weights as Uint8Array, body.weights);
  return {
    files: { model: model as Uint8Array, weights: weights as Uint8Array },
    state: body.state,
    extra: body.extra,
  };
}

async function readPart(path: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (cause) {
    throw new ShardpactError("damaged", `a part of the checkpoint cannot be read: ${path}`, {
      cause,
      details: { path },
    });
  }
}

function requireDigest(path: string, bytes: Uint8Array, expected: Digest): void {
  const got = digestOf(bytes);
  if (got === expected) return;
  throw new ShardpactError("damaged", `${path} is not the file that the checkpoint was written with`, {
    details: { path, expected, got },
    hint: "Model and cursor must be of one checkpoint: restore the folder whole, or start from another one.",
  });
}

function parse<T>(schema: z.ZodType<T>, text: string, path: string): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new ShardpactError("damaged", `${path} is no part of a checkpoint`, { cause, details: { path } });
  }
}

/** The same state saved again gets a folder of its own: the one that `latest` names is not touched. */
function newFolder(dir: string, name: string): string {
  return existsSync(join(dir, name)) ? `${name}.${randomBytes(4).toString("hex")}` : name;
}

async function writeFolder(
  dir: string,
  folder: string,
  { model, weights, described }: ModelFiles & { readonly described: Uint8Array },
): Promise<void> {
  const temp = join(dir, `.${folder}.${randomBytes(4).toString("hex")}`);
  await mkdir(temp, { recursive: true });
  await writeDurably(join(temp, "model.json"), model);
  await writeDurably(join(temp, "weights.bin"), weights);
  await writeDurably(join(temp, "checkpoint.json"), described);
  await syncFolder(temp);
  await rename(temp, join(dir, folder));
  await syncFolder(dir);
}

async function point(dir: string, latest: z.infer<typeof latestFile>): Promise<void> {
  const temp = join(dir, `.latest.${randomBytes(4).toString("hex")}`);
  await writeDurably(temp, utf8(canonicalJson(latest)));
  await rename(temp, join(dir, "latest"));
  await syncFolder(dir);
}

/** Older checkpoints, and what a killed process left half done. */
async function removeOthers(dir: string, folder: string): Promise<void> {
  for (const name of await readdir(dir)) {
    const isOurs = /^\.?\d+-\d+-[0-9a-f]{12}(\.[0-9a-f]{8}){0,2}$/.test(name) || /^\.latest\.[0-9a-f]{8}$/.test(name);
    if (isOurs && name !== folder) await rm(join(dir, name), { recursive: true, force: true });
  }
}

async function writeDurably(path: string, bytes: Uint8Array): Promise<void> {
  await using file = await open(path, "w");
  await file.writeFile(bytes);
  await file.sync();
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}

async function inFolder<T>(dir: string, what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Error) || !("code" in error) || error instanceof ShardpactError) throw error;
    throw new ShardpactError("store_failed", `${what} ${resolve(dir)} failed: ${error.message}`, { cause: error });
  }
}

function digestOf(bytes: Uint8Array): Digest {
  return formatDigest(hashBytes(bytes));
}
