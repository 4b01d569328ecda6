import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { sidecar } from '@rookery/kafka';
import { Rookery, RookeryModule } from '@rookery/nest';
import { Departed } from './departure.ts';
import { departures, flights } from './flights.ts';

/** The publishing service: sends every flight `FLIGHTS_ROUNDS` times over, one event a departure, then ends. */
@Module({
  imports: [
    RookeryModule.forRoot({
      service: 'flight-publisher',
      connections: { default: sidecar(process.env['FLIGHTS_SIDECAR'] ?? 'tcp://127.0.0.1:9092') },
    }),
  ],
})
class PublisherModule {}

const rounds = Number(process.env['FLIGHTS_ROUNDS'] ?? 10);
/** Publishes on their way at once: enough to fill batches, few enough to stay small. */
const unsettledMax = 8_000;

const app = await NestFactory.createApplicationContext(PublisherModule, { logger: ['error', 'warn'] });
const rookery = app.get(Rookery);
const started = performance.now();
let published = 0;
let unsettled: Promise<unknown>[] = [];
for (const departure of departures(await flights(), rounds)) {
  unsettled.push(rookery.publish(Departed, departure));
  if (unsettled.length < unsettledMax) continue;
  await settle();
}
await settle();
console.log(`published ${published} in ${Math.round(performance.now() - started)} ms`);
await app.close();

async function settle(): Promise<void> {
  await Promise.all(unsettled);
  published += unsettled.length;
  unsettled = [];
  console.log(`progress ${published}`);
}
