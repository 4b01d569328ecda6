import { Backoff } from './backoff.ts';
import { Connection, format, type Address, type ConnectionOptions } from './connection.ts';
import { ClientError } from './errors.ts';

export interface ConnectionPoolEvents {
  opened(): void;
  /** @param left connections that are still open */
  lost(reason: ClientError, left: number): void;
}

interface Slot {
  readonly opening: Promise<Connection>;
  readonly givingUp: AbortController;
  connection: Connection | null;
}

interface Failure {
  readonly backoff: Backoff;
  notBefore: number;
}

/** Brokers may name ever new addresses; what is remembered of them has an end. */
const failuresMax = 10_000;

/**
 * At most one connection to each address and purpose, opened when it is first asked for. Answers on one
 * connection come in order, so what may wait long (a fetch for records, a join for the other members) has a
 * purpose of its own. After a failure, and after a loss, an address is given a pause that grows.
 */
export class ConnectionPool {
  readonly #options: ConnectionOptions;
  readonly #events: ConnectionPoolEvents;
  readonly #slots = new Map<string, Slot>();
  readonly #failures = new Map<string, Failure>();
  #isClosed = false;

  constructor(options: ConnectionOptions, events: ConnectionPoolEvents) {
    this.#options = options;
    this.#events = events;
  }

  /** @throws ClientError RK9201 when it cannot be reached, or was tried a moment ago; RK9205 */
  connect(address: Address, purpose = ''): Promise<Connection> {
    const name = nameOf(address, purpose);
    if (this.#isClosed) return Promise.reject(new ClientError('RK9205', this.#options.clientId));
    const slot = this.#slots.get(name);
    if (slot !== undefined) return slot.opening;
    if (this.pauseOf(address, purpose) > 0)
      return Promise.reject(new ClientError('RK9201', `${format(address)}: in the pause after a failure`));
    return this.#open(name, address);
  }

  /** Whether there is a connection that can be used without waiting. */
  isOpen(address: Address, purpose = ''): boolean {
    return this.#slots.get(nameOf(address, purpose))?.connection != null;
  }

  /** Milliseconds until the address may be tried again. */
  pauseOf(address: Address, purpose = ''): number {
    const failure = this.#failures.get(nameOf(address, purpose));
    return failure === undefined ? 0 : Math.max(0, failure.notBefore - performance.now());
  }

  /** Closes the connections of a purpose, those too that are not open yet. */
  release(purpose: string): void {
    for (const [name, slot] of this.#slots) if (purposeOf(name) === purpose) this.#drop(name, slot);
    for (const name of this.#failures.keys()) if (purposeOf(name) === purpose) this.#failures.delete(name);
  }

  close(): void {
    this.#isClosed = true;
    for (const [name, slot] of this.#slots) this.#drop(name, slot);
    this.#failures.clear();
  }

  #open(name: string, address: Address): Promise<Connection> {
    const givingUp = new AbortController();
    const opening = Connection.open(address, this.#options, givingUp.signal);
    const slot: Slot = { opening, givingUp, connection: null };
    this.#slots.set(name, slot);
    opening.then(
      (connection) => {
        if (this.#slots.get(name) !== slot) return connection.close();
        slot.connection = connection;
        this.#events.opened();
        void connection.closed.then((reason) => this.#lost(name, slot, connection, reason));
      },
      () => {
        if (this.#slots.get(name) !== slot) return;
        this.#slots.delete(name);
        this.#pause(name);
      },
    );
    return opening;
  }

  #lost(name: string, slot: Slot, { isProven }: Connection, reason: ClientError): void {
    if (this.#slots.get(name) !== slot) return;
    this.#slots.delete(name);
    // A connection that was of use once is missed at once; one that never was, ever less often.
    if (isProven) this.#failures.delete(name);
    this.#pause(name);
    let left = 0;
    for (const { connection } of this.#slots.values()) if (connection !== null) left++;
    this.#events.lost(reason, left);
  }

  #pause(name: string): void {
    const backoff = this.#failures.get(name)?.backoff ?? new Backoff();
    if (this.#failures.size >= failuresMax) this.#failures.clear();
    this.#failures.set(name, { backoff, notBefore: performance.now() + backoff.next() });
  }

  #drop(name: string, slot: Slot): void {
    this.#slots.delete(name);
    slot.givingUp.abort();
    slot.connection?.close();
  }
}

const nameOf = (address: Address, purpose: string): string => `${format(address)}#${purpose}`;
const purposeOf = (name: string): string => name.slice(name.indexOf('#') + 1);
