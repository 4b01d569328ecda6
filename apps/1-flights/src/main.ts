import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { StatisticsModule } from './statistics.module.ts';

/** The statistics service: `FLIGHTS_SIDECAR`, `FLIGHTS_GROUP` and `PORT` say where and who it is. */
const url = process.env['FLIGHTS_SIDECAR'] ?? 'tcp://127.0.0.1:9092';
const group = process.env['FLIGHTS_GROUP'] ?? 'flight-statistics';
const port = Number(process.env['PORT'] ?? 3000);

const app = await NestFactory.create(StatisticsModule.with({ url, group }), { logger: ['error', 'warn'] });
app.enableShutdownHooks();
await app.listen(port, '127.0.0.1');
console.log(`listening ${await app.getUrl()}`);
