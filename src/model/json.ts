/**
 * Owns JSON whose equal values are equal bytes, and the rules that keep JSON from strangers harmless in every store.
 */

/** Nesting that a command's JSON may have. */
const DEPTH_MAX = 16;

/**
 * JSON with keys sorted by UTF-16 code units at every depth and no spaces, so that equal values are equal bytes.
 * Members that are undefined are left out. Source: RFC 8785 (JCS).
 */
export function canonicalJson(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? "null";
  let out = "";
  if (Array.isArray(value)) {
    for (const item of value) out += (out === "" ? "" : ",") + canonicalJson(item);
    return `[${out}]`;
  }
  const object = value as Readonly<Record<string, unknown>>;
  for (const { key, quoted } of sortedKeys(Object.keys(object))) {
    const member = object[key];
    if (member === undefined) continue;
    out += out === "" ? quoted : `,${quoted}`;
    out += canonicalJson(member);
  }
  return `{${out}}`;
}

interface QuotedKey {
  readonly key: string;
  /** As JSON, with its colon. */
  readonly quoted: string;
}

interface Layout {
  /** In the order of the object: two lists of keys may read alike. */
  readonly keys: readonly string[];
  readonly sorted: readonly QuotedKey[];
}

const LAYOUTS_MAX = 1_024;
const LAYOUT_CHARS_MAX = 512;
const layouts = new Map<string, Layout>();

/** Objects of few layouts come again and again: their keys are sorted once. Bounded: strangers make layouts, too. */
function sortedKeys(keys: readonly string[]): readonly QuotedKey[] {
  const text = keys.join();
  const known = layouts.get(text);
  if (known && known.keys.length === keys.length && known.keys.every((key, i) => key === keys[i])) return known.sorted;
  const sorted = keys.toSorted().map((key) => ({ key, quoted: `${JSON.stringify(key)}:` }));
  if (layouts.size < LAYOUTS_MAX && text.length <= LAYOUT_CHARS_MAX) layouts.set(text, { keys, sorted });
  return sorted;
}

/**
 * What in `value` a store could not keep, or null: depth beyond 16, numbers that are not finite, text with U+0000 or a
 * lone surrogate (Postgres' jsonb refuses both), the key `__proto__`. An entry that is chosen must be applicable
 * everywhere, so this is decided before it reaches a database.
 */
export function jsonProblem(value: unknown): string | null {
  const rest: { value: unknown; depth: number }[] = [{ value, depth: 0 }];
  for (let next = rest.pop(); next; next = rest.pop()) {
    const { value: v, depth } = next;
    if (typeof v === "number" && !Number.isFinite(v)) return "a number that is not finite";
    if (typeof v === "string" && !isStorable(v)) return "text with U+0000 or half a surrogate pair";
    if (v === null || typeof v !== "object") continue;
    if (depth === DEPTH_MAX) return `nested deeper than ${DEPTH_MAX}`;
    for (const [key, member] of Object.entries(v)) {
      if (key === "__proto__" || !isStorable(key)) return "a key that no store can keep";
      rest.push({ value: member, depth: depth + 1 });
    }
  }
  return null;
}

const LONE_SURROGATE = /\p{Surrogate}/u;

function isStorable(text: string): boolean {
  return !text.includes("\u0000") && !LONE_SURROGATE.test(text);
}
