/**
 * Owns which adapter a store's address means: a folder or `file:`, `s3:`, `nats:`, `http:` and `https:`.
 */
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { ShardpactError } from "../../model/errors.ts";
import { openDirectoryStore } from "../directory-store.ts";
import type { ShardStore } from "../port.ts";
import { openHttpStore } from "./http-store.ts";
import { type NatsStoreOptions, openNatsStore } from "./nats-store.ts";
import { openS3Store } from "./s3-store.ts";

/** One adapter a scheme. */
const OPENERS: Readonly<Record<string, (url: string, options: NatsStoreOptions) => Promise<ShardStore>>> = {
  "file:": (url) => openDirectoryStore(url),
  "s3:": (url) => openS3Store(url),
  "nats:": async (url, options) => openNatsStore(url, options),
  "http:": async (url) => openHttpStore(url),
  "https:": async (url) => openHttpStore(url),
};

/** @param url as `storeUrl` gives it. The caller closes. @throws ShardpactError `config_invalid`, `setup_failed`, `store_failed` */
export async function openStore(url: string, options: NatsStoreOptions = {}): Promise<ShardStore> {
  const open = OPENERS[new URL(url).protocol];
  if (!open) throw unknownScheme(url);
  return open(url, options);
}

/** A folder as `file:` URL; other URLs as they are. @throws ShardpactError `config_invalid` on a scheme without an adapter */
export function storeUrl(urlOrPath: string): string {
  if (!/^[a-z][a-z0-9+.-]+:/i.test(urlOrPath)) return pathToFileURL(resolve(urlOrPath)).href;
  const { protocol, href } = new URL(urlOrPath);
  if (!(protocol in OPENERS)) throw unknownScheme(urlOrPath);
  return href;
}

/** False for a folder that is not on this machine; another machine's address may mean nothing here. */
export async function mayBeHere(url: string): Promise<boolean> {
  if (!url.startsWith("file:")) return true;
  try {
    return (await stat(fileURLToPath(url))).isDirectory();
  } catch {
    return false;
  }
}

function unknownScheme(url: string): ShardpactError {
  return new ShardpactError("config_invalid", `there is no shard store for '${url}'`, {
    hint: "Give a folder, file:, s3://bucket/prefix, nats://host:4222/bucket or https://host/folder.",
  });
}
