/**
 * Reads the source tree for the house rules: files, their imports, comments and functions, by a real parser.
 */
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { type Program, parseSync, visitorKeys } from "oxc-parser";

const ROOT = join(import.meta.dirname, "..", "..");

export interface ImportOf {
  readonly line: number;
  /** As written: `../model/errors.ts`, `pg`. */
  readonly specifier: string;
  /** Path from the root for a relative import, else null. */
  readonly file: string | null;
  /** Erased at compile time. */
  readonly typeOnly: boolean;
}

export interface FunctionOf {
  readonly line: number;
  readonly name: string;
  /** Its lines without those of the functions inside it, which count for themselves. */
  readonly ownLines: number;
}

export interface SourceFile {
  /** From the root: `src/model/errors.ts`. */
  readonly path: string;
  readonly text: string;
  readonly lineCount: number;
  readonly imports: readonly ImportOf[];
  readonly functions: readonly FunctionOf[];
  /** True when the first thing in the file (after a `#!` line) is a doc comment. */
  readonly startsWithDoc: boolean;
  /** The text with comments blanked, for searches; offsets and lines stay. */
  readonly code: string;
}

export function sourceFiles(folder: string): readonly SourceFile[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => read(relative(ROOT, join(entry.parentPath, entry.name))))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

export function readRootFile(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}

interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [key: string]: unknown;
}

function read(path: string): SourceFile {
  const text = readRootFile(path);
  const { program, module, comments, errors } = parseSync(path, text);
  if (errors.length > 0) throw new Error(`${path}: ${errors[0]?.message ?? "does not parse"}`);
  const lineAt = lineFinder(text);
  const importOf = (specifier: string, start: number, typeOnly: boolean): ImportOf => ({
    line: lineAt(start),
    specifier,
    file: specifier.startsWith(".") ? join(dirname(path), specifier) : null,
    typeOnly,
  });
  const imports = [
    ...module.staticImports.map(({ moduleRequest, entries, start }) => {
      const typeOnly = entries.length > 0 && entries.every((entry) => entry.isType);
      return importOf(moduleRequest.value, start, typeOnly);
    }),
    ...module.staticExports.flatMap(({ entries, start }) =>
      entries.flatMap(({ moduleRequest, isType }) =>
        moduleRequest ? [importOf(moduleRequest.value, start, isType)] : [],
      ),
    ),
    ...module.dynamicImports.flatMap(({ moduleRequest: { start, end } }) => {
      const literal = /^["'`](.*)["'`]$/.exec(text.slice(start, end))?.[1];
      return literal === undefined ? [] : [importOf(literal, start, false)];
    }),
  ];
  return {
    path,
    text,
    lineCount: text.trimEnd().split("\n").length,
    imports,
    functions: functionsOf(program, lineAt),
    startsWithDoc: /^(#!.*\n)?\/\*\*/.test(text),
    code: comments.reduce((code, { start, end }) => blank(code, start, end), text),
  };
}

function functionsOf(program: Program, lineAt: (offset: number) => number): readonly FunctionOf[] {
  const found: FunctionOf[] = [];
  /** Returns the lines that functions below this node take. */
  const visit = (node: Node, name: string): number => {
    let inner = 0;
    for (const key of visitorKeys[node.type] ?? []) {
      const child = node[key];
      for (const one of Array.isArray(child) ? child : [child])
        if (isNode(one)) inner += visit(one, nameOf(node) ?? name);
    }
    const isFunction = ["FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"].includes(node.type);
    if (!isFunction) return inner;
    const lines = lineAt(node.end) - lineAt(node.start) + 1;
    found.push({ line: lineAt(node.start), name: nameOf(node) ?? name, ownLines: lines - inner });
    // The line that an inner function starts on belongs to the outer one.
    return lines - 1;
  };
  visit(program as unknown as Node, "module");
  return found;
}

function nameOf(node: Node): string | null {
  for (const key of ["id", "key"]) {
    const named = node[key];
    if (isNode(named) && typeof named["name"] === "string") return named["name"];
  }
  return null;
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && typeof (value as { type?: unknown }).type === "string";
}

function blank(text: string, start: number, end: number): string {
  return text.slice(0, start) + text.slice(start, end).replaceAll(/[^\n]/g, " ") + text.slice(end);
}

function lineFinder(text: string): (offset: number) => number {
  const starts = [0];
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  return (offset) => {
    let low = 0;
    let high = starts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((starts[middle] ?? 0) <= offset) low = middle;
      else high = middle;
    }
    return low + 1;
  };
}
