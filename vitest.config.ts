import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { onDist } from "./test/support/dist.ts";

const source = (path: string): string => fileURLToPath(new URL(`src/${path}`, import.meta.url));
/** As tsconfig's paths: examples import the package by its name. */
const alias = [
  { find: /^shardpact$/, replacement: source("index.ts") },
  { find: /^shardpact\/(.+)$/, replacement: source("$1/index.ts") },
];

export default defineConfig({
  test: {
    reporters: ["default"],
    // Vitest would leave one of two cores idle. One more than cores: tests of whole groups wait for timers most of their time.
    maxWorkers: availableParallelism() + 1,
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: ["test/integration/**", "test/sim/campaign/**"],
          setupFiles: ["src/tfjs-node-compat.ts"],
          testTimeout: 30_000,
        },
      },
      {
        resolve: { alias },
        plugins: [onDist()],
        test: {
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          setupFiles: ["src/tfjs-node-compat.ts"],
          globalSetup: ["test/support/global-setup.ts"],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          // Each starts up to nine processes, which wait a good half of the time: three keep two cores busy, more would wait
          // for each other.
          maxWorkers: 3,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "simulation",
          include: ["test/sim/campaign/**/*.test.ts"],
        },
      },
    ],
  },
});
