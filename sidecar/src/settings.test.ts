import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { kafkaBrokerSettings, kafkaTopicSettings } from './kafka-settings.ts';
import { brokerSettings, topicFallbacks, topicSettings } from './settings.ts';

const source = (path: string): string => readFileSync(new URL(path, import.meta.url), 'utf8');

test('a setting of our own says what it does', () => {
  const ofKafka = new Set(
    `${kafkaBrokerSettings}${kafkaTopicSettings}`.split('\n').map((line) => line.split(' ')[0]),
  );
  for (const { name, about } of [...brokerSettings.values(), ...topicSettings.values()])
    if (!ofKafka.has(name)) expect(about, name).not.toBeNull();
});

test('what the broker reads is not said to be ignored', () => {
  const read = ['./broker.ts', './server/handlers.ts'].flatMap((path) =>
    [...source(path).matchAll(/config\.(?:int|long|text|bool|raw|topicValue)\('([a-z.]+)'/g)].map(
      ([, name]) => name!,
    ),
  );
  expect(read.length).toBeGreaterThan(15);
  for (const name of read) expect(brokerSettings.get(name)?.about, name).not.toBeNull();
});

test('a topic setting falls back to a broker setting that exists', () => {
  for (const [name, fallback] of Object.entries(topicFallbacks)) {
    expect(topicSettings.has(name), name).toBe(true);
    expect(brokerSettings.has(fallback), fallback).toBe(true);
  }
});
