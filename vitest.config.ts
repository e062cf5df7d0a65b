import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import type { ProjectConfig } from "vitest/node";

/** Integration tests that watch no election: two at a time. */
const UNHURRIED = [
  ...["audit-replay", "cli", "client", "embedded", "examples", "init", "package-exports", "remote-stores"],
  ...["snapshot-postgres", "storage-postgres", "storage-storm", "transport-nats"],
].map((name) => `test/integration/${name}.test.ts`);

const source = (path: string): string => fileURLToPath(new URL(`src/${path}`, import.meta.url));
/** As tsconfig's paths: examples import the package by its name. */
const alias = [
  { find: /^shardpact$/, replacement: source("index.ts") },
  { find: /^shardpact\/(.+)$/, replacement: source("$1/index.ts") },
];

function integration(name: string, more: Partial<ProjectConfig>): { resolve: object; test: ProjectConfig } {
  return {
    resolve: { alias },
    test: {
      name,
      include: ["test/integration/**/*.test.ts"],
      setupFiles: ["src/tfjs-node-compat.ts"],
      globalSetup: ["test/support/global-setup.ts"],
      testTimeout: 120_000,
      hookTimeout: 120_000,
      ...more,
    },
  };
}

export default defineConfig({
  test: {
    reporters: ["default"],
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
      integration("integration", {
        exclude: UNHURRIED,
        fileParallelism: false,
        sequence: { groupOrder: 2 },
      }),
      integration("unhurried", { include: UNHURRIED, maxWorkers: 2, sequence: { groupOrder: 1 } }),
      {
        test: {
          name: "simulation",
          include: ["test/sim/campaign/**/*.test.ts"],
        },
      },
    ],
  },
});
