/**
 * Owns the few types of WebAssembly that are used here: Node's types leave them to those of browsers.
 */
export interface WasmMemory {
  readonly buffer: SharedArrayBuffer;
}

interface Wasm {
  readonly Memory: new (pages: { initial: number; maximum: number; shared: true }) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: Readonly<Record<string, Readonly<Record<string, WasmMemory>>>>,
  ) => { readonly exports: Readonly<Record<string, (...numbers: number[]) => void>> };
}

export const wasm: Wasm = (globalThis as unknown as { readonly WebAssembly: Wasm }).WebAssembly;
