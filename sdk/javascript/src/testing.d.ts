import type { Cell, TypeLike } from './index.js';

export type RowOf = Record<string, Cell>;
export type Fate = 'kept' | 'dropped' | { rejected: string; reason: string };
export interface Answer {
  fates: Fate[]; rows: RowOf[]; tables: string[]; log: [string, string][]; counters: Record<string, number>;
  kept(row: number): RowOf;
}
export interface Case {
  column(name: string, type: TypeLike, options?: { key?: boolean; nullable?: boolean }): this;
  image(kind: 'insert' | 'update_preimage' | 'update_postimage' | 'delete', row: RowOf): this;
  insert(row: RowOf): this;
  delete(row: RowOf): this;
  run(cut?: number): Answer;
  violations(cut?: number): { row: number; rule: string; message: string }[];
}
export declare function testCase(
  plugin: object, options?: { config?: object; table?: string; keys?: Record<string, string | Uint8Array> },
): Case;
