/**
 * Owns the shape of a batch: walks schema, nodes and buffers together, and says which bytes must still be looked at.
 *
 * arrow-js checks none of this: ten declared rows backed by two load without a word. So counts and lengths are checked
 * here, from the header alone; what only the bytes can tell (null counts, offsets, dictionary indices) becomes a list of
 * content checks for `content.ts`, which scan and decode run alike. Digests prove agreement, not sanity.
 * Source: Arrow columnar format, "Physical memory layout".
 */
import type { ColumnForm, LayoutColumn } from "./layout-columns.ts";
import type { BatchHeader, BufferRegion, FieldNode } from "./message.ts";

/** A batch whose header contradicts its schema or its body; the caller says where it stands. */
export class LayoutError extends Error {
  override readonly name = "LayoutError";
}

/** What the bytes of one buffer must satisfy. `from` and `bytes`: its place in the body, cut to what the rows need. */
export type ContentCheck =
  | {
      readonly kind: "validity";
      readonly column: string;
      readonly from: number;
      readonly bytes: number;
      readonly length: number;
      readonly nullCount: number;
    }
  /** `count` offsets that never fall, the last at most `limit`. */
  | {
      readonly kind: "offsets";
      readonly column: string;
      readonly from: number;
      readonly bytes: number;
      readonly width: 4 | 8;
      readonly limit: number;
    }
  /** Indices into dictionary `dictionary` (id in the schema), except in null slots. */
  | {
      readonly kind: "indices";
      readonly column: string;
      readonly from: number;
      readonly bytes: number;
      readonly width: number;
      readonly signed: boolean;
      readonly dictionary: number;
      readonly validity: BufferRegion | null;
    }
  | {
      readonly kind: "views";
      readonly column: string;
      readonly from: number;
      readonly bytes: number;
      readonly buffers: readonly number[];
      readonly validity: BufferRegion | null;
    }
  | {
      readonly kind: "type_ids";
      readonly column: string;
      readonly from: number;
      readonly bytes: number;
      readonly allowed: readonly number[];
    }
  | {
      readonly kind: "union_offsets";
      readonly column: string;
      readonly from: number;
      readonly bytes: number;
      readonly limit: number;
    };

export interface BatchLayout {
  readonly nodes: readonly FieldNode[];
  /** As in the header, cut to what the rows need, so that typed arrays have exactly as many elements. */
  readonly buffers: readonly BufferRegion[];
  /** In the order of their bytes. */
  readonly checks: readonly ContentCheck[];
}

/** Arrow-js counts rows in int32. */
const ROWS_MAX = 2 ** 31 - 1;
/** Items of lists may be more: two gigabytes of pixels are 2³¹ of them. As many bits as the largest shard has (256 GiB). */
const VALUES_MAX = 2 ** 41;
/** Validity bits of dictionary and view columns are kept while their values are checked. */
const KEPT_VALIDITY_BYTES_MAX = 32 * 1024 * 1024;

/** @throws LayoutError */
export function layoutBatch(columns: readonly LayoutColumn[], header: BatchHeader): BatchLayout {
  if (header.rows > ROWS_MAX) throw new LayoutError(`${header.rows} rows in one batch; at most ${ROWS_MAX}`);
  const walk = new Walk(header);
  for (const { name, form } of columns) walk.visit(form, name, header.rows);
  return walk.finish();
}

type Form<K extends ColumnForm["kind"]> = Extract<ColumnForm, { readonly kind: K }>;

class Walk {
  readonly #header: BatchHeader;
  readonly #nodes: FieldNode[] = [];
  readonly #buffers: BufferRegion[] = [];
  readonly #checks: ContentCheck[] = [];
  #variadic = 0;

  constructor(header: BatchHeader) {
    this.#header = header;
  }

  finish(): BatchLayout {
    const { nodes, buffers, variadicCounts } = this.#header;
    if (nodes.length !== this.#nodes.length) throw new LayoutError(`${nodes.length} nodes for ${this.#nodes.length}`);
    if (buffers.length !== this.#buffers.length) {
      throw new LayoutError(`${buffers.length} buffers for ${this.#buffers.length}`);
    }
    if (variadicCounts.length !== this.#variadic) throw new LayoutError("view columns and their counts differ");
    const inOrder = buffers.filter((b) => b.length > 0).sort((a, b) => a.offset - b.offset);
    let end = 0;
    for (const { offset, length } of inOrder) {
      if (offset < end) throw new LayoutError(`two buffers share byte ${offset} of the body`);
      end = offset + length;
    }
    const checks = this.#checks.sort((a, b) => a.from - b.from);
    return { nodes: this.#nodes, buffers: this.#buffers, checks };
  }

  /** One type: its node, its buffers, its children, in the order of the format. `length` is what its parent needs. */
  visit(form: ColumnForm, column: string, length: number, exact = true): void {
    const node = this.#node(column, length, exact);
    const rows = node.length;
    if (form.kind === "null") return;
    if (form.kind === "union") return this.#union(form, column, rows);
    const validity = this.#validity(column, node);
    switch (form.kind) {
      case "dictionary":
        return this.#indices(form, column, rows, validity);
      case "variable":
        return this.#variable(column, rows, form.width);
      case "views":
        return this.#views(column, rows, validity);
      case "list":
        return this.#list(form.child, column, rows, form.width);
      case "fixed_list":
        return this.#child(form.child, column, rows * form.size);
      case "struct":
        for (const child of form.children) this.#child(child, `${column}.${child.name}`, rows);
        return;
      case "bits":
        return void this.#sized(column, Math.ceil(rows / 8));
      case "fixed":
        return void this.#sized(column, rows * form.bytes);
    }
  }

  #indices(form: Form<"dictionary">, column: string, rows: number, validity: BufferRegion | null): void {
    const { id: dictionary, width, signed } = form;
    const { offset: from, length: bytes } = this.#sized(column, rows * width);
    this.#keepable(column, validity);
    this.#check({ kind: "indices", column, from, bytes, width, signed, dictionary, validity });
  }

  #variable(column: string, rows: number, width: 4 | 8): void {
    const offsets = this.#offsets(column, rows, width);
    const data = this.#buffer(column);
    this.#check({ kind: "offsets", column, from: offsets.offset, bytes: offsets.length, width, limit: data.length });
  }

  #views(column: string, rows: number, validity: BufferRegion | null): void {
    const region = this.#sized(column, rows * 16);
    const count = this.#header.variadicCounts[this.#variadic++];
    if (count === undefined) throw new LayoutError(`column ${column}: a view column without its count of buffers`);
    if (count > this.#header.buffers.length) throw new LayoutError(`column ${column}: ${count} view buffers`);
    const buffers = Array.from({ length: count }, () => this.#buffer(column).length);
    this.#keepable(column, validity);
    this.#check({ kind: "views", column, from: region.offset, bytes: region.length, buffers, validity });
  }

  #list(child: LayoutColumn, column: string, rows: number, width: 4 | 8): void {
    const offsets = this.#offsets(column, rows, width);
    const childNode = this.#header.nodes[this.#nodes.length];
    if (!childNode) throw new LayoutError(`column ${column}: a list without values`);
    const limit = childNode.length;
    this.#check({ kind: "offsets", column, from: offsets.offset, bytes: offsets.length, width, limit });
    this.visit(child.form, column, 0, false);
  }

  #union(form: Form<"union">, column: string, rows: number) {
    const ids = this.#sized(column, rows);
    const allowed = form.typeIds;
    this.#check({ kind: "type_ids", column, from: ids.offset, bytes: ids.length, allowed });
    if (!form.isDense) {
      for (const child of form.children) this.#child(child, `${column}.${child.name}`, rows);
      return;
    }
    const offsets = this.#sized(column, rows * 4);
    let limit = 0;
    for (const child of form.children) {
      limit = Math.max(limit, this.#header.nodes[this.#nodes.length]?.length ?? 0);
      this.visit(child.form, `${column}.${child.name}`, 0, false);
    }
    this.#check({ kind: "union_offsets", column, from: offsets.offset, bytes: offsets.length, limit });
  }

  #child(child: LayoutColumn, column: string, length: number): void {
    this.visit(child.form, column, length);
  }

  #node(column: string, length: number, exact: boolean): FieldNode {
    const node = this.#header.nodes[this.#nodes.length];
    if (!node) throw new LayoutError(`column ${column}: no node`);
    if (node.length > VALUES_MAX || (exact ? node.length !== length : node.length < length)) {
      throw new LayoutError(`column ${column}: ${node.length} values for ${length} rows`);
    }
    if (node.nullCount > node.length) throw new LayoutError(`column ${column}: more nulls than values`);
    this.#nodes.push(node);
    return node;
  }

  #validity(column: string, { length, nullCount }: FieldNode): BufferRegion | null {
    const bytes = Math.ceil(length / 8);
    const region = this.#buffer(column);
    if (region.length === 0 && nullCount === 0) return null;
    if (region.length < bytes) throw new LayoutError(`column ${column}: ${region.length} validity bytes for ${bytes}`);
    this.#trim(bytes);
    this.#check({ kind: "validity", column, from: region.offset, bytes, length, nullCount });
    return { offset: region.offset, length: bytes };
  }

  #offsets(column: string, rows: number, width: number): BufferRegion {
    const next = this.#header.buffers[this.#buffers.length];
    return this.#sized(column, rows === 0 && next?.length === 0 ? 0 : (rows + 1) * width);
  }

  /** The next buffer, which must hold `bytes`, cut to them. */
  #sized(column: string, bytes: number): BufferRegion {
    const { offset, length } = this.#buffer(column);
    if (length < bytes)
      throw new LayoutError(`column ${column}: a buffer of ${length} bytes where ${bytes} are needed`);
    this.#trim(bytes);
    return { offset, length: bytes };
  }

  #trim(bytes: number): void {
    const last = this.#buffers.length - 1;
    this.#buffers[last] = { offset: this.#buffers[last]?.offset ?? 0, length: bytes };
  }

  #buffer(column: string): BufferRegion {
    const region = this.#header.buffers[this.#buffers.length];
    if (!region) throw new LayoutError(`column ${column}: too few buffers`);
    if (region.offset % 8 !== 0)
      throw new LayoutError(`column ${column}: a buffer at body byte ${region.offset} is not aligned`);
    if (region.offset + region.length > this.#header.bodyBytes) {
      throw new LayoutError(
        `column ${column}: a buffer ends at body byte ${region.offset + region.length} of ${this.#header.bodyBytes}`,
      );
    }
    this.#buffers.push(region);
    return region;
  }

  #keepable(column: string, validity: BufferRegion | null): void {
    if (validity && validity.length > KEPT_VALIDITY_BYTES_MAX) {
      throw new LayoutError(`column ${column}: a batch of so many rows with nulls; write smaller batches`);
    }
  }

  #check(check: ContentCheck): void {
    if (check.bytes > 0) this.#checks.push(check);
  }
}
