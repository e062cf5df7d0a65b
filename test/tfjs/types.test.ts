/**
 * Column names that the compiler knows: `tsc` checks the lines below, which never run. An expected error that is none is one.
 */
import { expect, test } from "vitest";
import type { Dataset, Group } from "../../src/index.ts";

interface Row {
  age: number;
  height: number;
  clicked: boolean;
}
const rest = { batchSize: 8 } as const;

export function named(rows: Dataset<Row>, any: Dataset): void {
  rows.loader({ xs: ["age", "height"], ys: "clicked", ...rest });
  rows.loader({ xs: { age: { shape: [1] } }, ys: { clicked: { dtype: "bool" } }, ...rest });
  rows.evaluation({ xs: "age", ...rest });
  any.loader<Row>({ xs: "age", ...rest });
  any.loader({ xs: "whatever the schema has", ...rest });
  const wrong = { xs: { agee: {} }, ...rest } as const;
  // @ts-expect-error of several names
  rows.loader({ xs: ["age", "hieght"], ...rest });
  // @ts-expect-error of one
  rows.loader({ xs: "agee", ...rest });
  // @ts-expect-error of a record
  rows.loader({ xs: { age: {}, hieght: {} }, ...rest });
  // @ts-expect-error of targets
  rows.loader({ xs: "age", ys: "cliked", ...rest });
  // @ts-expect-error of options made elsewhere
  rows.loader({ ...wrong });
  // @ts-expect-error of an evaluation
  rows.evaluation({ xs: "agee", ...rest });
  // @ts-expect-error where the loader is told
  any.loader<Row>({ xs: "agee", ...rest });
  // @ts-expect-error an option that there is not
  any.loader({ xs: { age: { onehot: 3 } }, ...rest });
}

export async function opened(group: Group): Promise<void> {
  const rows = await group.open<Row>("clicks@v1");
  // @ts-expect-error the dataset keeps what it was opened as
  rows.loader({ xs: "agee", ...rest });
  const locked = await group.open<Row>({ lock: "shardpact.lock" });
  // @ts-expect-error from a lock file, too
  locked.loader({ xs: "agee", ...rest });
  named(rows, locked);
}

test("the lines above are checked by the compiler", () => {
  expect([typeof named, typeof opened]).toEqual(["function", "function"]);
});
