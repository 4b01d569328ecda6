import { Counter, Gauge, Registry } from 'prom-client';
import type { Metric, Metrics } from '../metrics.ts';

const registries = new WeakMap<Metrics, Registry>();

/** The figures in Prometheus' text format. The library loads with the first scrape. */
export function exposition(metrics: Metrics): Promise<string> {
  let registry = registries.get(metrics);
  if (registry === undefined) {
    registry = new Registry();
    for (const metric of metrics.all) register(registry, metric);
    registries.set(metrics, registry);
  }
  return registry.metrics();
}

function register(registry: Registry, { name, help, type, read, label }: Metric): void {
  const labelNames = label === undefined ? [] : [label];
  const registers = [registry];
  if (type === 'gauge') {
    new Gauge({ name, help, registers, labelNames, collect: () => void gauge() });
  } else {
    new Counter({ name, help, registers, labelNames, collect: () => void counter() });
  }
  const values = (): [Record<string, string>, number][] => {
    const value = read();
    if (typeof value === 'number') return [[{}, value]];
    return [...value].map(([of, number]) => [{ [label!]: of }, number]);
  };
  const gauge = (): void => {
    const metric = registry.getSingleMetric(name) as Gauge;
    for (const [labels, value] of values()) metric.set(labels, value);
  };
  const counter = (): void => {
    const metric = registry.getSingleMetric(name) as Counter;
    metric.reset();
    for (const [labels, value] of values()) metric.inc(labels, value);
  };
}
