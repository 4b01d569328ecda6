import 'reflect-metadata';
import type { INestApplication } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import type { Server } from 'node:http';
import request from 'supertest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Departure } from './departure.ts';
import { departures, flights } from './flights.ts';
import { StatisticsModule } from './statistics.module.ts';

let sidecar: SidecarProcess;
let app: INestApplication<Server>;
beforeAll(async () => {
  sidecar = await startSidecar();
  app = await NestFactory.create(StatisticsModule.with({ url: sidecar.url, group: 'statistics' }), {
    logger: false,
  });
  await app.init();
});
afterAll(async () => {
  await app.close();
  await sidecar.stop();
});

const departure = (more: Partial<Departure> = {}): Departure => ({
  date: '2001/01/14 21:55',
  delay: 20,
  distance: 480,
  origin: 'SMF',
  destination: 'SAN',
  sequence: 0,
  ...more,
});

test('a departure that comes in by HTTP changes the statistic of its airport', async () => {
  const http = request(app.getHttpServer());
  await http.get('/airports/SMF').expect(404);
  await http.post('/departures').send(departure()).expect(202, { position: 'flights.departed/1@0' });
  await http
    .post('/departures')
    .send(departure({ sequence: 1, delay: -4 }))
    .expect(202, { position: 'flights.departed/1@1' });
  await expect
    .poll(async () => (await http.get('/airports/SMF')).body as unknown, { timeout: 30_000 })
    .toEqual({ origin: 'SMF', departures: 2, meanDelay: 8, maxDelay: 20, late: 0.5 });
  await http.get('/progress').expect(200, { handled: 2, repeated: 0, skipped: 0 });
});

test('a departure that is none is refused, and nothing is published', async () => {
  const http = request(app.getHttpServer());
  await http
    .post('/departures')
    .send(departure({ delay: 0.5 }))
    .expect(400)
    .expect(({ body }) => expect(body).toMatchObject({ message: ['delay must be an integer number'] }));
});

test('every departure is numbered within its airport', async () => {
  const sequences = new Map<string, number>();
  let count = 0;
  for (const { origin, sequence } of departures(await flights(), 2)) {
    expect(sequence).toBe(sequences.get(origin) ?? 0);
    sequences.set(origin, sequence + 1);
    count++;
  }
  expect(count).toBe(40_000);
  expect(sequences.size).toBe(220);
});
