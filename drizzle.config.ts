/** Owns where drizzle-kit finds the tables and puts the SQL: `npx drizzle-kit generate` after a change of schema.ts. */
import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "postgresql",
  schema: "./src/storage/postgres/schema.ts",
  out: "./migrations",
  schemaFilter: ["shardpact"],
  migrations: { schema: "shardpact", table: "migrations" },
});
