/**
 * Owns where a client finds its group: the caller's options, then SHARDPACT_URL, then ./shardpact.json, then localhost.
 *
 * What a settings file says of its group (name, id, stores) holds for the servers that it names, and for no others.
 */
import { readFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { dirname, isAbsolute, resolve } from "node:path";
import { z } from "zod";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";

const settingsFile = z.strictObject({
  /** NATS URLs: a list, or one text with commas. */
  url: z.union([z.string(), z.array(z.string()).min(1)]).optional(),
  group: z.string().optional(),
  groupId: z.string().optional(),
  /** Path of a file with the client's NKey seed, relative to this file. */
  seedFile: z.string().optional(),
  /** `file:///…` or folders, relative to this file; the first one is written to. */
  stores: z.array(z.string()).optional(),
  /** Folder for what remote stores hold, relative to this file, and its limit. */
  cache: z.union([z.string(), z.strictObject({ dir: z.string(), bytesMax: z.number().int().positive() })]).optional(),
  actor: z.string().optional(),
});

/** What `connect` may be told; all of it is optional. */
export interface SettingsOptions {
  /** NATS URLs: a list, or one text with commas. */
  readonly url?: string | readonly string[] | undefined;
  readonly group?: string | undefined;
  readonly groupId?: string | undefined;
  /** NKey seed of this client; secret. */
  readonly seed?: string | undefined;
  readonly stores?: readonly string[] | undefined;
  /** Folder in which all processes of this machine keep what remote stores hold; default limit 10 GiB, at least 16 MiB. Default: none. */
  readonly cache?: string | CacheSettings | undefined;
  readonly actor?: string | undefined;
  /** A settings file instead of ./shardpact.json; must exist. */
  readonly config?: string | undefined;
}

export interface Settings {
  readonly servers: readonly string[];
  readonly group: string | null;
  readonly groupId: string | null;
  readonly seed: string | null;
  readonly stores: readonly string[];
  readonly cache: CacheSettings | null;
  readonly actor: string;
}

export interface CacheSettings {
  readonly dir: string;
  readonly bytesMax: number;
}

const DEFAULT_URL = "nats://127.0.0.1:4222";
const NATS_PORT = "4222";
const SETTINGS_FILE = "shardpact.json";
const CACHE_BYTES_MAX = 10 * 1024 ** 3;
/** A few pieces of what is fetched at a time: with less, a cache keeps nothing and costs. */
const CACHE_BYTES_MIN = 16 * 1024 * 1024;

/** @throws ShardpactError `config_invalid` naming file and field */
export async function loadSettings(
  o: SettingsOptions = {},
  env: Readonly<Record<string, string | undefined>> = process.env,
  cwd: string = process.cwd(),
): Promise<Settings> {
  const file = await readSettings(resolve(cwd, o.config ?? SETTINGS_FILE), o.config !== undefined);
  const servers = serversOf(o.url ?? env["SHARDPACT_URL"] ?? file.url ?? DEFAULT_URL);
  const ofGroup = file.url === undefined || shareServer(servers, serversOf(file.url)) ? file : {};
  return {
    servers,
    group: o.group ?? env["SHARDPACT_GROUP"] ?? ofGroup.group ?? null,
    groupId: o.groupId ?? ofGroup.groupId ?? null,
    seed: o.seed ?? env["SHARDPACT_SEED"] ?? file.seed ?? null,
    stores: o.stores ?? ofGroup.stores ?? [],
    cache: cacheOf(o.cache ?? env["SHARDPACT_CACHE"] ?? file.cache, cwd),
    actor: (o.actor ?? env["SHARDPACT_ACTOR"] ?? file.actor ?? userName(env)).slice(0, LIMITS.nameCharsMax),
  };
}

function cacheOf(cache: string | CacheSettings | undefined, cwd: string): CacheSettings | null {
  if (cache === undefined || cache === "") return null;
  const { dir, bytesMax } = typeof cache === "string" ? { dir: cache, bytesMax: CACHE_BYTES_MAX } : cache;
  if (typeof dir !== "string" || dir === "" || !(Number.isSafeInteger(bytesMax) && bytesMax >= CACHE_BYTES_MIN)) {
    throw new ShardpactError(
      "config_invalid",
      `a cache has a folder \`dir\` and a limit \`bytesMax\` of ${CACHE_BYTES_MIN} bytes or more, not ${JSON.stringify(cache)}`,
      { hint: 'For example { "dir": "/var/cache/shardpact", "bytesMax": 10737418240 }, or the folder alone.' },
    );
  }
  return { dir: resolve(cwd, dir), bytesMax };
}

function serversOf(url: string | readonly string[]): string[] {
  return (typeof url === "string" ? url.split(",") : [...url]).map((s) => s.trim()).filter(Boolean);
}

/** One server in common: the lists of one cluster need not be equal. */
function shareServer(a: readonly string[], b: readonly string[]): boolean {
  const known = new Set(a.map(hostAndPort));
  return b.some((server) => known.has(hostAndPort(server)));
}

/** `nats://LOCALHOST:4222`, `localhost` and `127.0.0.1:4222` are one server; credentials in the URL don't matter. */
function hostAndPort(server: string): string {
  const text = server.includes("://") ? server : `nats://${server}`;
  if (!URL.canParse(text)) return server;
  const { hostname, port } = new URL(text);
  const host = hostname.toLowerCase();
  return `${["localhost", "[::1]"].includes(host) ? "127.0.0.1" : host}:${port || NATS_PORT}`;
}

type FileSettings = Omit<z.infer<typeof settingsFile>, "seedFile" | "cache"> & {
  readonly seed?: string;
  readonly cache?: CacheSettings;
};

async function readSettings(path: string, mustExist: boolean): Promise<FileSettings> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (!mustExist && (cause as NodeJS.ErrnoException).code === "ENOENT") return {};
    throw new ShardpactError("config_invalid", `the settings file ${path} cannot be read`, { cause });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new ShardpactError("config_invalid", `the settings file ${path} is not JSON`, { cause });
  }
  const parsed = settingsFile.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new ShardpactError(
      "config_invalid",
      `the settings file ${path}: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? "malformed"}`,
    );
  }
  const { seedFile, stores: named, cache: cached, ...rest } = parsed.data;
  const folder = dirname(path);
  const stores = named?.map((s) => (s.includes("://") || isAbsolute(s) ? s : resolve(folder, s)));
  const cache = cacheOf(cached, folder);
  const settings = { ...rest, ...(stores === undefined ? {} : { stores }), ...(cache === null ? {} : { cache }) };
  if (seedFile === undefined) return settings;
  try {
    return { ...settings, seed: (await readFile(resolve(folder, seedFile), "utf8")).trim() };
  } catch (cause) {
    throw new ShardpactError("config_invalid", `the seed file ${seedFile} named in ${path} cannot be read`, { cause });
  }
}

function userName(env: Readonly<Record<string, string | undefined>>): string {
  const name = env["USER"] ?? env["USERNAME"];
  if (name) return name;
  try {
    return userInfo().username || "unknown";
  } catch {
    return "unknown"; // a container may run under a user id without a name
  }
}
