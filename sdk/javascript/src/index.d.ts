/** The source did not send the cell: neither NULL (null) nor a value. */
export declare const NOT_SENT: unique symbol;
export type Value = boolean | number | bigint | string | Uint8Array;
export type Cell = Value | null | typeof NOT_SENT;
export interface DataType { kind: string; precision?: number; scale?: number; name?: string }
export type TypeLike = DataType | string;
export interface ColumnDef {
  name: string; type: DataType; nullable: boolean; key: boolean; sourceType: string; ext: [string, string][];
}
export interface Schema {
  readonly table: string; readonly namespace: string; readonly connector: string; readonly columns: ColumnDef[];
  /** before-images that updates and deletes carry: 0 none, 1 the key, 2 the whole row */
  readonly images: number; readonly fullName: string;
  has(name: string): boolean;
  column(name: string): ColumnDef | undefined;
}
export declare class Column {
  readonly type: DataType; readonly rows: number;
  get(row: number): Cell;
  hex(): Column;
}
export interface Row {
  readonly changeType: 'insert' | 'update_preimage' | 'update_postimage' | 'delete' | 'other';
  // What a cell holds follows from the column's type, which only the table knows.
  get(column: string): any;
  set(column: string, value: Cell | undefined): void;
  drop(): void;
  route(table: string): void;
}
export interface As { as?: 'text' | 'bytes' | 'int' | 'float' | 'bool' }
export interface TransformPlan {
  renameTable(name: string): void;
  rename(column: string, to: string): void;
  dropColumn(column: string): void;
  filter(column: string, keep: (value: any) => boolean, options?: As): void;
  filterCells(column: string, keep: (value: any) => boolean, options?: As): void;
  route(column: string, to: (value: any) => string | null | undefined, options?: As): void;
  map(column: string, f: (value: any) => Value | null, options?: As): void;
  convert(column: string, to: TypeLike, f: (value: any) => Value | null, options?: As): void;
  mapColumn(column: string, to: TypeLike, f: (column: Column) => Column): void;
  inspect(column: string, f: (column: Column) => void): void;
  addColumn(column: ColumnDef): void;
  eachRow(f: (row: Row) => void, options?: { read?: string[]; write?: string[] | Record<string, TypeLike> }): void;
  mayDrop(): void;
  mayRoute(): void;
}
export type Severity = 'warn' | 'reject' | 'quarantine';
export interface RuleOptions extends As { severity?: Severity }
export interface CheckPlan {
  required(name: string, column: string, options?: RuleOptions): void;
  check(name: string, column: string, judge: (value: any) => string | undefined, options?: RuleOptions): void;
  checkCells(name: string, column: string, judge: (value: any) => string | undefined, options?: RuleOptions): void;
  checkRows(name: string, columns: string[], judge: (row: Record<string, any>) => string | undefined, options?: RuleOptions): void;
}
export interface Plugin<Plan, Config = any> {
  name: string; version?: string; description?: string;
  /** JSON Schema that the host checks the config by */
  configSchema?: object;
  /** what it answers is what `plan` gets; nothing: the config itself */
  configure?(config: any): Config | void;
  plan(schema: Schema, plan: Plan, config: Config): void;
}
export declare function transform<Config = any>(plugin: Plugin<TransformPlan, Config>): Plugin<TransformPlan, Config>;
export declare function validator<Config = any>(plugin: Plugin<CheckPlan, Config>): Plugin<CheckPlan, Config>;
export declare class Reject extends Error {
  constructor(code: string, reason: string, options?: { retryable?: boolean });
}
export declare class ConfigError extends Error {}
export declare class SchemaError extends Error {}
export declare class RetryLater extends Error {
  constructor(afterMs: number, reason: string);
}
export declare namespace host {
  function log(level: 'trace' | 'debug' | 'info' | 'warn' | 'error', message: string, fields?: Record<string, unknown>): void;
  function count(name: string, add?: number, labels?: Record<string, unknown>): void;
  function observe(name: string, value: number, labels?: Record<string, unknown>): void;
  function hmacSha256(key: string, column: Column): Column;
}
export declare function columnDef(name: string, type: TypeLike, more?: Partial<ColumnDef>): ColumnDef;
export declare function dataType(type: TypeLike): DataType;
export declare function typeName(type: DataType): string;
export declare function show(value: Cell): string;
export declare function scaled(text: string, digits: number): bigint | null;
export declare function unscaled(value: bigint, scale: number): string;
export declare function hex(bytes: Uint8Array): string;
export declare function unhex(text: string): Uint8Array;
