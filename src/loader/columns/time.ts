/**
 * Owns times as numbers: which unit a stored count has, and how many of the asked-for unit it is.
 *
 * Integers all the way: a timestamp in nanoseconds does not fit a double, so the division is made in BigInt, once a segment.
 */
import { type Data, DataType, DateUnit, TimeUnit } from "apache-arrow";
import { ShardpactError } from "../../model/errors.ts";
import type { ColumnOptions, TimeUnitName } from "./options.ts";
import type { ColumnPlan } from "./column-plan.ts";

const NS: Readonly<Record<TimeUnitName, bigint>> = {
  ns: 1n,
  us: 1_000n,
  ms: 1_000_000n,
  s: 1_000_000_000n,
  min: 60_000_000_000n,
  h: 3_600_000_000_000n,
  d: 86_400_000_000_000n,
};
const TICKS: Readonly<Record<TimeUnit, bigint>> = {
  [TimeUnit.SECOND]: NS.s,
  [TimeUnit.MILLISECOND]: NS.ms,
  [TimeUnit.MICROSECOND]: NS.us,
  [TimeUnit.NANOSECOND]: NS.ns,
};

export function isTemporal(type: DataType): boolean {
  return DataType.isDate(type) || DataType.isTime(type) || DataType.isTimestamp(type) || DataType.isDuration(type);
}

/** @throws ShardpactError `invalid_argument` */
export function timeOf(name: string, type: DataType, { unit, since }: ColumnOptions): NonNullable<ColumnPlan["time"]> {
  const unitNs = unit === undefined ? undefined : NS[unit];
  if (unitNs === undefined) {
    throw new ShardpactError("invalid_argument", `'${String(unit)}' is no unit of '${name}'`, {
      hint: `Units are: ${Object.keys(NS).join(", ")}.`,
    });
  }
  const hasOrigin = DataType.isDate(type) || DataType.isTimestamp(type);
  if (since !== undefined && !hasOrigin) {
    throw new ShardpactError("invalid_argument", `'${name}' is of type ${String(type)}: it is not counted since a day`);
  }
  const originMs =
    since === undefined ? 0 : Date.parse(/[zZ]$|[+-]\d\d:?\d\d$|^\d{4}-\d\d-\d\d$/.test(since) ? since : `${since}Z`);
  if (Number.isNaN(originMs)) {
    throw new ShardpactError("invalid_argument", `'${since}' of '${name}' is no time`, {
      hint: "Write 2024-01-31T12:00:00Z.",
    });
  }
  return { ticksNs: ticksOf(type), sinceNs: BigInt(originMs) * NS.ms, unitNs };
}

function ticksOf(type: DataType): bigint {
  if (DataType.isDate(type)) return type.unit === DateUnit.DAY ? NS.d : NS.ms;
  return TICKS[(type as unknown as { unit: TimeUnit }).unit];
}

/** Stored counts as counts of the plan's unit. */
export function fromTimes({ time }: ColumnPlan, data: Data, count: number): Float64Array {
  const { ticksNs, sinceNs, unitNs } = time as NonNullable<ColumnPlan["time"]>;
  const values = data.values as Int32Array | BigInt64Array;
  const out = new Float64Array(Math.min(count, values.length));
  for (let i = 0; i < out.length; i++) {
    const ns = BigInt(values[i] as number | bigint) * ticksNs - sinceNs;
    out[i] = Number(ns / unitNs) + Number(ns % unitNs) / Number(unitNs);
  }
  return out;
}
