/**
 * Owns what it takes to run Postgres when this process is root: Postgres refuses to run as root, so it runs as another
 * user, who must be able to enter the folders of its data and its binaries.
 */
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve, sep } from "node:path";
import { hashBytes } from "../../merkle/hash.ts";
import { toHex } from "../../model/bytes.ts";
import { ShardpactError } from "../../model/errors.ts";

export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/** Where root keeps what another user must reach, when the wanted place is closed to others. */
const SHARED_PLACE = "/var/lib/shardpact";

/** Null when this process isn't root: then Postgres runs as whoever we are. @throws ShardpactError `setup_failed` */
export function serverUser(): ServerUser | null {
  if (process.getuid?.() !== 0) return null;
  const lines = readFileSync("/etc/passwd", "utf8").split("\n");
  for (const name of ["postgres", "nobody"]) {
    const [, , uid, gid] = lines.find((line) => line.startsWith(`${name}:`))?.split(":") ?? [];
    if (uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new ShardpactError("setup_failed", "Postgres does not run as root, and there is no user to run it as", {
    hint: "Make a user `postgres`, or run this as another user.",
  });
}

/** A folder that the user owns and can enter: `wanted`, or one that stands for it below /var/lib/shardpact. */
export function ownedFolder(wanted: string, user: ServerUser | null): string {
  mkdirSync(wanted, { recursive: true });
  if (user === null) return wanted;
  openOurTemporaryFolders(wanted);
  const place = othersCanEnter(dirname(wanted)) ? wanted : placeFor(wanted);
  chownSync(place, user.uid, user.gid);
  return place;
}

/** `folder`, or a copy of it that the user can read. */
export function readableFolder(folder: string, user: ServerUser | null): string {
  if (user === null || othersCanEnter(folder)) return folder;
  const copy = join(SHARED_PLACE, standIn(folder));
  if (!existsSync(copy)) {
    const fresh = `${copy}.new-${process.pid}`;
    cpSync(folder, fresh, { recursive: true, verbatimSymlinks: true });
    rmSync(copy, { recursive: true, force: true });
    renameSync(fresh, copy);
  }
  return copy;
}

/** Both folders hold the same token: when the wanted one was removed and made anew, what stood for it is old. */
function placeFor(wanted: string): string {
  const place = join(SHARED_PLACE, standIn(wanted));
  const [here, there] = [join(wanted, "place.token"), join(place, "place.token")];
  if (!existsSync(here)) writeFileSync(here, randomBytes(16).toString("hex"));
  const token = readFileSync(here, "utf8");
  if (!existsSync(there) || readFileSync(there, "utf8") !== token) {
    rmSync(place, { recursive: true, force: true });
    mkdirSync(place, { recursive: true });
    writeFileSync(there, token);
  }
  return place;
}

function standIn(path: string): string {
  return toHex(hashBytes(new TextEncoder().encode(resolve(path)))).slice(0, 16);
}

/** Folders made by mkdtemp are closed to others; those on the way to ours may be entered (not listed). */
function openOurTemporaryFolders(path: string): void {
  const top = resolve(tmpdir());
  for (let at = dirname(resolve(path)); at.startsWith(top + sep); at = dirname(at)) {
    const { mode, uid } = statSync(at);
    if (uid === 0 && (mode & 0o001) === 0) chmodSync(at, (mode & 0o777) | 0o011);
  }
}

function othersCanEnter(path: string): boolean {
  for (let at = resolve(path); ; at = dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}
