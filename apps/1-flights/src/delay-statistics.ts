import { Injectable } from '@nestjs/common';
import type { Departure } from './departure.ts';

export interface AirportDelays {
  readonly origin: string;
  readonly departures: number;
  /** Minutes, negative when early. */
  readonly meanDelay: number;
  readonly maxDelay: number;
  /** Share of departures more than a quarter of an hour late. */
  readonly late: number;
}

const lateMinutes = 15;

class Airport {
  departures = 0;
  totalDelay = 0;
  maxDelay = -Infinity;
  late = 0;
  nextSequence = 0;
}

/** What the service knows: a fold over the events, so that reading them again gives the same table again. */
@Injectable()
export class DelayStatistics {
  readonly #airports = new Map<string, Airport>();
  #handled = 0;
  #repeated = 0;
  #skipped = 0;

  /** Counts a departure once: one that was delivered before only shows up in `progress`. */
  record({ origin, delay, sequence }: Departure): void {
    this.#handled++;
    const airport = this.#airports.get(origin) ?? new Airport();
    this.#airports.set(origin, airport);
    if (sequence < airport.nextSequence) {
      this.#repeated++;
      return;
    }
    this.#skipped += sequence - airport.nextSequence;
    airport.nextSequence = sequence + 1;
    airport.departures++;
    airport.totalDelay += delay;
    airport.maxDelay = Math.max(airport.maxDelay, delay);
    if (delay > lateMinutes) airport.late++;
  }

  /** `repeated` and `skipped` stay 0 as long as every key arrives in order, each event once. */
  progress(): { handled: number; repeated: number; skipped: number } {
    return { handled: this.#handled, repeated: this.#repeated, skipped: this.#skipped };
  }

  /** Every airport, the busiest first. */
  table(): AirportDelays[] {
    return [...this.#airports.keys()]
      .map((origin) => this.of(origin)!)
      .sort((a, b) => b.departures - a.departures || a.origin.localeCompare(b.origin));
  }

  of(origin: string): AirportDelays | undefined {
    const airport = this.#airports.get(origin);
    if (airport === undefined) return undefined;
    const { departures, totalDelay, maxDelay, late } = airport;
    return { origin, departures, meanDelay: totalDelay / departures, maxDelay, late: late / departures };
  }

  /** The sequence number that the next departure from this origin should have. */
  nextSequence(origin: string): number {
    return this.#airports.get(origin)?.nextSequence ?? 0;
  }
}
