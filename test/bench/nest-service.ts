import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { sidecar } from '@rookery/kafka';
import { Payload, Rookery, RookeryModule, Subscribe, topic } from '@rookery/nest';

// One service of the bench of Nest handlers, in a process of its own: `publisher` or `handler`, the sidecar's
// address, and how many events there are. It says `ready`, and `done` when all are published or handled.

interface Placed {
  readonly id: number;
  readonly text: string;
}

/** With the JSON around it, an event of 200 bytes. */
const text = 'x'.repeat(175);
const Placed = topic<Placed>('bench.placed', { key: ({ id }) => `${id % 1_000}`, partitions: 4 });
/** Publishes on their way at once: enough to fill batches, few enough to stay small. */
const unsettledMax = 8_000;

const [role, url, countText] = process.argv.slice(2);
const count = Number(countText);
const say = (word: 'ready' | 'done'): void => void process.send!(word);

let handled = 0;
@Controller()
class Handlers {
  @Subscribe(Placed)
  place(@Payload() _: Placed): void {
    if (++handled === count) say('done');
  }
}

@Module({
  imports: [RookeryModule.forRoot({ service: `bench-${role}`, connections: { default: sidecar(url!) } })],
  controllers: role === 'handler' ? [Handlers] : [],
})
class Service {}

const app = await NestFactory.createApplicationContext(Service, { logger: ['error', 'warn'] });
say('ready');
process.once('message', (word) => {
  if (word === 'go') void publish();
});
process.once('disconnect', () => void app.close());

async function publish(): Promise<void> {
  const rookery = app.get(Rookery);
  for (let id = 0; id < count;) {
    const unsettled: Promise<unknown>[] = [];
    for (; unsettled.length < unsettledMax && id < count; id++)
      unsettled.push(rookery.publish(Placed, { id, text }));
    await Promise.all(unsettled);
  }
  say('done');
}
