/**
 * Owns the entry of a thread that scans files, and opens stores for itself and puts shards into them. It reads synchronously.
 */
import type { PageEntry } from "../merkle/page.ts";
import type { Lasts, ShardStore, StoreSpec } from "./port.ts";
import { scanFile, type ScannedShard } from "./scan-file.ts";
import { serveCalls } from "./threads.ts";
import type { Uploaded } from "./upload.ts";

/** What a thread needs to put one shard. */
export interface UploadCall {
  readonly spec: StoreSpec;
  readonly entry: PageEntry;
  readonly path: string;
  readonly index: Uint8Array;
  readonly lasts: Lasts;
}
export type FileCall = { readonly kind: "scan"; readonly path: string } | ({ readonly kind: "upload" } & UploadCall);

/** Not every publish copies; loading what does takes a thread some milliseconds. */
const uploading = () => Promise.all([import("./store-again.ts"), import("./upload.ts")]);

/** By URL; they live as long as the thread. */
const stores = new Map<string, Promise<ShardStore>>();

serveCalls<FileCall, ScannedShard | Uploaded>(async (call, onBytes) => {
  if (call.kind === "scan") return scanFile(call.path, { onBytes, reads: "blocking" });
  const { spec, entry, path, index, lasts } = call;
  const [{ openStoreAgain }, { uploadShard }] = await uploading();
  let store = stores.get(spec.url);
  if (!store) stores.set(spec.url, (store = openStoreAgain(spec, { calls: "blocking" })));
  const shard = { entry, path, readIndex: () => Promise.resolve(index) };
  return uploadShard(await store, shard, { onBytes, reads: "blocking", lasts });
});
