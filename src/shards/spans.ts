/**
 * Owns what rows point at that may point anywhere: the values of texts and bytes that are views, and the children of dense unions.
 *
 * Unlike offsets, which only grow, each row has to be looked at. What is found is spans, as few as there are gaps between them:
 * writers that put values one after the other give one a buffer, and values that many rows share are there once.
 */

/** Bytes [from, to) of data buffer `at` of a column of views; rows [from, to) of child `at` of a union. */
export interface Span {
  readonly at: number;
  from: number;
  to: number;
}

/** Spans with fewer bytes between them become one: a piece of its own costs as much. */
const GAP_BYTES = 256;
/** Spans are put in order and joined each time there are so many more. */
const SPANS_MORE = 4096;

/** The spans of some rows, as far as they were looked at. */
export interface SpanScan {
  /** Looked at before this row. */
  next: number;
  readonly end: number;
  spans: Span[];
  /** Spans that were in order and apart. */
  joined: number;
}

export function startScan(from: number, end: number): SpanScan {
  return { next: from, end, spans: [], joined: 0 };
}

/** Bytes of a view: i32 length · up to 12 bytes in place, or prefix · i32 buffer · i32 offset. */
export const VIEW_BYTES = 16;
const INLINE_BYTES_MAX = 12;

/** Adds what the next views point at. @param isNull of the i-th of them: what lies in a null's place is nobody's value */
export function addViews(scan: SpanScan, views: Uint8Array, isNull: (i: number) => boolean): void {
  const words = new Int32Array(views.buffer, views.byteOffset, views.byteLength / 4);
  for (let i = 0; i * 4 < words.length; i++) {
    const length = words[i * 4] as number;
    const [at, from] = [words[i * 4 + 2] as number, words[i * 4 + 3] as number];
    if (length <= INLINE_BYTES_MAX || at < 0 || from < 0 || isNull(i)) continue;
    const last = scan.spans.at(-1);
    if (last?.at === at && from >= last.from && from <= last.to + GAP_BYTES) last.to = Math.max(last.to, from + length);
    else scan.spans.push({ at, from, to: from + length });
    if (scan.spans.length > scan.joined + SPANS_MORE) join(scan);
  }
  scan.next += words.length / 4;
  if (scan.next === scan.end) join(scan);
}

/** Adds the rows of children that the next rows of a union are. @param typeIds of the children, in their order */
export function addUnionRows(scan: SpanScan, ids: Uint8Array, offsets: Uint8Array, typeIds: readonly number[]): void {
  const rows = new Int32Array(offsets.buffer, offsets.byteOffset, offsets.byteLength / 4);
  const spanOf = new Map<number, Span>();
  for (const span of scan.spans) spanOf.set((typeIds[span.at] as number) & 0xff, span);
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i] as number;
    if (row < 0) continue; // it stays below 0, where decoding refuses it
    const id = ids[i] as number;
    const span = spanOf.get(id);
    if (span) {
      span.from = Math.min(span.from, row);
      span.to = Math.max(span.to, row + 1);
      continue;
    }
    const at = typeIds.findIndex((typeId) => (typeId & 0xff) === id);
    if (at === -1) continue; // the same
    const found = { at, from: row, to: row + 1 };
    spanOf.set(id, found);
    scan.spans.push(found);
  }
  scan.next += rows.length;
}

/** Puts spans in order, and joins those that are not apart. */
function join(scan: SpanScan): void {
  const joined: Span[] = [];
  for (const span of scan.spans.sort((a, b) => a.at - b.at || a.from - b.from)) {
    const last = joined.at(-1);
    if (last?.at === span.at && span.from <= last.to + GAP_BYTES) last.to = Math.max(last.to, span.to);
    else joined.push(span);
  }
  scan.spans = joined;
  scan.joined = joined.length;
}

/** Makes views point into the spans, each of which is a buffer now. What lies in none of them points nowhere: decoding refuses it. */
export function moveViews(views: Uint8Array, spans: readonly Span[]): void {
  const words = new Int32Array(views.buffer, views.byteOffset, views.byteLength / 4);
  for (let i = 0; i < words.length; i += 4) {
    const length = words[i] as number;
    if (length <= INLINE_BYTES_MAX) continue;
    const from = words[i + 3] as number;
    const found = spanWith(spans, words[i + 2] as number, from);
    const span = spans[found];
    const isThere = span !== undefined && from + length <= span.to;
    words[i + 2] = isThere ? found : -1;
    words[i + 3] = isThere ? from - span.from : 0;
  }
}

/** Ordinal of the last span that begins at or before byte `from` of buffer `at`; −1 when there is none in that buffer. */
function spanWith(spans: readonly Span[], at: number, from: number): number {
  let low = 0;
  let high = spans.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const span = spans[middle] as Span;
    if (span.at < at || (span.at === at && span.from <= from)) low = middle + 1;
    else high = middle;
  }
  return spans[low - 1]?.at === at ? low - 1 : -1;
}

/** Makes the offsets of a dense union count from the first row of each child that is there. */
export function moveUnionRows(
  offsets: Uint8Array,
  ids: Uint8Array,
  spans: readonly Span[],
  typeIds: readonly number[],
): void {
  const rows = new Int32Array(offsets.buffer, offsets.byteOffset, offsets.byteLength / 4);
  const first = new Int32Array(256);
  for (const { at, from } of spans) first[(typeIds[at] as number) & 0xff] = from;
  for (let i = 0; i < rows.length; i++) rows[i] = (rows[i] as number) - (first[ids[i] as number] as number);
}
