/**
 * Owns a model as bytes: tfjs's own two files (`tf.loadLayersModel("file://…/model.json")` reads them), optimizer included.
 */
import type { LayersModel } from "@tensorflow/tfjs-node";
import { concatBytes, utf8 } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { findTfjsLayers } from "./core-module.ts";

export interface ModelFiles {
  readonly model: Uint8Array;
  readonly weights: Uint8Array;
}

/** What tfjs hands to a save handler; what is not JSON in it is the weights. */
interface Artifacts {
  readonly modelTopology?: unknown;
  readonly weightSpecs?: readonly unknown[];
  readonly weightData?: ArrayBuffer | readonly ArrayBuffer[];
  readonly [key: string]: unknown;
}

export async function writeModel(model: LayersModel): Promise<ModelFiles> {
  let saved: Artifacts | null = null;
  const handler = {
    save: (artifacts: Artifacts) => {
      saved = artifacts;
      return Promise.resolve({ modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: "JSON" as const } });
    },
  };
  await withoutLeftovers(model, () => model.save(handler as never, { includeOptimizer: isCompiled(model) }));
  if (saved === null) throw new ShardpactError("internal", "tfjs saved no model");
  const { weightData = [], weightSpecs = [], ...rest } = saved as Artifacts;
  const manifest = { ...rest, weightsManifest: [{ paths: ["weights.bin"], weights: weightSpecs }] };
  const buffers = weightData instanceof ArrayBuffer ? [weightData] : [...weightData];
  return {
    model: utf8(JSON.stringify(manifest)),
    weights: concatBytes(buffers.map((buffer) => new Uint8Array(buffer))),
  };
}

/** Optimizers that are being saved: by how many calls, and the tensors that this made. */
const saving = new WeakMap<object, { calls: number; readonly made: { dispose(): void }[] }>();

/** tfjs makes a tensor of the optimizer's count of steps with each save, and leaves it. */
async function withoutLeftovers(model: LayersModel, save: () => Promise<unknown>): Promise<void> {
  const optimizer = model.optimizer as unknown as CountingOptimizer | undefined;
  if (!optimizer) return void (await save());
  const known = saving.get(optimizer) ?? { calls: 0, made: [] };
  saving.set(optimizer, known);
  if (known.calls++ === 0) {
    const { saveIterations } = optimizer;
    optimizer.saveIterations = async () => {
      const count = await saveIterations.call(optimizer);
      known.made.push(count.tensor);
      return count;
    };
  }
  try {
    await save();
  } finally {
    if (--known.calls === 0) {
      delete (optimizer as Partial<CountingOptimizer>).saveIterations; // that of its class is left
      for (const tensor of known.made.splice(0)) tensor.dispose();
    }
  }
}

interface CountingOptimizer {
  saveIterations(): Promise<{ readonly tensor: { dispose(): void } }>;
}

function isCompiled(model: LayersModel): boolean {
  return (model as { optimizer?: unknown }).optimizer !== undefined;
}

/** @throws ShardpactError `setup_failed` (tfjs-layers is not there), and what tfjs throws on layers that it does not know */
export async function readModel({ model, weights }: ModelFiles): Promise<LayersModel> {
  const { weightsManifest, ...rest } = JSON.parse(new TextDecoder().decode(model)) as {
    readonly weightsManifest: readonly { readonly weights: readonly unknown[] }[];
  };
  const weightSpecs = weightsManifest.flatMap((group) => group.weights);
  const { loadLayersModel } = await importLayers();
  const artifacts = { ...rest, weightSpecs, weightData: weights.slice().buffer };
  const loaded = await loadLayersModel({ load: () => Promise.resolve(artifacts) });
  // Nobody else has its optimizer, and tfjs would leave its tensors when the model is disposed of.
  (loaded as unknown as { isOptimizerOwned: boolean }).isOptimizerOwned = true;
  return loaded;
}

async function importLayers(): Promise<{
  loadLayersModel(handler: { load(): Promise<unknown> }): Promise<LayersModel>;
}> {
  try {
    return (await import(findTfjsLayers(import.meta.url))) as Awaited<ReturnType<typeof importLayers>>;
  } catch (cause) {
    throw new ShardpactError("setup_failed", "@tensorflow/tfjs-layers could not be loaded", {
      cause,
      hint: "Install @tensorflow/tfjs-node (or @tensorflow/tfjs) beside shardpact.",
    });
  }
}
