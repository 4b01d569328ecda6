import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Departure } from './departure.ts';

type Flight = Omit<Departure, 'sequence'>;

/** 20,000 departures from 220 American airports, out of the npm package `vega-datasets`. */
export async function flights(): Promise<Flight[]> {
  // The package exports its code only, so the data beside it is found by path.
  const entry = createRequire(import.meta.url).resolve('vega-datasets');
  const file = join(dirname(entry), '..', 'data', 'flights-20k.json');
  return JSON.parse(await readFile(file, 'utf8')) as Flight[];
}

/** The flights `rounds` times over, each departure numbered among those of its origin. */
export function* departures(flights: readonly Flight[], rounds: number): Generator<Departure> {
  const sequences = new Map<string, number>();
  for (let round = 0; round < rounds; round++) {
    for (const flight of flights) {
      const sequence = sequences.get(flight.origin) ?? 0;
      sequences.set(flight.origin, sequence + 1);
      yield { ...flight, sequence };
    }
  }
}
