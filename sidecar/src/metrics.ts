/** One figure for /metrics: what it is called, what it means, and how to read it now. */
export interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge';
  /** A number, or one for each value of the label. */
  readonly read: () => number | ReadonlyMap<string, number>;
  readonly label?: string;
}

/** The figures of the broker. Rooms count in plain numbers; nothing is computed before somebody asks. */
export class Metrics {
  readonly all: Metric[] = [];

  counter(name: string, help: string, read: () => number): void {
    this.all.push({ name, help, type: 'counter', read });
  }

  counters(name: string, help: string, label: string, read: () => ReadonlyMap<string, number>): void {
    this.all.push({ name, help, type: 'counter', read, label });
  }

  gauge(name: string, help: string, read: () => number): void {
    this.all.push({ name, help, type: 'gauge', read });
  }
}
